//! ONNX Runtime, JAX and PyTorch, in a process of their own, on the same weights, observation and noise.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use candle_core::{Device, Tensor};
use mfpo_policy::sampler::{ActionSampler, PolicyNetworks};
use serde_json::{Value, json};

use super::{ACTION, Failure, STEPS, actor_parameters, row};

/// The running peers.
pub struct Peers {
    child: Child,
    /// Closed, it ends them.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What each says of itself, by name.
    told: BTreeMap<String, Value>,
    /// us a call, by name.
    times: BTreeMap<String, Vec<f64>>,
}

impl Peers {
    /// Starts them and waits until each has given the same action as ours.
    pub fn start(
        python: &Path,
        networks: &PolicyNetworks,
        (observation, noise): (&[f32], &[f32]),
    ) -> Result<Self, Failure> {
        let file = std::env::temp_dir().join(format!("mfpo-inference-{}.safetensors", std::process::id()));
        save(&file, networks, (observation, noise))?;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/inference.py");
        let mut child = Command::new(python)
            .env_remove("PYTHONPATH")
            .arg(program)
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", python.display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("the peers have no output")?);
        let mut peers = Self {
            child,
            input,
            output,
            told: BTreeMap::new(),
            times: BTreeMap::new(),
        };
        let hello = peers.line();
        std::fs::remove_file(&file)?;
        for told in hello?["peers"].as_array().into_iter().flatten() {
            let name = told["peer"].as_str().unwrap_or_default().to_owned();
            if told.get("missing").is_none() {
                peers.times.insert(name.clone(), Vec::new());
            }
            peers.told.insert(name, told.clone());
        }
        Ok(peers)
    }

    /// `samples` calls of each.
    pub fn take_turn(&mut self, samples: usize) -> Result<(), Failure> {
        let names: Vec<String> = self.times.keys().cloned().collect();
        for name in names {
            let request = json!({ "peer": name, "samples": samples.max(10) });
            let input = self.input.as_mut().ok_or("the peers have no input")?;
            writeln!(input, "{request}")?;
            let answer = self.line()?;
            let times = answer["times_us"].as_array().into_iter().flatten();
            self.times
                .entry(name)
                .or_default()
                .extend(times.filter_map(Value::as_f64));
        }
        Ok(())
    }

    /// What each says of itself, with its figures, by name.
    pub fn told(mut self) -> BTreeMap<String, Value> {
        let mut told = std::mem::take(&mut self.told);
        for (name, times) in std::mem::take(&mut self.times) {
            let version = told[&name]["version"].as_str().unwrap_or_default().to_owned();
            let figures = row(&format!("{name} {version}"), times);
            for (key, value) in figures.as_object().into_iter().flatten() {
                told.entry(name.clone()).or_default()[key] = value.clone();
            }
        }
        told
    }

    fn line(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err("a peer failed; what it said is above".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Parameters, observation, noise, and the action that ours gives for them.
fn save(
    file: &Path,
    networks: &PolicyNetworks,
    (observation, noise): (&[f32], &[f32]),
) -> Result<(), Failure> {
    let mut action = [0.0f32; ACTION];
    let device = networks.actor.trunk.head.bias.device();
    ActionSampler::new(networks, device)?.sample_into(observation, noise, 1, &mut action)?;
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in actor_parameters()?.iter() {
        tensors.insert(name.clone(), tensor.clone());
    }
    let given: [(&str, &[f32]); 4] = [
        ("observation", observation),
        ("noise", noise),
        ("action", &action),
        ("steps", &[STEPS as f32]),
    ];
    for (name, values) in given {
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(candle_core::safetensors::save(
        &tensors.into_iter().collect(),
        file,
    )?)
}
