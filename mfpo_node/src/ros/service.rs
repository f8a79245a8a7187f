//! Everything that has time: parameters, bundles and their checks, the status, the log. One task on one thread;
//! checks run on another thread at a lower priority than the control loop's.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use mfpo_policy::device::DeviceName;
use mfpo_ros::Inbox;
use tokio::time::MissedTickBehavior;

use super::control_thread::{Order, Robot};
use super::messages::{Stamps, status_message};
use super::r2r;
use r2r::mfpo_msgs::msg::{PolicyBundle, PolicyStatus};

use crate::config::{ACCEPT_BUNDLES, Config};
use crate::control_loop::{ControlLoop, Settings};
use crate::joint_states::JointStates;
use crate::metrics::{Live, TickRecord};
use crate::status::{LoopEvent, Status};
use crate::time::MonoTime;
use crate::weights::{Expected, Offers, Policy};

/// How often the rings are emptied and changes are looked for.
const LOOK: Duration = Duration::from_millis(20);
/// The status is published at least this often, ns.
const STATUS_EVERY: u64 = 250_000_000;
/// Threads that check bundles yield to the control loop by this much (nice).
const CHECK_NICE: libc::c_int = 5;

/// The service's ends of the rings.
pub struct FromLoop {
    /// Policies to free.
    pub retired: rtrb::Consumer<Box<Policy>>,
    /// Events.
    pub events: rtrb::Consumer<LoopEvent>,
    /// What ticks took.
    pub records: rtrb::Consumer<TickRecord>,
}

/// What the service waits for.
pub struct Inputs<C> {
    /// Topic `policy/bundle`.
    pub bundles: Inbox<PolicyBundle>,
    /// Parameters that were set.
    pub changes: Pin<Box<C>>,
}

/// How the check of a bundle ended.
enum Checked {
    Accepted(Box<Policy>),
    AlreadyLive,
    Refused(String),
}

/// Serves everything but the control loop.
pub struct Service {
    expected: Expected,
    settings: Settings,
    offers: Offers,
    orders: rtrb::Producer<Order>,
    from_loop: FromLoop,
    live: Arc<Live>,
    has_robot: bool,
    status: Status,
    publisher: r2r::Publisher<PolicyStatus>,
    stamps: Stamps,
    last_published: Option<(MonoTime, Shown)>,
}

/// What is worth a status at once.
#[derive(Debug, Clone, PartialEq)]
struct Shown(String, u64, u64, String);

impl Service {
    /// Reads what the parameters say; nothing runs yet.
    ///
    /// # Errors
    /// When the device cannot be had.
    pub fn new(
        config: &Config,
        orders: rtrb::Producer<Order>,
        from_loop: FromLoop,
        (publisher, stamps): (r2r::Publisher<PolicyStatus>, Stamps),
    ) -> anyhow::Result<Self> {
        let mut expected = Expected::new(
            config.robot.clone(),
            config.rate,
            config.candidates,
            config.accept_runs.clone(),
        );
        expected.device = config.device.parse::<DeviceName>()?.open()?;
        Ok(Self {
            expected,
            settings: Settings {
                candidates: config.candidates,
                seed: config.seed,
                stale_after: config.stale_after,
                fallback: config.fallback,
                damping: config.damping,
            },
            offers: Offers::new(config.accept_bundles),
            orders,
            from_loop,
            live: Arc::new(Live::new(0)),
            has_robot: false,
            status: Status::default(),
            publisher,
            stamps,
            last_published: None,
        })
    }

    /// Starts with the bundle of a file.
    ///
    /// # Errors
    /// When it cannot be read or is refused.
    pub fn start_with(&mut self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        let bytes = std::fs::read(path).with_context(|| format!("reading the policy '{shown}'"))?;
        let policy = self
            .expected
            .validate(&bytes)
            .with_context(|| format!("the policy '{shown}' is refused"))?;
        self.install(Box::new(policy))
            .with_context(|| format!("the policy '{shown}' is refused"))
    }

    /// Serves until the control thread has ended.
    pub async fn serve<C>(&mut self, inputs: Inputs<C>, control: &JoinHandle<()>)
    where
        C: futures::Stream<Item = (String, r2r::ParameterValue)>,
    {
        let Inputs {
            mut bundles,
            mut changes,
        } = inputs;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check: Option<tokio::task::JoinHandle<Checked>> = None;
        if !self.has_robot {
            tracing::info!("waiting for a policy on topic policy/bundle; commanding nothing");
        }
        loop {
            tokio::select! {
                Some(bundle) = bundles.next() => self.offered(bundle),
                Some((name, value)) = next(&mut changes) => self.parameter_set(&name, &value),
                checked = finished(&mut check) => self.concluded(checked),
                _ = look.tick() => {
                    self.look();
                    if control.is_finished() {
                        break;
                    }
                }
            }
            if check.is_none() {
                check = self.offers.take().map(|bytes| self.check(bytes));
            }
            self.status.is_frozen_with_pending = !self.offers.accepting() && self.offers.is_pending();
        }
        self.look();
        self.publish(MonoTime::now());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn offered(&mut self, bundle: PolicyBundle) {
        tracing::debug!("bundle offered: run '{}' version {}", bundle.run, bundle.version);
        if !self.offers.accepting() {
            tracing::info!(
                "bundle version {} of run '{}' is kept until accept_bundles is true",
                bundle.version,
                bundle.run
            );
        }
        self.offers.offer(bundle.data);
    }

    fn parameter_set(&mut self, name: &str, value: &r2r::ParameterValue) {
        tracing::info!("parameter {name} is now {value:?}");
        if let (ACCEPT_BUNDLES, r2r::ParameterValue::Bool(accept)) = (name, value) {
            self.offers.set_accepting(*accept);
        }
    }

    /// Starts the check of a bundle on another thread.
    fn check(&self, bytes: Vec<u8>) -> tokio::task::JoinHandle<Checked> {
        let expected = self.expected.clone();
        tokio::task::spawn_blocking(move || {
            yield_to_control();
            match expected.validate_new(&bytes) {
                Ok(Some(policy)) => Checked::Accepted(Box::new(policy)),
                Ok(None) => Checked::AlreadyLive,
                Err(refused) => Checked::Refused(refused.to_string()),
            }
        })
    }

    fn concluded(&mut self, checked: Result<Checked, tokio::task::JoinError>) {
        match checked {
            Ok(Checked::Accepted(policy)) => {
                if let Err(error) = self.install(policy) {
                    self.status.reject(&format!("{error:#}"));
                }
            }
            Ok(Checked::AlreadyLive) => tracing::debug!("the offered bundle is live already"),
            Ok(Checked::Refused(reason)) => self.status.reject(&reason),
            Err(error) => self.status.reject(&format!("the check itself failed: {error}")),
        }
    }

    /// Hands a checked policy to the control loop.
    fn install(&mut self, policy: Box<Policy>) -> anyhow::Result<()> {
        self.free_retired();
        if self.orders.is_full() {
            anyhow::bail!("the control loop has not taken over the last policies yet");
        }
        let order = if self.has_robot {
            self.expected.went_live(&policy);
            Order::Swap(policy)
        } else {
            let spec = Arc::clone(policy.spec());
            let identity = Arc::clone(policy.identity());
            let live = Arc::new(Live::new(spec.joints.len()));
            let control = ControlLoop::new(&spec, policy, self.settings)?;
            self.expected.went_live_as(&spec, &identity);
            self.status.joint_names = spec.joints.iter().map(|j| j.name.clone()).collect();
            self.live = Arc::clone(&live);
            self.has_robot = true;
            Order::Start(Box::new(Robot {
                control,
                states: JointStates::new(&spec, self.settings.stale_after),
                live,
                period: spec.control_period_ns,
            }))
        };
        // It is not full, and nobody else pushes.
        let _ = self.orders.push(order);
        Ok(())
    }

    /// Empties the rings; publishes the status on a change, and from time to time.
    fn look(&mut self) {
        self.free_retired();
        while let Ok(event) = self.from_loop.events.pop() {
            self.status.absorb(event);
        }
        while let Ok(record) = self.from_loop.records.pop() {
            self.status.record(record);
        }
        let now = MonoTime::now();
        let shown = self.shown(now);
        let is_due = match &self.last_published {
            None => true,
            Some((at, last)) => *last != shown || now.since(*at) >= STATUS_EVERY,
        };
        if is_due {
            self.publish(now);
        }
    }

    fn shown(&self, now: MonoTime) -> Shown {
        let current = self.status.current.as_deref();
        Shown(
            self.status.message(&self.live, now),
            current.map(|p| p.version).unwrap_or_default(),
            self.status.rejections,
            current.map(|p| p.run.clone()).unwrap_or_default(),
        )
    }

    fn publish(&mut self, now: MonoTime) {
        let mut message = status_message(&self.status, &self.live, now);
        message.stamp = self.stamps.now();
        if let Err(error) = self.publisher.publish(&message) {
            tracing::warn!("policy/status could not be published: {error}");
        }
        self.last_published = Some((now, self.shown(now)));
    }

    fn free_retired(&mut self) {
        while let Ok(policy) = self.from_loop.retired.pop() {
            drop(policy);
        }
    }
}

/// The next item of a stream; never, once it has ended.
async fn next<S: futures::Stream>(stream: &mut Pin<Box<S>>) -> Option<S::Item> {
    std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
}

/// The end of the check that runs, if one does; never, otherwise.
async fn finished(
    check: &mut Option<tokio::task::JoinHandle<Checked>>,
) -> Result<Checked, tokio::task::JoinError> {
    match check {
        None => std::future::pending().await,
        Some(running) => {
            let checked = running.await;
            *check = None;
            checked
        }
    }
}

/// Lowers the priority of this thread: checking a bundle must not take time from the control loop.
fn yield_to_control() {
    // SAFETY: setpriority takes numbers; on Linux, with who = 0, it concerns the calling thread only. A failure leaves
    // the priority as it is.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, CHECK_NICE) };
}
