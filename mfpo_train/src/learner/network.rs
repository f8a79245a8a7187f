//! A network with its variables and its optimiser.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use mfpo_policy::gradient::Team;
use mfpo_policy::parameters::{NetworkError, Parameters};

use super::{Adam, Engine, LearnerError, Trace};
use crate::state::{State, flat};

/// Builds a network from its parameters.
type Load<N> = Box<dyn Fn(&Parameters) -> Result<N, NetworkError> + Send + Sync>;

/// A network that learns.
pub(crate) struct TrainedNetwork<N> {
    names: Vec<String>,
    vars: Vec<Var>,
    parameters: Parameters,
    network: N,
    adam: Adam,
    load: Load<N>,
}

impl<N> TrainedNetwork<N> {
    pub(crate) fn new(
        initial: Parameters,
        learning_rate: f64,
        (device, engine): (&Device, Engine),
        load: impl Fn(&Parameters) -> Result<N, NetworkError> + Send + Sync + 'static,
    ) -> Result<Self, LearnerError> {
        let (mut names, mut vars, mut tensors) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, tensor) in initial.iter() {
            let var = Var::from_tensor(&tensor.to_device(device)?)?;
            tensors.insert(name.clone(), var.as_tensor().clone());
            names.push(name.clone());
            vars.push(var);
        }
        let parameters = Parameters::new(tensors);
        let network = load(&parameters)?;
        let adam = Adam::with_engine(vars.clone(), learning_rate, engine)?;
        Ok(Self {
            names,
            vars,
            parameters,
            network,
            adam,
            load: Box::new(load),
        })
    }

    /// The network; gradients flow to its variables.
    pub(crate) fn network(&self) -> &N {
        &self.network
    }

    /// The same weights (shared storage) without gradients.
    pub(crate) fn detached(&self) -> Result<N, NetworkError> {
        (self.load)(&self.parameters.detached())
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Parameters and moments.
    pub(crate) fn state(&self) -> Result<State<'_>, LearnerError> {
        let mut state = State::default();
        state.put_parameters("parameters", &self.parameters)?;
        state.nest("adam", self.adam.state(&self.names)?);
        Ok(state)
    }

    /// The moments of a [`TrainedNetwork::state`]; the parameters were given to [`TrainedNetwork::new`].
    pub(crate) fn restore_moments(&mut self, mut state: State<'_>) -> Result<(), LearnerError> {
        Ok(self.adam.restore(&self.names, state.take_part("adam"))?)
    }

    /// One optimiser step with gradients that were computed on the CPU. Every parameter must get one.
    pub(crate) fn apply(
        &mut self,
        gradients: &[(String, Vec<f32>)],
        team: &Team,
        name: &str,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let mut ordered = Vec::with_capacity(self.vars.len());
        for parameter in &self.names {
            let (_, gradient) = gradients
                .iter()
                .find(|(of, _)| of == parameter)
                .ok_or_else(|| LearnerError::NoGradient(format!("{name}/{parameter}")))?;
            trace.slice(&format!("grad/{name}/{parameter}"), gradient);
            if is_bias(parameter) {
                check_gradient(gradient, name, parameter)?;
            }
            ordered.push(gradient.as_slice());
        }
        self.adam.step_on_cpu(&ordered, team)?;
        self.trace_moments(name, trace)
    }

    /// Backward pass of `loss` and one optimiser step. Every parameter must get a gradient.
    pub(crate) fn descend(
        &mut self,
        loss: &Tensor,
        name: &str,
        trace: &mut Trace,
    ) -> Result<(), LearnerError> {
        let store = loss.backward()?;
        let mut gradients = Vec::with_capacity(self.vars.len());
        for (parameter, var) in self.names.iter().zip(&self.vars) {
            let gradient = store
                .get(var)
                .ok_or_else(|| LearnerError::NoGradient(format!("{name}/{parameter}")))?;
            trace.tensor(&format!("grad/{name}/{parameter}"), gradient)?;
            // On another device each look is a wait for it; there the next loss tells.
            if is_bias(parameter) && gradient.device().is_cpu() {
                check_gradient(&flat(gradient)?, name, parameter)?;
            }
            gradients.push(gradient.clone());
        }
        self.adam.step(&gradients)?;
        self.trace_moments(name, trace)
    }

    fn trace_moments(&self, name: &str, trace: &mut Trace) -> Result<(), LearnerError> {
        if trace.is_on() {
            for (parameter, moment) in self.names.iter().zip(self.adam.first_moments()?) {
                trace.slice(&format!("moment/{name}/{parameter}"), &moment);
            }
        }
        Ok(())
    }
}

/// Is it one of the parameters that a gradient is judged by? What is not finite on the way back reaches the biases that lie before
/// it, and they are few to look at beside the weights.
fn is_bias(parameter: &str) -> bool {
    parameter.ends_with("/bias")
}

fn check_gradient(gradient: &[f32], name: &str, parameter: &str) -> Result<(), LearnerError> {
    if gradient.iter().all(|g| g.is_finite()) {
        return Ok(());
    }
    Err(LearnerError::Gradient(format!("{name}/{parameter}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_that_is_not_finite_is_named_before_its_step_is_taken() {
        let bias = Tensor::new(&[1.0f32, 2.0], &Device::Cpu).unwrap();
        let initial = Parameters::new(BTreeMap::from([("Dense_0/bias".to_owned(), bias)]));
        for engine in [Engine::Packed, Engine::Candle] {
            let on = (&Device::Cpu, engine);
            let load = |p: &Parameters| p.get("Dense_0/bias").cloned();
            let mut network = TrainedNetwork::new(initial.clone(), 0.1, on, load).unwrap();
            let mut step = |gradient: [f32; 2]| {
                let result = match engine {
                    Engine::Packed => {
                        let gradients = [("Dense_0/bias".to_owned(), gradient.to_vec())];
                        network.apply(&gradients, &Team::default(), "critic_2", &mut Trace::off())
                    }
                    Engine::Candle => {
                        let slope = Tensor::new(&gradient, &Device::Cpu).unwrap();
                        let loss = (network.network() * slope).unwrap().sum_all().unwrap();
                        network.descend(&loss, "critic_2", &mut Trace::off())
                    }
                };
                (result, flat(network.network()).unwrap())
            };
            for bad in [f32::NAN, f32::INFINITY] {
                let (result, bias) = step([0.5, bad]);
                let text = result.unwrap_err().to_string();
                assert!(text.contains("'critic_2/Dense_0/bias' is not finite"), "{text}");
                assert_eq!(bias, [1.0, 2.0]);
            }
            let (result, bias) = step([0.5, -0.5]);
            result.unwrap();
            assert!(bias[0] < 1.0 && bias[1] > 2.0, "{bias:?}");
        }
    }
}
