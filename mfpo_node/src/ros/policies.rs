//! How policies reach the control loop: from the topic, a watched folder, a file at the start or by service. Each is
//! checked on a thread of its own, one at a time, at a lower priority than the control loop's.

use std::borrow::Cow;
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

use crate::causes;
use crate::control_loop::ControlLoop;
use crate::joint_states::JointStates;
use crate::lifecycle::{Outcome, State};
use crate::metrics::{Live, LoopState};
use crate::status::Status;
use crate::time::MonoTime;
use crate::weights::folder::Found;
use crate::weights::{Expected, Offer, Policy, PolicyIdentity, file};

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
pub enum Source {
    /// Of the topic.
    Offer(Offer),
    /// A file.
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

    /// The bytes.
    fn read(&self) -> Result<Cow<'_, [u8]>, String> {
        let path = match self {
            Self::Offer(Offer::Bytes(bytes)) => return Ok(Cow::Borrowed(bytes)),
            Self::Offer(Offer::Announced { path, .. }) | Self::File(path) => path,
        };
        file::read(path)
            .map(Cow::Owned)
            .map_err(|error| error.to_string())
    }

    /// Opens, checks and tries out the bundle.
    fn check(self, expected: &Expected) -> Checked {
        let refused = |reason| Checked::Refused {
            reason,
            curable: None,
        };
        let announced = self.announced();
        if announced.is_some_and(|digest| expected.is_live(digest)) {
            return Checked::AlreadyLive;
        }
        let bytes = match self.read() {
            Ok(bytes) => bytes,
            Err(reason) => return refused(reason),
        };
        let validated = expected.validate_new(&bytes, announced);
        drop(bytes);
        match validated {
            Ok(Some(policy)) => Checked::Accepted(Box::new(policy)),
            Ok(None) => Checked::AlreadyLive,
            Err(error) => Checked::Refused {
                reason: error.to_string(),
                curable: error.is_curable().then_some(self),
            },
        }
    }
}

/// How the check of a bundle ended.
pub enum Checked {
    /// It may go live.
    Accepted(Box<Policy>),
    /// It is what acts.
    AlreadyLive,
    /// It may not.
    Refused {
        /// Why.
        reason: String,
        /// The bundle, where a parameter may permit it after all.
        curable: Option<Source>,
    },
}

impl Service {
    /// Starts with the bundle of a file.
    ///
    /// # Errors
    /// When it cannot be read or is refused.
    pub fn start_with(&mut self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let bytes = file::read(path).context("parameter policy")?;
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
        } else if self.waits_for_a_swap() {
            // The newest bundle waits until the one before it is through.
        } else if let Some(offer) = self.offers.take() {
            self.check(Origin::Topic, Source::Offer(offer));
        } else if let Some(found) = self.look_into_the_folder() {
            let path = found.path.clone();
            self.check(Origin::Folder(found), Source::File(path));
        }
    }

    /// Does a swap get on that the newest bundle has to wait for? An inactive node takes no stages, and while the fallback
    /// commands they may never end: the newest bundle may then be what helps, and takes the place of the one before it.
    fn waits_for_a_swap(&self) -> bool {
        let gets_on = self.life.state() == State::Active && self.live.state() != LoopState::Fallback;
        self.status.swap.is_under_way() && gets_on
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
                    .map_err(|error| causes::in_words(&error))
            }
            Ok(Checked::AlreadyLive) => Ok(None),
            Ok(Checked::Refused { reason, curable }) => {
                self.keep_refused(&origin, curable);
                Err(reason)
            }
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

    /// One offer, and the files of the folder, are looked at again where a parameter that refused them changes.
    fn keep_refused(&mut self, origin: &Origin, curable: Option<Source>) {
        match (origin, curable) {
            (Origin::Topic, Some(Source::Offer(offer))) => self.offers.keep_refused(offer),
            (Origin::Folder(found), Some(_)) => {
                if let Some(folder) = &mut self.folder {
                    folder.keep_refused(found);
                }
            }
            _ => {}
        }
        if self.is_outdated {
            self.look_again();
        }
    }

    /// Parameters have changed that decide about bundles: what they refused is looked at again, and so is what is being
    /// checked by what they said before.
    pub fn look_again(&mut self) {
        self.is_outdated = self.is_checking();
        self.offers.look_again();
        if let Some(folder) = &mut self.folder {
            folder.look_again();
        }
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
        self.is_outdated = false;
        self.check = Some(tokio::task::spawn_blocking(move || {
            yield_to_control();
            source.check(&expected)
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
                found.inspect(tell_ahead)
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
                .inspect_err(|_| self.spec = None)?
                .in_simulated_time(self.outputs.stamps.simulated().cloned());
            self.expected.went_live_as(&spec, &identity);
            self.status.joint_names = spec.joints.iter().map(|j| j.name.clone()).collect();
            self.status.command_joints = spec.action.joints.iter().map(|a| a.joint.clone()).collect();
            self.live = Arc::clone(&live);
            self.has_robot = true;
            self.tell_doubts();
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
        self.offers.forget_refused();
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
        self.offers.forget_refused();
        Status::forget(&mut self.status);
        Outcome::Success
    }
}

/// Says that a file's own time is wrong; each is found once.
fn tell_ahead(found: &Found) {
    if let Some(ahead) = found.ahead() {
        tracing::warn!(
            "'{}' in policy_folder says that it was written {:.0} s after it came here; it counts as written when it came: \
             set the clock of the machine that wrote it",
            found.path.display(),
            ahead.as_secs_f64()
        );
    }
}

/// Lowers the priority of this thread: what is done with a bundle must not take time from the control loop.
pub(super) fn yield_to_control() {
    // SAFETY: setpriority takes numbers; on Linux, with who = 0, it concerns the calling thread only. A failure leaves
    // the priority as it is.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, CHECK_NICE) };
}
