//! Forward passes, JVPs, samplers, best of N, projection, velocity estimators, Adam and initial parameters.

use std::collections::BTreeSet;

use candle_core::{Tensor, Var};
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::fast::{FastCritic, FastSampler, Rows, Scratch};
use mfpo_policy::kernel::Precision;
use mfpo_policy::mean_flow::{FlowPoint, MeanFlow};
use mfpo_policy::sampler;
use mfpo_train::learner::*;

use crate::files::{self, File, Judge};
use crate::reference::{device, engines, flat, learner, network, support, update_files};

#[test]
fn golden_forward_passes_and_jvps() {
    let mut judge = Judge::new("forward passes and JVPs");
    for file in update_files().iter().filter(|f| f.holds("fwd/")) {
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
            for net in [net.clone(), net.composed()] {
                let u = flat(&net.forward(at).unwrap());
                judge.compare(file, &format!("fwd/out/{name}_u"), &u, "out/u_pred");
                let (value, jvp) = net.jvp(at, (&tangents.0, &tangents.1, &tangents.2)).unwrap();
                judge.compare(file, &format!("fwd/out/{name}_u"), &flat(&value), "out/u_pred");
                judge.compare(file, &format!("fwd/out/{name}_jvp"), &flat(&jvp), "out/du_dt");
            }
        }
        // The critics were evaluated at actions, that is at points clipped to [-1, 1].
        let a = a.clamp(-1f32, 1f32).unwrap();
        for name in ["critic_1", "critic_2", "target_critic_1", "target_critic_2"] {
            let p = network(file, "param/", name);
            let critic = Critic::load(&p, support(&p)).unwrap();
            for critic in [critic.clone(), critic.clone().composed()] {
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
            }
            let fast = FastCritic::new(&critic, s.dims()[1], Precision::Exact).unwrap();
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
    for file in update_files().iter().filter(|f| f.holds("fwd/")) {
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
            let direction = Tensor::from_vec(direction, (rows, size), &device()).unwrap();
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
    for file in update_files().iter().filter(|f| f.holds("fwd/")) {
        let (s, noise) = (file.tensor("fwd/in/s"), file.tensor("fwd/in/noise"));
        let a = noise.dims()[1];
        let actor = MeanFlow::load(&network(file, "param/", "actor"), a).unwrap();
        let divergence = MeanFlow::load(&network(file, "param/", "logp_mvel"), a).unwrap();
        let kinds = ["sample_T", "sample_noclip_T", "sample_logp_T", "sample_logp_a_T"];
        let steps: BTreeSet<usize> = kinds
            .iter()
            .flat_map(|kind| file.numbers_after(&format!("fwd/out/{kind}")))
            .collect();
        if steps.is_empty() {
            judge.require(file, "fwd/out/sample_T2");
        }
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
    let cases = files.iter().filter(|f| f.holds("eval/")).map(|f| (f, f, true));
    let nocdq = File::all();
    let pairs = nocdq
        .iter()
        .filter(|f| f.holds("eval/") && f.stem.ends_with("_nocdq"));
    let base = |file: &File| {
        files
            .iter()
            .find(|f| Some(f.stem.as_str()) == file.stem.strip_suffix("_nocdq"))
    };
    let pairs = pairs.filter_map(|f| Some((base(f)?, f, false)));
    for (inputs, expected, clipped) in cases.chain(pairs) {
        let engine = Engine::of(&device());
        let mut sampler = learner(inputs, clipped, engine).action_sampler().unwrap();
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
        let cases: BTreeSet<String> = file
            .names()
            .iter()
            .filter_map(|name| name.split_once('/'))
            .filter(|(_, part)| ["tz", "probs", "range", "out"].contains(part))
            .map(|(case, _)| case.to_owned())
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
    for file in File::all().iter().filter(|f| f.holds("in/")) {
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
    for file in File::all().iter().filter(|f| !f.numbers_after("grad").is_empty()) {
        let of_engine = |engine| {
            let var = Var::from_tensor(&file.tensor("param0")).unwrap();
            (var.clone(), Adam::with_engine(vec![var], 3e-4, engine).unwrap())
        };
        let mut adams: Vec<_> = engines().into_iter().map(of_engine).collect();
        let mut scalar = (ScalarAdam::default(), file.values("param0")[0]);
        let last = file.numbers_after("grad").into_iter().max().unwrap_or(0);
        for step in 0..=last {
            let gradient = file.tensor(&format!("grad{step}"));
            let expected = format!("param{}", step + 1);
            for (var, adam) in &mut adams {
                adam.step(std::slice::from_ref(&gradient)).unwrap();
                judge.compare(file, &expected, &flat(var), "after/actor");
            }
            scalar.0.step(&mut scalar.1, flat(&gradient)[0], 3e-4);
            let want = f64::from(file.values(&expected)[0]);
            judge.number(file, &expected, f64::from(scalar.1), want, "after/actor");
        }
    }
    judge.finish();
}

#[test]
fn golden_initial_parameters_have_the_reference_statistics() {
    let Some(stats) = files::json("init_stats_halfcheetah.json") else {
        println!("init_stats_halfcheetah.json is not there; nothing compared");
        return;
    };
    let learner = MfpoLearner::new(LearnerConfig::paper(17, 6), 5, &device()).unwrap();
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
