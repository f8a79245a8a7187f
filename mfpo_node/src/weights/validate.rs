//! From a bundle to a policy that may act: the only way. `bundle::open` has checked the file (structure, digest,
//! sizes, finite weights); here the policy is checked against this robot and this node, and tried out.
//!
//! In this order, so that the first complaint is the one that helps most: a robot at all, robot, control period, spec, run, version,
//! critics, latency (which bounds what comes next), golden probes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use mfpo_policy::bundle::{self, BundleError, VerifiedBundle};
use mfpo_policy::guard::{GuardManifest, Signals};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::{ActionSampler, Depth, SampleError};
use mfpo_policy::signature::TrustedKeys;
use mfpo_policy::spec::RobotSpec;
use mfpo_policy::subject::Subject;
use serde::Serialize;

use super::refused::Refused;

/// A policy must answer within this part of its control period.
const LATENCY_SHARE: f64 = 0.5;
/// Actions sampled to measure the latency.
const LATENCY_SAMPLES: usize = 33;
/// No more are sampled after this time: a policy that is far too slow need not show it 33 times.
const LATENCY_MOST: Duration = Duration::from_secs(2);
/// The rate parameter and the policy's rate are the same when they differ by less than this part.
const SAME_RATE: f64 = 1e-3;

/// What names a policy, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyIdentity {
    /// Robot it was trained for.
    pub robot: String,
    /// Training run.
    pub run: String,
    /// Version within the run.
    pub version: u64,
    /// Digest of the bundle, hexadecimal.
    pub digest: String,
    /// Digest of the weights, read back from the memory that the policy computes with, hexadecimal.
    pub weights_digest: String,
    /// Sampling steps.
    pub steps: usize,
    /// Median time of one action when it was checked, s.
    pub latency: f64,
    /// Actions that were sampled for it then.
    pub candidates: usize,
    /// Can the best of several actions be chosen?
    pub has_critics: bool,
    /// When an observation is outside what it knows, where its bundle says so.
    pub guard: Option<GuardManifest>,
}

/// A policy that has passed every check. Only [`Expected::validate`] makes one.
pub struct Policy {
    sampler: ActionSampler,
    identity: Arc<PolicyIdentity>,
    spec: Arc<RobotSpec>,
    /// The file, where somebody wants it.
    bundle: Option<Arc<[u8]>>,
}

impl Policy {
    /// Samples an action; see [`ActionSampler::sample_at`].
    ///
    /// # Errors
    /// When a size is wrong or the action is not finite.
    pub fn act(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        depth: Depth,
        action: &mut [f32],
    ) -> Result<(), SampleError> {
        self.sampler
            .sample_at(observation, noise, depth, action)
            .map(|_value| ())
    }

    /// Samples as far as `goes_on` allows; see [`ActionSampler::sample_within`].
    ///
    /// # Errors
    /// When a size is wrong or the action is not finite.
    pub fn act_within(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        most: usize,
        action: &mut [f32],
        goes_on: &mut dyn FnMut(Depth) -> bool,
    ) -> Result<Depth, SampleError> {
        self.sampler
            .sample_within(observation, noise, most, action, goes_on)
            .map(|sampled| sampled.depth)
    }

    /// The signals that its bundle's guard has a threshold for, of the candidates that an action was chosen from, sampled to
    /// `depth` from `noise` just now; `None` where they are fewer than the guard compares, or it has none.
    ///
    /// # Errors
    /// As of [`ActionSampler::signals`]; not on the CPU.
    pub fn signals(&mut self, noise: &[f32], depth: Depth) -> Result<Option<Signals>, SampleError> {
        match self.identity.guard {
            Some(guard) => self.sampler.signals(noise, depth, &guard),
            None => Ok(None),
        }
    }

    /// Sampling steps, T.
    pub fn steps(&self) -> usize {
        self.sampler.steps()
    }

    /// The depth of this policy that is like the depth of another: the first answer, or all of its own steps, with as many
    /// candidates as its critics can compare.
    pub fn depth_like(&self, other: Depth, others_steps: usize) -> Depth {
        if other.steps < others_steps {
            return Depth::FIRST;
        }
        Depth {
            steps: self.sampler.steps(),
            candidates: if self.sampler.has_critics() {
                other.candidates
            } else {
                1
            },
            in_stages: other.in_stages,
        }
    }

    /// All steps of so many candidates.
    pub fn full_depth(&self, candidates: usize) -> Depth {
        Depth {
            steps: self.sampler.steps(),
            candidates,
            in_stages: false,
        }
    }

    /// What names it.
    pub fn identity(&self) -> &Arc<PolicyIdentity> {
        &self.identity
    }

    /// The file that it was read from, once, where [`Expected::keeps_bundles`] says so.
    pub fn take_bundle(&mut self) -> Option<Arc<[u8]>> {
        self.bundle.take()
    }

    /// The robot spec that it was made for.
    pub fn spec(&self) -> &Arc<RobotSpec> {
        &self.spec
    }
}

/// What this node expects of a bundle.
#[derive(Clone)]
pub struct Expected {
    /// Name of the robot; empty is any.
    pub robot: String,
    /// Control rate, Hz; `None` is the policy's.
    pub rate: Option<f64>,
    /// Actions sampled at each tick.
    pub candidates: usize,
    /// Are they sampled only as far as a tick's budget lasts?
    pub is_budgeted: bool,
    /// Runs that may take over from the live one; `*` is any.
    pub accept_runs: Vec<String>,
    /// May a version go live that is not above the newest of its run?
    pub allow_downgrade: bool,
    /// Whose signatures count; without any, bundles need none.
    pub trusted_keys: TrustedKeys,
    /// Where policies run.
    pub device: Device,
    /// Does a policy keep the file that it was read from?
    pub keeps_bundles: bool,
    live: Option<(Arc<RobotSpec>, Arc<PolicyIdentity>)>,
    /// What acted last before everything was given up: that one may begin again.
    given_up: Option<Arc<PolicyIdentity>>,
    /// The newest version of each run that went live since the node started.
    newest: HashMap<String, u64>,
}

impl Expected {
    /// No policy is live yet.
    pub fn new(robot: String, rate: Option<f64>, candidates: usize, accept_runs: Vec<String>) -> Self {
        Self {
            robot,
            rate,
            candidates,
            is_budgeted: false,
            accept_runs,
            allow_downgrade: false,
            trusted_keys: TrustedKeys::default(),
            device: Device::Cpu,
            keeps_bundles: false,
            live: None,
            given_up: None,
            newest: HashMap::new(),
        }
    }

    /// Opens, checks and tries out a bundle.
    ///
    /// # Errors
    /// The first check that fails, with expected and got.
    pub fn validate(&self, bytes: &[u8]) -> Result<Policy, Refused> {
        let policy = self.validate_opened(&bundle::open(bytes)?)?;
        Ok(self.with_bundle(policy, bytes))
    }

    /// [`Expected::validate`]; `None` for the policy that is live already: publishing it again is no mistake. Where the
    /// bundle was announced by its digest, it has to have that one.
    ///
    /// # Errors
    /// The first check that fails, with expected and got.
    pub fn validate_new(&self, bytes: &[u8], announced: Option<&str>) -> Result<Option<Policy>, Refused> {
        let bundle = bundle::open(bytes)?;
        if let Some(announced) = announced.filter(|announced| *announced != bundle.digest()) {
            return Err(Refused::Announced {
                announced: announced.to_owned(),
                got: bundle.digest().to_owned(),
            });
        }
        if self.is_live(bundle.digest()) {
            return Ok(None);
        }
        let policy = self.validate_opened(&bundle)?;
        Ok(Some(self.with_bundle(policy, bytes)))
    }

    fn with_bundle(&self, policy: Policy, bytes: &[u8]) -> Policy {
        Policy {
            bundle: self.keeps_bundles.then(|| Arc::from(bytes)),
            ..policy
        }
    }

    /// Is the policy that was handed over last the one of this digest?
    pub fn is_live(&self, digest: &str) -> bool {
        self.live().is_some_and(|live| live.digest == digest)
    }

    fn validate_opened(&self, bundle: &VerifiedBundle) -> Result<Policy, Refused> {
        self.trusted_keys.check(bundle.signer())?;
        let manifest = bundle.manifest();
        let spec = match &manifest.subject {
            Subject::Robot(spec) => spec,
            Subject::Task(task) => {
                return Err(Refused::NoRobot {
                    task: task.name.clone(),
                });
            }
        };
        self.check_robot(spec)?;
        if !self.begins_again(bundle.digest()) {
            self.check_lineage(&manifest.run, manifest.version)?;
        }
        let mut sampler = bundle.sampler(&self.device)?;
        if self.candidates > 1 && !sampler.has_critics() {
            return Err(Refused::NoCritics {
                candidates: self.candidates,
            });
        }
        let latency = self.measure(&mut sampler, spec, manifest.guard)?;
        bundle.check_probes(&mut sampler)?;
        Ok(Policy {
            identity: Arc::new(PolicyIdentity {
                robot: spec.robot.clone(),
                run: manifest.run.clone(),
                version: manifest.version,
                digest: bundle.digest().to_owned(),
                weights_digest: sampler.weights_digest().map_err(BundleError::from)?,
                steps: sampler.steps(),
                latency,
                candidates: self.measured_candidates(),
                has_critics: sampler.has_critics(),
                guard: manifest.guard,
            }),
            sampler,
            spec: Arc::new(spec.clone()),
            bundle: None,
        })
    }

    /// This policy has been handed to the control loop: from now on only newer ones of this robot are accepted.
    pub fn went_live(&mut self, policy: &Policy) {
        self.went_live_as(policy.spec(), policy.identity());
    }

    /// [`Expected::went_live`] for a policy that has already been handed over.
    pub fn went_live_as(&mut self, spec: &Arc<RobotSpec>, identity: &Arc<PolicyIdentity>) {
        let begins_again = self.begins_again(&identity.digest);
        let newest = self.newest.entry(identity.run.clone());
        let newest = newest.or_insert(identity.version);
        // What begins again may be one that was returned to: the newer one that was given up is still not newer.
        if !begins_again {
            *newest = identity.version;
        }
        self.live = Some((Arc::clone(spec), Arc::clone(identity)));
        self.given_up = None;
    }

    /// The policy that was handed over last.
    pub fn live(&self) -> Option<&Arc<PolicyIdentity>> {
        self.live.as_ref().map(|(_, identity)| identity)
    }

    /// An older policy acts again; versions still have to rise above the newest that has.
    pub fn rolled_back(&mut self, identity: &Arc<PolicyIdentity>) {
        if let Some((_, live)) = &mut self.live {
            *live = Arc::clone(identity);
        }
    }

    /// Everything that went live is given up: whatever robot and run come next are the first. Versions still have to rise
    /// within a run, but for the policy that acted last: the same file may be configured again.
    pub fn forget(&mut self) {
        if let Some((_, live)) = self.live.take() {
            self.given_up = Some(live);
        }
    }

    /// Is this the policy that acted last before everything was given up, and nothing after it?
    fn begins_again(&self, digest: &str) -> bool {
        self.live.is_none() && self.given_up.as_ref().is_some_and(|last| last.digest == digest)
    }

    fn check_robot(&self, spec: &RobotSpec) -> Result<(), Refused> {
        let name = match &self.live {
            Some((live, _)) => &live.robot,
            None => &self.robot,
        };
        if !name.is_empty() && *name != spec.robot {
            return Err(Refused::Robot {
                expected: name.clone(),
                got: spec.robot.clone(),
            });
        }
        let rate = 1.0 / spec.control_period();
        let expected = self
            .rate
            .or_else(|| self.live.as_ref().map(|(live, _)| 1.0 / live.control_period()));
        if let Some(expected) = expected.filter(|e| (e - rate).abs() > SAME_RATE * e) {
            return Err(Refused::ControlPeriod {
                expected,
                got: rate,
                got_ms: spec.control_period() * 1e3,
            });
        }
        match &self.live {
            Some((live, _)) if live.hash() != spec.hash() => Err(Refused::Spec {
                difference: first_difference(live, spec),
                expected: live.hash(),
                got: spec.hash(),
            }),
            _ => Ok(()),
        }
    }

    fn check_lineage(&self, run: &str, version: u64) -> Result<(), Refused> {
        let newest = self.newest.get(run).filter(|newest| version <= **newest);
        if let Some(&newest) = newest.filter(|_| !self.allow_downgrade) {
            let (run, got) = (run.to_owned(), version);
            return Err(match self.live {
                Some(_) => Refused::Version { run, newest, got },
                None => Refused::Older { run, newest, got },
            });
        }
        let Some((_, live)) = &self.live else {
            return Ok(());
        };
        let allowed = live.run == run || self.accept_runs.iter().any(|r| r == run || r == "*");
        if !allowed {
            let own = std::iter::once(&live.run);
            return Err(Refused::Run {
                live: live.run.clone(),
                allowed: own
                    .chain(&self.accept_runs)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", "),
                got: run.to_owned(),
            });
        }
        Ok(())
    }

    /// Candidates that an action must have time for.
    fn measured_candidates(&self) -> usize {
        if self.is_budgeted { 1 } else { self.candidates }
    }

    /// Median time of one action of all candidates - of one alone, where a budget decides about the others -, s; the same
    /// calls as in the loop, and the sampler is warm afterwards. What the guard asks for counts, whether it is on or not: it may
    /// be switched on at any time.
    fn measure(
        &self,
        sampler: &mut ActionSampler,
        spec: &RobotSpec,
        guard: Option<GuardManifest>,
    ) -> Result<f64, Refused> {
        let observation = vec![0.0; sampler.observation_size()];
        let candidates = self.measured_candidates();
        let mut normals = vec![0.0; candidates * sampler.action_size()];
        let mut action = vec![0.0; sampler.action_size()];
        let depth = Depth {
            steps: sampler.steps(),
            candidates,
            in_stages: false,
        };
        let mut noise = NormalNoise::new(0);
        let mut times = Vec::with_capacity(LATENCY_SAMPLES);
        let began = Instant::now();
        while times.len() < LATENCY_SAMPLES && began.elapsed() < LATENCY_MOST {
            noise.fill(&mut normals);
            let start = Instant::now();
            sampler.sample_at(&observation, &normals, depth, &mut action)?;
            if let Some(guard) = &guard {
                sampler.signals(&normals, depth, guard)?;
            }
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let got = times.get(times.len() / 2).copied().unwrap_or(f64::INFINITY);
        let expected = LATENCY_SHARE * spec.control_period();
        if got > expected {
            return Err(Refused::Latency {
                expected_us: expected * 1e6,
                got_us: got * 1e6,
            });
        }
        Ok(got)
    }
}

/// The first of two lists' entries that differ, as a bundle's manifest says them; nothing where none does.
fn differing<T: PartialEq + Serialize>(
    what: &'static str,
    a: &[T],
    b: &[T],
) -> (&'static str, String, String) {
    let said = |entry: &T| serde_json::to_string(entry).unwrap_or_default();
    let pair = a.iter().zip(b).find(|(a, b)| a != b);
    let (a, b) = pair.map_or_else(Default::default, |(a, b)| (said(a), said(b)));
    (what, a, b)
}

/// The first thing in which two specs of one robot differ, in words.
fn first_difference(expected: &RobotSpec, got: &RobotSpec) -> String {
    let names = |spec: &RobotSpec| {
        let names: Vec<&str> = spec.joints.iter().map(|j| j.name.as_str()).collect();
        names.join(", ")
    };
    let differences = [
        ("joints", names(expected), names(got)),
        (
            "observation size",
            expected.observation_size().to_string(),
            got.observation_size().to_string(),
        ),
        (
            "action size",
            expected.action_size().to_string(),
            got.action_size().to_string(),
        ),
        (
            "command unit",
            expected.action.interface.unit().to_owned(),
            got.action.interface.unit().to_owned(),
        ),
        differing("joint limits", &expected.joints, &got.joints),
        differing("observation", &expected.observation.terms, &got.observation.terms),
        differing("action", &expected.action.joints, &got.action.joints),
        (
            "control period, ns",
            expected.control_period_ns.to_string(),
            got.control_period_ns.to_string(),
        ),
    ];
    differences
        .into_iter()
        .find(|(_, expected, got)| expected != got)
        .map_or_else(
            || "the specs differ".to_owned(),
            |(what, expected, got)| format!("{what}: expected {expected}, got {got}"),
        )
}
