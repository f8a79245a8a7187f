//! Our networks, samplers, estimators, losses, gradients, optimiser and whole updates against the reference
//! implementation's own numbers (tests/golden, or the folder that MFPO_GOLDEN_DIR names). Sizes come from the files; any
//! subset of the files is accepted; every test prints how many tensors it compared.

mod golden_files;

use std::collections::BTreeSet;

use candle_core::{Device, Tensor, Var};
use golden_files::{File, Judge};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::fast::{FastCritic, FastSampler, Rows, Scratch};
use mfpo_policy::mean_flow::{FlowPoint, MeanFlow};
use mfpo_policy::parameters::Parameters;
use mfpo_policy::sampler;
use mfpo_train::learner::*;
use mfpo_train::replay_buffer::Batch;

/// Support of the reference agent; its number of atoms follows from the critics' heads.
const VALUE: (f64, f64) = (-1600.0, 1600.0);

/// Files that hold parameters, a batch and draws.
fn update_files() -> Vec<File> {
    File::all()
        .into_iter()
        .filter(|f| f.has("param/actor/MLP_0/Dense_0/kernel") && f.has("batch/rewards"))
        .collect()
}

fn network(file: &File, prefix: &str, name: &str) -> Parameters {
    file.parameters(&format!("{prefix}{name}"))
}

fn support(p: &Parameters) -> ValueSupport {
    let atoms = p.get("Dense_0/bias").unwrap().dims()[0];
    ValueSupport {
        minimum: VALUE.0,
        maximum: VALUE.1,
        atoms,
    }
}

fn config(file: &File, clipped_double_q: bool) -> LearnerConfig {
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

fn learner(file: &File, clipped_double_q: bool) -> MfpoLearner {
    let p = |name: &str| network(file, "param/", name);
    let targets = file
        .has("param/target_critic_1/Dense_0/bias")
        .then(|| [p("target_critic_1"), p("target_critic_2")]);
    let initial = InitialParameters {
        actor: p("actor"),
        divergence: p("logp_mvel"),
        critics: [p("critic_1"), p("critic_2")],
        targets,
        log_temperature: file.values("param/temp/log_temp")[0],
    };
    MfpoLearner::with_parameters(config(file, clipped_double_q), initial, 0, &Device::Cpu).unwrap()
}

fn batch(file: &File) -> Batch {
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
struct RecordedDraws<'a> {
    file: &'a File,
    prefix: String,
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

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.detach().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn golden_forward_passes_and_jvps() {
    let mut judge = Judge::new("forward passes and JVPs");
    for file in update_files().iter().filter(|f| f.has("fwd/in/a")) {
        let input = |name: &str| file.tensor(&format!("fwd/in/{name}"));
        let (a, s, t, h) = (input("a"), input("s"), input("t"), input("h"));
        let tangents = (input("tan_a"), input("tan_t"), input("tan_h"));
        for name in ["actor", "logp"] {
            let parameters = network(file, "param/", if name == "logp" { "logp_mvel" } else { name });
            let net = MeanFlow::load(&parameters, a.dims()[1]).unwrap();
            let at = FlowPoint {
                observation: &s,
                x: &a,
                t: &t,
                h: &h,
            };
            let u = flat(&net.forward(at).unwrap());
            judge.compare(file, &format!("fwd/out/{name}_u"), &u, "out/u_pred");
            let (value, jvp) = net.jvp(at, (&tangents.0, &tangents.1, &tangents.2)).unwrap();
            judge.compare(file, &format!("fwd/out/{name}_u"), &flat(&value), "out/u_pred");
            judge.compare(file, &format!("fwd/out/{name}_jvp"), &flat(&jvp), "out/du_dt");
        }
        // The critics were evaluated at actions, that is at points clipped to [-1, 1].
        let a = a.clamp(-1f32, 1f32).unwrap();
        for name in ["critic_1", "critic_2", "target_critic_1", "target_critic_2"] {
            let p = network(file, "param/", name);
            let critic = Critic::load(&p, support(&p)).unwrap();
            let logits = critic.logits(&s, &a).unwrap();
            judge.compare(
                file,
                &format!("fwd/out/{name}_logits"),
                &flat(&logits),
                "out/critic_logits_1",
            );
            let value = critic.expected_value(&logits).unwrap();
            judge.compare(
                file,
                &format!("fwd/out/{name}_value"),
                &flat(&value),
                "out/critic_value_1",
            );
            let fast = FastCritic::new(&critic, s.dims()[1]).unwrap();
            let rows = a.dims()[0];
            let mut share = vec![0.0; rows * fast.share_width()];
            fast.share(&flat(&s), &mut share);
            let mut out = vec![0.0; rows];
            let x = flat(&a);
            fast.value(
                Rows {
                    x: &x,
                    share: &share,
                    group: 1,
                },
                &mut Scratch::default(),
                &mut out,
            );
            judge.compare(file, &format!("fwd/out/{name}_value"), &out, "out/critic_value_1");
        }
    }
    judge.finish();
}

#[test]
fn golden_directional_derivatives_and_exact_divergence() {
    let mut judge = Judge::new("derivatives along the flow, exact divergence");
    for file in update_files().iter().filter(|f| f.has("fwd/in/a")) {
        let input = |name: &str| file.tensor(&format!("fwd/in/{name}"));
        let (a, s, t, h) = (input("a"), input("s"), input("t"), input("h"));
        let actor = MeanFlow::load(&network(file, "param/", "actor"), a.dims()[1]).unwrap();
        let zero = h.zeros_like().unwrap();
        let now = FlowPoint {
            observation: &s,
            x: &a,
            t: &t,
            h: &zero,
        };
        let still = t.zeros_like().unwrap();
        judge.compare(
            file,
            "fwd/out/actor_u_h0",
            &flat(&actor.forward(now).unwrap()),
            "out/u_pred",
        );
        let (rows, size) = a.dims2().unwrap();
        let mut divergence = vec![0.0f32; rows];
        for i in 0..size {
            let mut direction = vec![0.0f32; rows * size];
            (0..rows).for_each(|r| direction[r * size + i] = 1.0);
            let direction = Tensor::from_vec(direction, (rows, size), &Device::Cpu).unwrap();
            let (_, column) = actor.jvp(now, (&direction, &still, &still)).unwrap();
            let column = flat(&column);
            (0..rows).for_each(|r| divergence[r] += column[r * size + i]);
        }
        judge.compare(file, "fwd/out/exact_div_h0", &divergence, "out/div_estimation");
        let noise = flat(&sampler::normal_log_prob(&input("noise")).unwrap());
        judge.compare(file, "fwd/out/normal_logprob", &noise, "out/next_logps");
    }
    judge.finish();
}

#[test]
fn golden_samplers_for_any_number_of_steps() {
    let mut judge = Judge::new("samplers");
    for file in update_files().iter().filter(|f| f.has("fwd/in/noise")) {
        let (s, noise) = (file.tensor("fwd/in/s"), file.tensor("fwd/in/noise"));
        let a = noise.dims()[1];
        let actor = MeanFlow::load(&network(file, "param/", "actor"), a).unwrap();
        let divergence = MeanFlow::load(&network(file, "param/", "logp_mvel"), a).unwrap();
        let steps: BTreeSet<usize> = file
            .names()
            .iter()
            .filter_map(|n| n.strip_prefix("fwd/out/sample_T")?.parse().ok())
            .collect();
        for t in steps {
            let action = flat(&sampler::sample(&actor, &s, &noise, t).unwrap());
            judge.compare(
                file,
                &format!("fwd/out/sample_T{t}"),
                &action,
                "out/policy_actions",
            );
            let (x, log_prob) = sampler::flow(&actor, Some(&divergence), (&s, &noise), t).unwrap();
            judge.compare(
                file,
                &format!("fwd/out/sample_noclip_T{t}"),
                &flat(&x),
                "out/policy_actions",
            );
            judge.compare(
                file,
                &format!("fwd/out/sample_logp_T{t}"),
                &flat(&log_prob.unwrap()),
                "out/policy_logps",
            );
            let mut fast = FastSampler::new(&actor, Some(&divergence), t).unwrap();
            let (observations, mut x) = (flat(&s), flat(&noise));
            let mut log_probs = vec![0.0; noise.dims()[0]];
            fast.sample(&observations, 1, &mut x, Some(&mut log_probs));
            judge.compare(
                file,
                &format!("fwd/out/sample_logp_a_T{t}"),
                &x,
                "out/policy_actions",
            );
            judge.compare(
                file,
                &format!("fwd/out/sample_logp_T{t}"),
                &log_probs,
                "out/policy_logps",
            );
        }
    }
    judge.finish();
}

#[test]
fn golden_best_of_n_by_the_target_critics() {
    let mut judge = Judge::new("best of N");
    let files = update_files();
    let cases = files.iter().filter(|f| f.has("eval/obs")).map(|f| (f, f, true));
    let nocdq = File::all();
    let pairs = nocdq
        .iter()
        .filter(|f| f.has("eval/action") && !f.has("eval/obs"));
    let base = |file: &File| {
        files
            .iter()
            .find(|f| Some(f.stem.as_str()) == file.stem.strip_suffix("_nocdq"))
    };
    let pairs = pairs.filter_map(|f| Some((base(f)?, f, false)));
    for (inputs, expected, clipped) in cases.chain(pairs) {
        let mut sampler = learner(inputs, clipped).action_sampler().unwrap();
        let (noise, observation) = (inputs.values("eval/noise"), inputs.values("eval/obs"));
        let candidates = noise.len() / sampler.action_size();
        let mut action = vec![0.0; sampler.action_size()];
        let value = sampler
            .sample_into(&observation, &noise, candidates, &mut action)
            .unwrap()
            .unwrap();
        judge.compare(expected, "eval/action", &action, "out/policy_actions");
        let best = expected.values("eval/Q").into_iter().fold(f32::MIN, f32::max);
        judge.number(
            expected,
            "eval/Q",
            f64::from(value),
            f64::from(best),
            "out/q_policy",
        );
    }
    judge.finish();
}

#[test]
fn golden_projection() {
    let mut judge = Judge::new("projection");
    for file in File::all() {
        let cases: Vec<String> = file
            .names()
            .iter()
            .filter_map(|n| Some(n.strip_suffix("/tz")?.to_owned()))
            .collect();
        for case in cases {
            let range = file.values(&format!("{case}/range"));
            let atoms = file.dims2(&format!("{case}/tz")).1;
            let support = ValueSupport {
                minimum: f64::from(range[0]),
                maximum: f64::from(range[1]),
                atoms,
            };
            let m = project(
                &file.values(&format!("{case}/probs")),
                &file.values(&format!("{case}/tz")),
                &support,
            );
            judge.compare(&file, &format!("{case}/out"), &m, "out/target_probs");
            for row in m.chunks_exact(atoms) {
                assert!(
                    (row.iter().sum::<f32>() - 1.0).abs() < 1e-5,
                    "{case}: mass was lost"
                );
            }
        }
    }
    judge.finish();
}

#[test]
fn golden_velocity_estimators() {
    let mut judge = Judge::new("velocity estimators");
    for file in File::all().iter().filter(|f| f.has("in/q_policy")) {
        let v = |name: &str| file.values(&format!("in/{name}"));
        let (x_t, t, log_probs) = (v("x_t"), v("t"), v("policy_logps"));
        let (policy, q_policy, clean, q_clean) = (
            v("policy_actions"),
            v("q_policy"),
            v("clean_actions"),
            v("q_clean"),
        );
        let estimate = estimate_velocity(&VelocityProblem {
            x_t: &x_t,
            t: &t,
            alpha: v("alpha")[0],
            policy: ProposalSet {
                actions: &policy,
                values: &q_policy,
            },
            log_probs: &log_probs,
            clean: ProposalSet {
                actions: &clean,
                values: &q_clean,
            },
        });
        let results = [
            ("log_weight_policy", &estimate.log_weight_policy),
            ("weight_policy", &estimate.weight_policy),
            ("weight_clean", &estimate.weight_clean),
            ("vel_estimation_policy", &estimate.velocity_policy),
            ("vel_estimation_clean", &estimate.velocity_clean),
            ("vel_estimation", &estimate.velocity),
            ("ess_policy", &estimate.ess_policy),
            ("ess_clean", &estimate.ess_clean),
            ("vel_policy_weight", &estimate.policy_share),
        ];
        for (name, values) in results {
            judge.compare(file, &format!("out/{name}"), values, &format!("out/{name}"));
        }
    }
    judge.finish();
}

#[test]
fn golden_adam() {
    let mut judge = Judge::new("Adam");
    for file in File::all().iter().filter(|f| f.has("grad0")) {
        let var = Var::from_tensor(&file.tensor("param0")).unwrap();
        let mut adam = Adam::new(vec![var.clone()], 3e-4).unwrap();
        let mut scalar = (ScalarAdam::default(), file.values("param0")[0]);
        for step in 0.. {
            if !file.has(&format!("grad{step}")) {
                break;
            }
            let gradient = file.tensor(&format!("grad{step}"));
            adam.step(std::slice::from_ref(&gradient)).unwrap();
            let expected = format!("param{}", step + 1);
            judge.compare(file, &expected, &flat(&var), "after/actor");
            scalar.0.step(&mut scalar.1, flat(&gradient)[0], 3e-4);
            let want = f64::from(file.values(&expected)[0]);
            judge.number(file, &expected, f64::from(scalar.1), want, "after/actor");
        }
    }
    judge.finish();
}

/// Compares everything an update has recorded with what the file holds under `prefix`.
fn compare_update(judge: &mut Judge, file: &File, trace: &Trace, prefix: &str) {
    for name in file
        .names()
        .iter()
        .filter_map(|n| n.strip_prefix(prefix))
        .filter(|n| !n.contains('/'))
    {
        // These two are the same value under two names.
        let ours = if name == "temperature_before" {
            "alpha"
        } else {
            name
        };
        match trace.get(ours) {
            Some(values) => judge.compare(file, &format!("{prefix}{name}"), values, &format!("out/{name}")),
            None => judge.missing(file, &format!("{prefix}{name}")),
        }
    }
}

#[test]
fn golden_updates_with_clipped_double_q() {
    let mut judge = Judge::new("one whole update: intermediates, losses, gradients, moments, parameters");
    for file in &update_files() {
        let mut learner = learner(file, true);
        let mut trace = Trace::on();
        let mut draws = RecordedDraws {
            file,
            prefix: "draw/".into(),
        };
        learner.update_with(&batch(file), &mut draws, &mut trace).unwrap();
        compare_update(&mut judge, file, &trace, "out/");
        for name in file.names().iter().filter(|n| n.starts_with("grad/")) {
            let network = name.split('/').nth(1).unwrap();
            let Some(values) = trace.get(name) else {
                judge.missing(file, name);
                continue;
            };
            judge.relative(file, name, values, &format!("grad/{network}"));
            // After one step from zero the first moment is (1 - b1) times the gradient.
            if let Some(moment) = trace.get(&name.replacen("grad/", "moment/", 1)) {
                let scaled: Vec<f32> = moment.iter().map(|m| m * 10.0).collect();
                judge.relative(file, name, &scaled, &format!("grad/{network}"));
            }
        }
        compare_parameters(&mut judge, file, &learner, &trace);
    }
    judge.finish();
}

fn compare_parameters(judge: &mut Judge, file: &File, learner: &MfpoLearner, trace: &Trace) {
    let [critic_1, critic_2] = learner.critic_parameters();
    let [target_1, target_2] = learner.target_parameters();
    let networks = [
        ("actor", learner.actor_parameters()),
        ("logp_mvel", learner.divergence_parameters()),
        ("critic_1", critic_1),
        ("critic_2", critic_2),
        ("target_critic_1", target_1),
        ("target_critic_2", target_2),
    ];
    for (network, parameters) in networks {
        let prefix = format!("after/{network}/");
        for name in file.names().iter().filter(|n| n.starts_with(&prefix)) {
            let ours = flat(parameters.get(&name[prefix.len()..]).unwrap());
            judge.quantiles(file, name, &ours, &format!("after/{network}"));
        }
    }
    if file.has("after/temp/log_temp") {
        let ours = trace.get("after/temp/log_temp").unwrap();
        judge.quantiles(file, "after/temp/log_temp", ours, "after/temp");
    }
}

#[test]
fn golden_updates_without_clipped_double_q() {
    let mut judge = Judge::new("one whole update without clipped double Q");
    let files = update_files();
    let base = files.iter().find(|f| f.stem == "small_perturbed");
    for file in File::all().iter().filter(|f| f.stem.ends_with("_nocdq")) {
        let Some(base) = base else {
            println!(
                "{} needs small_perturbed.safetensors, which is not there",
                file.stem
            );
            continue;
        };
        let mut learner = learner(base, false);
        let mut trace = Trace::on();
        let mut draws = RecordedDraws {
            file: base,
            prefix: "draw/".into(),
        };
        learner.update_with(&batch(base), &mut draws, &mut trace).unwrap();
        compare_update(&mut judge, file, &trace, "out/");
    }
    judge.finish();
}

#[test]
fn golden_four_updates_in_a_row() {
    let mut judge = Judge::new("four updates in a row");
    let files = update_files();
    let base = files.iter().find(|f| f.stem == "small_perturbed");
    for file in File::all().iter().filter(|f| f.has("step0/draw/q_noise")) {
        let Some(base) = base else {
            println!(
                "{} needs small_perturbed.safetensors, which is not there",
                file.stem
            );
            continue;
        };
        let mut learner = learner(base, true);
        for step in (0..).take_while(|step| file.has(&format!("step{step}/draw/q_noise"))) {
            let mut trace = Trace::on();
            let mut draws = RecordedDraws {
                file,
                prefix: format!("step{step}/draw/"),
            };
            learner.update_with(&batch(base), &mut draws, &mut trace).unwrap();
            compare_update(&mut judge, file, &trace, &format!("step{step}/out/"));
        }
        judge.number(
            file,
            "final_alpha",
            learner.temperature(),
            f64::from(file.values("final_alpha")[0]),
            "out/alpha",
        );
        compare_final(&mut judge, file, base, &learner);
    }
    judge.finish();
}

fn compare_final(judge: &mut Judge, file: &File, base: &File, learner: &MfpoLearner) {
    let input = |name: &str| base.tensor(&format!("fwd/in/{name}"));
    let (a, s, t, h, noise) = (input("a"), input("s"), input("t"), input("h"), input("noise"));
    let actor = MeanFlow::load(learner.actor_parameters(), a.dims()[1]).unwrap();
    let divergence = MeanFlow::load(learner.divergence_parameters(), a.dims()[1]).unwrap();
    let at = FlowPoint {
        observation: &s,
        x: &a,
        t: &t,
        h: &h,
    };
    judge.compare(
        file,
        "final_fwd/out/actor_u",
        &flat(&actor.forward(at).unwrap()),
        "out/u_pred",
    );
    judge.compare(
        file,
        "final_fwd/out/logp_u",
        &flat(&divergence.forward(at).unwrap()),
        "out/u_pred",
    );
    let (action, log_prob) = sampler::sample_with_log_prob((&actor, &divergence), &s, &noise, 2).unwrap();
    judge.compare(
        file,
        "final_fwd/out/sample_T2",
        &flat(&action),
        "out/policy_actions",
    );
    judge.compare(
        file,
        "final_fwd/out/sample_logp_T2",
        &flat(&log_prob),
        "out/policy_logps",
    );
    let a = a.clamp(-1f32, 1f32).unwrap();
    let values = [
        ("critic_1_value", learner.critic_parameters()[0]),
        ("target_critic_1_value", learner.target_parameters()[0]),
    ];
    for (name, p) in values {
        let value = Critic::load(p, support(p)).unwrap().value(&s, &a).unwrap();
        judge.compare(
            file,
            &format!("final_fwd/out/{name}"),
            &flat(&value),
            "out/critic_value_1",
        );
    }
    let networks = [
        ("actor", learner.actor_parameters()),
        ("logp_mvel", learner.divergence_parameters()),
        ("critic_1", learner.critic_parameters()[0]),
        ("critic_2", learner.critic_parameters()[1]),
    ];
    for (network, parameters) in networks {
        let prefix = format!("final_l2/{network}/");
        for name in file.names().iter().filter(|n| n.starts_with(&prefix)) {
            let ours = flat(parameters.get(&name[prefix.len()..]).unwrap());
            let norm = ours.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            judge.number(
                file,
                name,
                norm,
                f64::from(file.values(name)[0]),
                "out/policy_actions",
            );
        }
    }
}

#[test]
fn golden_initial_parameters_have_the_reference_statistics() {
    let Some(stats) = golden_files::json("init_stats_halfcheetah.json") else {
        println!("init_stats_halfcheetah.json is not there; nothing compared");
        return;
    };
    let learner = MfpoLearner::new(LearnerConfig::paper(17, 6), 5, &Device::Cpu).unwrap();
    let mut compared = 0;
    for (path, want) in stats.as_object().unwrap() {
        let (network, name) = path.split_once('/').unwrap();
        let parameters = match network {
            "actor" => learner.actor_parameters(),
            "logp_mvel" => learner.divergence_parameters(),
            "critic_1" => learner.critic_parameters()[0],
            "critic_2" => learner.critic_parameters()[1],
            "target_critic_1" => learner.target_parameters()[0],
            "target_critic_2" => learner.target_parameters()[1],
            _ => continue,
        };
        let tensor = parameters
            .get(name)
            .unwrap_or_else(|_| panic!("{path} is not a parameter of ours"));
        let shape: Vec<usize> = serde_json::from_value(want["shape"].clone()).unwrap();
        assert_eq!(tensor.dims(), shape, "{path}");
        let values = flat(tensor);
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let expected = want["std"].as_f64().unwrap();
        let allowed = 5.0 * expected / (2.0 * n).sqrt() * std::f64::consts::SQRT_2 + 1e-9;
        assert!(
            (deviation - expected).abs() <= allowed,
            "{path}: std {deviation}, reference {expected}"
        );
        compared += 1;
    }
    assert!(compared > 50, "only {compared} tensors were compared");
    println!("initial statistics: {compared} tensors compared");
}
