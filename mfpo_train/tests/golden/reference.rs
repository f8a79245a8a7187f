//! What a golden file holds - parameters, mini-batch, random numbers - as our types, on the device of the tests.

use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use mfpo_policy::critic::ValueSupport;
use mfpo_policy::device::DeviceName;
use mfpo_policy::parameters::Parameters;
use mfpo_train::learner::*;
use mfpo_train::replay_buffer::Batch;

use crate::files::File;

/// Support of the reference agent; its number of atoms follows from the critics' heads.
const VALUE: (f64, f64) = (-1600.0, 1600.0);

/// Where the tests run: MFPO_TEST_DEVICE (cpu, cuda or cuda:N), else the CPU.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || match std::env::var("MFPO_TEST_DEVICE") {
        Ok(name) => name.parse::<DeviceName>().and_then(DeviceName::open),
        Err(_) => DeviceName::Cpu.open(),
    };
    DEVICE
        .get_or_init(|| open().unwrap_or_else(|error| panic!("MFPO_TEST_DEVICE: {error}")))
        .clone()
}

/// What the device runs, and on the CPU also what every other device runs.
pub fn engines() -> Vec<Engine> {
    match Engine::of(&device()) {
        Engine::Packed => vec![Engine::Packed, Engine::Candle],
        Engine::Candle => vec![Engine::Candle],
    }
}

/// Files that hold parameters, a batch and draws.
pub fn update_files() -> Vec<File> {
    File::all()
        .into_iter()
        .filter(|f| f.holds("param/") || f.holds("batch/"))
        .collect()
}

pub fn network(file: &File, prefix: &str, name: &str) -> Parameters {
    file.parameters(&format!("{prefix}{name}"))
}

pub fn support(p: &Parameters) -> ValueSupport {
    let atoms = p.get("Dense_0/bias").unwrap().dims()[0];
    ValueSupport {
        minimum: VALUE.0,
        maximum: VALUE.1,
        atoms,
    }
}

pub fn config(file: &File, clipped_double_q: bool) -> LearnerConfig {
    let (b, s) = file.dims2("batch/observations");
    let (_, a) = file.dims2("batch/actions");
    let critic = network(file, "param/", "critic_1");
    let layers = (0..).take_while(|i| critic.contains(&format!("MLP_0/Dense_{i}/bias")));
    let hidden = layers
        .map(|i| critic.get(&format!("MLP_0/Dense_{i}/bias")).unwrap().dims()[0])
        .collect();
    LearnerConfig {
        hidden_sizes: hidden,
        batch_size: b,
        policy_candidates: file.shape("draw/actor_init_noise")[0] / b,
        gaussian_candidates: file.shape("draw/eps_clean")[1],
        probes: file.shape("draw/logp_probe")[1],
        atoms: support(&critic).atoms,
        clipped_double_q,
        ..LearnerConfig::paper(s, a)
    }
}

pub fn learner(file: &File, clipped_double_q: bool, engine: Engine) -> MfpoLearner {
    let p = |name: &str| network(file, "param/", name);
    let targets = file
        .holds("param/target_critic_")
        .then(|| [p("target_critic_1"), p("target_critic_2")]);
    let initial = InitialParameters {
        actor: p("actor"),
        divergence: p("logp_mvel"),
        critics: [p("critic_1"), p("critic_2")],
        targets,
        log_temperature: file.values("param/temp/log_temp")[0],
    };
    let config = config(file, clipped_double_q);
    MfpoLearner::with_engine(config, initial, 0, (&device(), engine)).unwrap()
}

pub fn batch(file: &File) -> Batch {
    let (size, observation_size) = file.dims2("batch/observations");
    Batch {
        size,
        observation_size,
        action_size: file.dims2("batch/actions").1,
        observations: file.values("batch/observations"),
        actions: file.values("batch/actions"),
        rewards: file.values("batch/rewards"),
        masks: file.values("batch/masks"),
        next_observations: file.values("batch/next_observations"),
    }
}

/// The reference's random numbers.
pub struct RecordedDraws<'a> {
    pub file: &'a File,
    pub prefix: String,
}

impl RecordedDraws<'_> {
    fn copy(&self, name: &str, out: &mut [f32]) {
        out.copy_from_slice(&self.file.values(&format!("{}{name}", self.prefix)));
    }

    fn times(&self, name: &str) -> Times {
        let read = |end: &str| self.file.values(&format!("{}{name}_{end}", self.prefix));
        Times {
            t: read("t"),
            r: read("r"),
        }
    }
}

impl Draws for RecordedDraws<'_> {
    fn next_action_noise(&mut self, out: &mut [f32]) {
        self.copy("q_noise", out);
    }
    fn candidate_noise(&mut self, out: &mut [f32]) {
        self.copy("actor_init_noise", out);
    }
    fn actor_noise(&mut self, out: &mut [f32]) {
        self.copy("actor_noise", out);
    }
    fn actor_times(&mut self, _: usize) -> Times {
        self.times("actor")
    }
    fn truncated_noise(&mut self, _: (&[f32], &[f32]), _: usize, out: &mut [f32]) {
        self.copy("eps_clean", out);
    }
    fn divergence_noise(&mut self, out: &mut [f32]) {
        self.copy("logp_noise", out);
    }
    fn divergence_times(&mut self, _: usize) -> Times {
        self.times("logp")
    }
    fn probes(&mut self, out: &mut [f32]) {
        self.copy("logp_probe", out);
    }
}

pub fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.detach().flatten_all().unwrap().to_vec1().unwrap()
}
