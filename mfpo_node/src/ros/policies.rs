//! How policies reach the control loop: from the topic, a watched folder, a file at the start or by service. Each is
//! checked on a thread of its own, one at a time, at a lower priority than the control loop's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::bundles::Arrived;
use super::control_thread::{Order, Robot};
use super::life::told;
use super::r2r;
use super::service::Service;
use r2r::ServiceRequest;
use r2r::mfpo_msgs::srv::LoadPolicy;

use crate::control_loop::ControlLoop;
use crate::joint_states::JointStates;
use crate::lifecycle::{Outcome, State};
use crate::metrics::Live;
use crate::status::Status;
use crate::time::MonoTime;
use crate::weights::folder::Found;
use crate::weights::{Offer, Policy, PolicyIdentity, file};

/// Threads that check bundles yield to the control loop by this much (nice).
const CHECK_NICE: libc::c_int = 5;
/// The watched folder is looked at this often, ns.
const LOOK_EVERY: u64 = 250_000_000;

/// Where a bundle comes from.
pub enum Origin {
    /// Topic `policy/bundle`.
    Topic,
    /// A watched folder.
    Folder(Found),
    /// Service `~/load_policy`.
    Load(ServiceRequest<LoadPolicy::Service>),
    /// Parameter `policy`, at a configuration.
    First,
}

/// The bundle itself.
enum Source {
    Offer(Offer),
    File(PathBuf),
}

impl Source {
    /// The digest that was announced, where only that and a path came.
    fn announced(&self) -> Option<&str> {
        match self {
            Self::Offer(Offer::Announced { digest, .. }) => Some(digest),
            _ => None,
        }
    }

    /// The bytes, and the digest that they were announced with.
    fn read(self) -> Result<(Vec<u8>, Option<String>), String> {
        let (path, digest) = match self {
            Self::Offer(Offer::Bytes(bytes)) => return Ok((bytes, None)),
            Self::Offer(Offer::Announced { path, digest }) => (path, Some(digest)),
            Self::File(path) => (path, None),
        };
        let bytes = file::read(&path).map_err(|error| error.to_string())?;
        Ok((bytes, digest))
    }
}

/// How the check of a bundle ended.
pub enum Checked {
    /// It may go live.
    Accepted(Box<Policy>),
    /// It is what acts.
    AlreadyLive,
    /// Why it may not.
    Refused(String),
}

impl Service {
    /// Starts with the bundle of a file.
    ///
    /// # Errors
    /// When it cannot be read or is refused.
    pub fn start_with(&mut self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let bytes = file::read(path).with_context(|| format!("reading the policy '{shown}'"))?;
        let policy = self
            .expected
            .validate(&bytes)
            .with_context(|| format!("the policy '{shown}' is refused"))?;
        self.install(Box::new(policy))
            .with_context(|| format!("the policy '{shown}' is refused"))
    }

    /// Something has arrived on the topics of bundles.
    pub fn arrived(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Bundle { run, version, offer } => {
                self.note_run(&run);
                match offer {
                    Ok(offer) => self.offered(&run, version, offer),
                    Err(reason) => self.status.reject(&reason),
                }
            }
            Arrived::GivenUp(reason) => self.status.reject(&reason),
        }
    }

    fn offered(&mut self, run: &str, version: u64, offer: Offer) {
        tracing::debug!("bundle offered: run '{run}' version {version}");
        if !self.offers.accepting() {
            tracing::info!("bundle version {version} of run '{run}' is kept until accept_bundles is true");
        }
        self.offers.offer(offer);
    }

    /// Two runs that publish on one topic are told of, whichever of them may take over.
    fn note_run(&mut self, run: &str) {
        let Some(competing) = self.runs.published(run, MonoTime::now()) else {
            return;
        };
        tracing::warn!(
            "training runs ['{}'] publish bundles at the same time; only those that parameter accept_runs names may take \
             over: stop the others, or give them a topic of their own (--ros-args -r policy/bundle:=...)",
            competing.join("', '")
        );
    }

    /// A file is to be loaded; whoever asks for it means it, so that `accept_bundles` does not matter.
    pub fn load(&mut self, request: ServiceRequest<LoadPolicy::Service>) {
        if self.is_configured() {
            self.loads.push_back(request);
            return;
        }
        let reason = format!(
            "the node is {}; expected it to be configured (ros2 lifecycle set)",
            self.life.state().label()
        );
        self.answer_load(request, Err(reason));
    }

    /// Begins the check of the policy that the parameter names, where there is none yet; `false` where there is none.
    pub fn check_first_policy(&mut self) -> bool {
        match self.config.policy.clone() {
            Some(path) if !self.has_robot => {
                self.check(Origin::First, Source::File(path));
                true
            }
            _ => false,
        }
    }

    /// Begins the check of the next bundle, where none runs.
    pub fn check_next(&mut self) {
        if self.is_checking() || !self.is_configured() {
            return;
        }
        if let Some(request) = self.loads.pop_front() {
            let path = PathBuf::from(&request.message.path);
            self.check(Origin::Load(request), Source::File(path));
        } else if self.status.swap.is_under_way() && self.life.state() == State::Active {
            // The newest bundle waits until the one before it is through; an inactive node takes no stages.
        } else if let Some(offer) = self.offers.take() {
            self.check(Origin::Topic, Source::Offer(offer));
        } else if let Some(found) = self.look_into_the_folder() {
            let path = found.path.clone();
            self.check(Origin::Folder(found), Source::File(path));
        }
    }

    /// Does a check run?
    pub fn is_checking(&self) -> bool {
        self.checking.is_some()
    }

    /// A check has ended.
    pub fn concluded(&mut self, checked: Result<Checked, tokio::task::JoinError>) {
        let Some(origin) = self.checking.take() else {
            return;
        };
        let is_wanted = self.is_configured() || matches!(origin, Origin::First);
        let result = match checked {
            Ok(Checked::Accepted(_)) if !is_wanted => Err("the node is not configured any more".to_owned()),
            Ok(Checked::Accepted(policy)) => {
                let identity = Arc::clone(policy.identity());
                self.install(policy)
                    .map(|()| Some(identity))
                    .map_err(|error| format!("{error:#}"))
            }
            Ok(Checked::AlreadyLive) => Ok(None),
            Ok(Checked::Refused(reason)) => Err(reason),
            Err(error) => Err(format!("the check itself failed: {error}")),
        };
        if let Err(reason) = &result {
            match &origin {
                Origin::Folder(found) => {
                    self.status.reject(&format!("{}: {reason}", found.path.display()));
                }
                _ => self.status.reject(reason),
            }
        }
        self.answer_origin(origin, result);
    }

    fn answer_origin(&mut self, origin: Origin, result: Result<Option<Arc<PolicyIdentity>>, String>) {
        match (origin, result) {
            (Origin::Load(request), result) => self.answer_load(request, result),
            (Origin::First, Ok(_)) => self.conclude(Outcome::Success, "configured"),
            (Origin::First, Err(reason)) => self.conclude(Outcome::Failure, &reason),
            (Origin::Folder(found), Ok(_)) => {
                if let Some(folder) = &mut self.folder {
                    folder.went_live(&found);
                }
            }
            (Origin::Folder(_) | Origin::Topic, _) => {}
        }
    }

    fn answer_load(
        &self,
        request: ServiceRequest<LoadPolicy::Service>,
        result: Result<Option<Arc<PolicyIdentity>>, String>,
    ) {
        let identity = match &result {
            Ok(Some(identity)) => Some(identity),
            Ok(None) => self.status.current.as_ref(),
            Err(_) => None,
        };
        let reason = match &result {
            Ok(Some(_)) => "accepted".to_owned(),
            Ok(None) => "it is the policy that acts already".to_owned(),
            Err(reason) => reason.clone(),
        };
        told(request.respond(LoadPolicy::Response {
            accepted: result.is_ok(),
            reason,
            run: identity.map(|i| i.run.clone()).unwrap_or_default(),
            version: identity.map(|i| i.version).unwrap_or_default(),
        }));
    }

    /// Starts a check on another thread.
    fn check(&mut self, origin: Origin, source: Source) {
        let expected = self.expected.clone();
        self.checking = Some(origin);
        self.check = Some(tokio::task::spawn_blocking(move || {
            yield_to_control();
            if source.announced().is_some_and(|digest| expected.is_live(digest)) {
                return Checked::AlreadyLive;
            }
            let (bytes, announced) = match source.read() {
                Ok(read) => read,
                Err(reason) => return Checked::Refused(reason),
            };
            match expected.validate_new(&bytes, announced.as_deref()) {
                Ok(Some(policy)) => Checked::Accepted(Box::new(policy)),
                Ok(None) => Checked::AlreadyLive,
                Err(refused) => Checked::Refused(refused.to_string()),
            }
        }));
    }

    fn look_into_the_folder(&mut self) -> Option<Found> {
        let folder = self.folder.as_mut()?;
        let now = MonoTime::now();
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_EVERY);
        if !is_due || !self.offers.accepting() {
            return None;
        }
        self.looked_at = Some(now);
        match folder.newest() {
            Ok(found) => {
                self.folder_is_lost = false;
                found
            }
            Err(error) => {
                if !std::mem::replace(&mut self.folder_is_lost, true) {
                    let shown = folder.path().display();
                    tracing::warn!("policy_folder '{shown}' cannot be read: {error}");
                }
                None
            }
        }
    }

    /// Hands a checked policy to the control loop.
    fn install(&mut self, mut policy: Box<Policy>) -> anyhow::Result<()> {
        let settings = self.config.settings.clone();
        if settings.candidates > 1 && !policy.identity().has_critics {
            anyhow::bail!(
                "the bundle carries no critics; expected some, because parameter candidates is {}",
                settings.candidates
            );
        }
        self.free_retired();
        if self.orders.is_full() {
            anyhow::bail!("the control loop has not taken over the last policies yet");
        }
        self.record_policy(&mut policy);
        self.tell_unguarded(policy.identity().guard);
        let order = if self.has_robot {
            self.expected.went_live(&policy);
            self.status.swap.begin();
            Order::Swap(policy)
        } else {
            let spec = Arc::clone(policy.spec());
            let identity = Arc::clone(policy.identity());
            let live = Arc::new(Live::with_commanded(spec.joints.len(), spec.action_size()));
            self.spec = Some(Arc::clone(&spec));
            self.reconsider_description();
            let control = self.described.limited(&spec).map_err(anyhow::Error::msg);
            let control = control
                .and_then(|limited| Ok(ControlLoop::new(&limited, policy, settings.clone())?))
                .inspect_err(|_| self.spec = None)?;
            self.expected.went_live_as(&spec, &identity);
            self.status.joint_names = spec.joints.iter().map(|j| j.name.clone()).collect();
            self.status.command_joints = spec.action.joints.iter().map(|a| a.joint.clone()).collect();
            self.live = Arc::clone(&live);
            self.has_robot = true;
            Order::Start {
                robot: Box::new(Robot {
                    control,
                    states: JointStates::new(&spec, settings.stale_after)
                        .in_simulated_time(self.config.use_sim_time),
                    live,
                    period: spec.control_period_ns,
                    tap: self
                        .outputs
                        .recording
                        .as_ref()
                        .map(|recording| recording.robot(&spec)),
                }),
                autostart: self.wants_to_start(),
            }
        };
        // It is not full, and nobody else pushes.
        let _ = self.orders.push(order);
        Ok(())
    }

    /// Gives up the robot and its policies.
    pub fn forget(&mut self) -> Outcome {
        if self.has_robot && self.order(Order::Forget).is_err() {
            return Outcome::Failure;
        }
        self.has_robot = false;
        self.spec = None;
        self.described.forget_robot();
        self.live = Arc::new(Live::new(0));
        self.expected.forget();
        Status::forget(&mut self.status);
        Outcome::Success
    }
}

/// Lowers the priority of this thread: what is done with a bundle must not take time from the control loop.
pub(super) fn yield_to_control() {
    // SAFETY: setpriority takes numbers; on Linux, with who = 0, it concerns the calling thread only. A failure leaves
    // the priority as it is.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, CHECK_NICE) };
}
