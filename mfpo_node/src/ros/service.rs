//! Everything that has time: parameters, operators, bundles and their checks, status, diagnostics, the log. One task on
//! one thread; what concerns the robot goes to the control loop as an order through a ring. The life cycle is in
//! `life`, the way of a policy in `policies`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::StreamExt as _;
use mfpo_policy::device::DeviceName;
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::spec::RobotSpec;
use mfpo_ros::Inbox;
use mfpo_ros::parameter_server::{ParameterServer, Request};
use mfpo_ros::parameters::{Parameters, shown};
use mfpo_ros::rosout::Rosout;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::bundles::Arrived;
use super::control_thread::{Order, Retired};
use super::description::Described;
use super::life::Pending;
use super::messages::{Receivers, Stamps, diagnostics_message, status_message};
use super::policies::{Checked, Origin};
use super::probing::Probing;
use super::r2r;
use super::recorded::Saving;
use super::requests::Operators;
use super::subscribers::{Known, Subscribers};
use r2r::ServiceRequest;
use r2r::diagnostic_msgs::msg::DiagnosticArray;
use r2r::lifecycle_msgs::msg::TransitionEvent;
use r2r::mfpo_msgs::msg::PolicyStatus;
use r2r::mfpo_msgs::srv::LoadPolicy;
use r2r::std_msgs::msg::String as StringMessage;
use r2r::std_srvs::srv::Trigger;

use crate::config::{Config, trusted_keys};
use crate::control_loop::Tuning;
use crate::diagnostics::{Sources, diagnose};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Live, LoopState, TickRecord};
use crate::pulse::{Pulse, Standstill};
use crate::recording::Recording;
use crate::status::{LoopEvent, Others, Status};
use crate::time::MonoTime;
use crate::weights::folder::Folder;
use crate::weights::runs::Runs;
use crate::weights::{Expected, Offers, PolicyIdentity};

/// How often the rings are emptied and changes are looked for.
const LOOK: Duration = Duration::from_millis(20);
/// The status is published at least this often, ns.
const STATUS_EVERY: u64 = 250_000_000;
/// The diagnostics are published this often, ns.
const DIAGNOSE_EVERY: u64 = 1_000_000_000;

/// The service's ends of the rings.
pub struct FromLoop {
    /// What is to be freed.
    pub retired: rtrb::Consumer<Retired>,
    /// Events.
    pub events: rtrb::Consumer<LoopEvent>,
    /// What ticks took.
    pub records: rtrb::Consumer<TickRecord>,
    /// That the loop comes round.
    pub pulse: Arc<Pulse>,
}

/// What the service waits for.
pub struct Inputs {
    /// Topics `policy/bundle` and `policy/bundle_chunk`.
    pub bundles: mpsc::Receiver<Arrived>,
    /// Requests about parameters.
    pub parameters: ParameterServer,
    /// What operators ask for.
    pub operators: Operators,
    /// Topic `robot_description`, where it is listened to.
    pub descriptions: Option<Inbox<StringMessage>>,
    /// Publishers that are not heard, or that command the robot too.
    pub others: watch::Receiver<Others>,
}

/// What the service publishes.
pub struct Outputs {
    /// Topic `policy/status`.
    pub status: r2r::Publisher<PolicyStatus>,
    /// Topic `/diagnostics`.
    pub diagnostics: r2r::Publisher<DiagnosticArray>,
    /// Topic `~/transition_event`.
    pub transitions: r2r::Publisher<TransitionEvent>,
    /// The log.
    pub rosout: Rosout,
    /// Stamps of messages.
    pub stamps: Stamps,
    /// The node's name, as diagnostics carry it.
    pub node: String,
    /// The recorder, where something is recorded.
    pub recording: Option<Recording>,
    /// Who receives the commands.
    pub receivers: Receivers,
    /// Who subscribes to what the node publishes and does not receive it.
    pub subscribers: Subscribers,
}

/// Serves everything but the control loop.
pub struct Service {
    pub(super) config: Config,
    parameters: Parameters,
    pub(super) life: Lifecycle,
    pub(super) autostart: bool,
    /// Somebody has stopped the robot, and nobody has started it again.
    pub(super) is_held: bool,
    pub(super) pending: Option<Pending>,
    /// Who waits for the confirmation of a stop, and since when.
    pub(super) stops: Vec<(MonoTime, ServiceRequest<Trigger::Service>)>,
    pub(super) saves: Vec<Saving>,
    pub(super) expected: Expected,
    pub(super) offers: Offers,
    pub(super) runs: Runs,
    pub(super) loads: VecDeque<ServiceRequest<LoadPolicy::Service>>,
    pub(super) folder: Option<Folder>,
    pub(super) looked_at: Option<MonoTime>,
    pub(super) folder_is_lost: bool,
    /// Where the bundle comes from that is being checked, and the check.
    pub(super) checking: Option<Origin>,
    pub(super) check: Option<tokio::task::JoinHandle<Checked>>,
    /// What decides about bundles has changed since that check began.
    pub(super) is_outdated: bool,
    pub(super) orders: rtrb::Producer<Order>,
    from_loop: FromLoop,
    pub(super) pulse: Arc<Pulse>,
    pub(super) standstill: Standstill,
    pub(super) live: Arc<Live>,
    pub(super) has_robot: bool,
    pub(super) spec: Option<Arc<RobotSpec>>,
    pub(super) status: Status,
    pub(super) outputs: Outputs,
    last_published: Option<(MonoTime, Shown)>,
    last_diagnosed: Option<MonoTime>,
    pub(super) described: Described,
    pub(super) probing: Option<Probing>,
    /// The loop has not been told of the newest settings yet.
    pub(super) is_retuned: bool,
    /// Why the guard does not guard, as it was told last.
    unguarded: Option<String>,
    /// What parameters do that hardly anybody means, as it was told last.
    doubts: Vec<String>,
}

/// What is worth a status at once.
#[derive(Debug, Clone, PartialEq)]
struct Shown(String, u64, u64, String, u8);

impl Service {
    /// Reads what the parameters say; nothing runs yet.
    ///
    /// # Errors
    /// When the device cannot be had, or a trusted key cannot be read.
    pub fn new(
        config: Config,
        parameters: Parameters,
        (orders, from_loop): (rtrb::Producer<Order>, FromLoop),
        outputs: Outputs,
    ) -> anyhow::Result<Self> {
        let mut expected = Expected::new(
            config.robot.clone(),
            config.rate,
            config.settings.candidates,
            config.accept_runs.clone(),
        );
        expected.is_budgeted = config.settings.compute_budget > 0;
        expected.trusted_keys = trusted_keys(&parameters)?;
        expected.allow_downgrade = config.allow_downgrade;
        expected.device = config.device.parse::<DeviceName>()?.open()?;
        expected.keeps_bundles = outputs.recording.is_some();
        Ok(Self {
            autostart: config.autostart,
            offers: Offers::new(config.accept_bundles),
            runs: Runs::default(),
            folder: config.policy_folder.clone().map(Folder::new),
            parameters,
            life: Lifecycle::new(),
            is_held: false,
            pending: None,
            stops: Vec::new(),
            saves: Vec::new(),
            expected,
            loads: VecDeque::new(),
            looked_at: None,
            folder_is_lost: false,
            checking: None,
            check: None,
            is_outdated: false,
            orders,
            pulse: Arc::clone(&from_loop.pulse),
            standstill: Standstill::default(),
            from_loop,
            live: Arc::new(Live::new(0)),
            has_robot: false,
            spec: None,
            status: Status::new(config.dry_run),
            outputs,
            last_published: None,
            last_diagnosed: None,
            described: Described::default(),
            probing: None,
            is_retuned: false,
            unguarded: None,
            doubts: Vec::new(),
            config,
        })
    }

    /// Configures a node that starts by itself, with the policy that the parameter names.
    ///
    /// # Errors
    /// When that cannot be read or is refused.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        if self.config.dry_run {
            tracing::warn!("this is a dry run: no command is published");
        }
        if !self.autostart {
            tracing::info!("autostart is off: waiting to be configured and activated");
            return Ok(());
        }
        self.configure_at_start();
        match self.config.policy.clone() {
            Some(path) => self.start_with(&path),
            None => {
                tracing::info!("waiting for a policy on topic policy/bundle; commanding nothing");
                Ok(())
            }
        }
    }

    /// Serves until the control thread has ended, has sent its last command, or cannot end.
    pub async fn serve(&mut self, inputs: Inputs, control: &JoinHandle<()>) {
        let Inputs {
            mut bundles,
            mut parameters,
            mut operators,
            mut descriptions,
            mut others,
        } = inputs;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        parameters.announce_all(&self.parameters, self.outputs.stamps.now());
        loop {
            let is_busy = self.is_busy();
            tokio::select! {
                Some(description) = next(&mut descriptions) => self.describe(&description.data),
                Ok(()) = others.changed() => self.status.note_others(others.borrow_and_update().clone()),
                Some(arrived) = bundles.recv() => self.arrived(arrived),
                Some(request) = parameters.next() => self.parameters_asked(&parameters, request),
                Some(query) = operators.queries.next() => self.answer(query),
                Some(command) = operators.commands.next(), if !is_busy => self.obey(command),
                checked = finished(&mut self.check) => self.concluded(checked),
                _ = look.tick() => {
                    self.look();
                    if control.is_finished() || self.pulse.has_finished() || self.is_stuck_at_its_end() {
                        break;
                    }
                }
            }
            self.check_next();
            self.status.is_frozen_with_pending = !self.offers.accepting() && self.offers.is_pending();
        }
        self.look();
        self.publish(MonoTime::now());
        self.forward_log();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Sends an order to the control loop, which looks at least 100 times a second.
    ///
    /// # Errors
    /// When too many wait there already.
    pub fn order(&mut self, order: Order) -> Result<(), &'static str> {
        let sent = self.orders.push(order);
        // The loop carries out no order without room for what it retires.
        self.free_retired();
        sent.map_err(|_| "the control loop has not carried out the last orders yet")
    }

    /// Frees what the control loop no longer needs.
    pub fn free_retired(&mut self) {
        while let Ok(retired) = self.from_loop.retired.pop() {
            match retired {
                Retired::Policy(policy) => drop(policy),
                Retired::Robot(robot) => drop(robot),
                Retired::Tuning(tuning) => drop(tuning),
                Retired::Probe { probe, end } => self.probed(&probe, &end),
            }
        }
    }

    fn parameters_asked(&mut self, server: &ParameterServer, request: Request) {
        let mut parameters = std::mem::replace(&mut self.parameters, Parameters::new(Vec::new()));
        let changed = server.answer(request, &mut parameters, &mut |next| self.fits(next));
        self.parameters = parameters;
        if changed.is_empty() {
            return;
        }
        for name in &changed {
            if let Some(value) = self.parameters.get(name) {
                tracing::info!("parameter {name} is now {}", shown(value));
            }
        }
        server.announce(&self.parameters, &changed, self.outputs.stamps.now());
        match Config::read(&self.parameters) {
            Ok(config) => self.take_over(config),
            Err(error) => tracing::error!("the parameters cannot be read: {error}"),
        }
        self.record_parameters(&self.parameters);
    }

    /// Do the parameters fit the robot and the policies that act, or may without anybody asking again?
    fn fits(&self, parameters: &Parameters) -> Result<(), String> {
        let config = Config::read(parameters).map_err(|error| error.to_string())?;
        let Some(spec) = &self.spec else { return Ok(()) };
        let limited = self.described.limited(spec)?;
        Tuning::new(&limited, config.settings.clone()).map_err(|error| error.to_string())?;
        if sampling(&config) == sampling(&self.config) {
            return Ok(());
        }
        let unfit = |policy: &Arc<PolicyIdentity>| config.settings.why_unfit(policy, spec.control_period());
        let acting = [self.expected.live(), self.status.current.as_ref()];
        if let Some(why) = acting.into_iter().flatten().find_map(unfit) {
            return Err(why);
        }
        let before = self
            .status
            .previous
            .as_ref()
            .filter(|_| self.status.swap.is_on_trial());
        match before.and_then(unfit) {
            Some(why) => Err(format!(
                "{why} until the swap under way is through, for it may return to this one"
            )),
            None => Ok(()),
        }
    }

    /// What may change while the node runs; the control loop takes its part over at a tick boundary.
    fn take_over(&mut self, config: Config) {
        let decides = |config: &Config| {
            (
                config.accept_runs.clone(),
                config.allow_downgrade,
                sampling(config),
            )
        };
        let decides_otherwise = decides(&config) != decides(&self.config);
        self.offers.set_accepting(config.accept_bundles);
        self.expected.accept_runs.clone_from(&config.accept_runs);
        self.expected.allow_downgrade = config.allow_downgrade;
        self.expected.candidates = config.settings.candidates;
        self.expected.is_budgeted = config.settings.compute_budget > 0;
        self.is_retuned |= config.settings != self.config.settings;
        self.config = config;
        if decides_otherwise {
            self.look_again();
        }
        if let Some(guard) = self.expected.live().map(|policy| policy.guard) {
            self.tell_unguarded(guard);
        }
        self.tell_doubts();
        if self.described.contradiction().is_some() {
            self.reconsider_description();
        }
        self.retune();
    }

    /// Tells, once, why the guard that is asked for does not guard this policy.
    pub fn tell_unguarded(&mut self, guard: Option<GuardManifest>) {
        let why = self.config.settings.why_unguarded(guard);
        if let Some(why) = why.as_ref().filter(|why| self.unguarded.as_ref() != Some(*why)) {
            tracing::warn!("{why}");
        }
        self.unguarded = why;
    }

    /// Tells, once each, what the parameters do on this robot that hardly anybody means.
    pub fn tell_doubts(&mut self) {
        let spec = self.spec.as_ref();
        let doubts = spec.map_or_else(Vec::new, |spec| self.config.doubts(spec));
        for new in doubts.iter().filter(|doubt| !self.doubts.contains(doubt)) {
            tracing::warn!("{new}");
        }
        self.doubts = doubts;
    }

    /// Tells the loop of the newest settings and limits.
    pub fn retune(&mut self) {
        if !self.is_retuned || self.orders.is_full() {
            return;
        }
        let Some(spec) = self.spec.as_ref() else {
            // The first robot is made with the newest settings.
            self.is_retuned = false;
            return;
        };
        let tuning = self.described.limited(spec).and_then(|limited| {
            Tuning::new(&limited, self.config.settings.clone()).map_err(|e| e.to_string())
        });
        match tuning {
            Ok(tuning) => self.is_retuned = self.order(Order::Tune(Box::new(tuning))).is_err(),
            Err(error) => {
                tracing::error!("the settings do not fit the robot: {error}");
                self.is_retuned = false;
            }
        }
    }

    /// Empties the rings; publishes the status on a change, and from time to time.
    fn look(&mut self) {
        self.free_retired();
        while let Ok(event) = self.from_loop.events.pop() {
            self.note(&event);
            self.status.absorb(event);
        }
        while let Ok(record) = self.from_loop.records.pop() {
            self.status.record(record);
        }
        self.status.periods.look(&self.live);
        let now = MonoTime::now();
        self.status.log_reason(now);
        self.watch_control(now);
        self.give_up_stops(now);
        self.give_up_waiting(now);
        self.give_up_probing(now);
        self.retune();
        self.status.rest = self.rest();
        self.status.by_hand = self.config.probe.by_hand;
        self.status.competing_runs = self.runs.competing(now);
        self.look_after_recording();
        let shown = self.shown(now);
        let is_due = match &self.last_published {
            None => true,
            Some((at, last)) => *last != shown || now.since(*at) >= STATUS_EVERY,
        };
        if is_due {
            self.publish(now);
        }
        if self
            .last_diagnosed
            .is_none_or(|at| now.since(at) >= DIAGNOSE_EVERY)
        {
            self.last_diagnosed = Some(now);
            self.status.rounds.look(&self.live, now);
            let is_commanding = matches!(self.live.state(), LoopState::Active | LoopState::Fallback);
            self.status
                .note_receivers(self.outputs.receivers.count(), is_commanding);
            let known = Known {
                is_commanding,
                served: self.status.receivers,
                reach_nobody: self.status.reach_nobody(),
            };
            if let Some(unserved) = self.outputs.subscribers.look(known, now) {
                self.status.note_unserved(unserved);
            }
            self.publish_diagnostics(now);
        }
        self.forward_log();
    }

    fn shown(&self, now: MonoTime) -> Shown {
        let current = self.status.current.as_deref();
        Shown(
            self.status.message(&self.live, now),
            current.map(|p| p.version).unwrap_or_default(),
            self.status.rejections,
            current.map(|p| p.run.clone()).unwrap_or_default(),
            self.life.state().id(),
        )
    }

    fn publish(&mut self, now: MonoTime) {
        let mut message = status_message(&self.status, &self.live, self.life.state(), now);
        message.stamp = self.outputs.stamps.now();
        if let Err(error) = self.outputs.status.publish(&message) {
            tracing::warn!("policy/status could not be published: {error}");
        }
        self.record_status(&message);
        self.last_published = Some((now, self.shown(now)));
    }

    fn publish_diagnostics(&self, now: MonoTime) {
        let sources = Sources {
            status: &self.status,
            live: &self.live,
            life: self.life.state(),
            rate: self.spec.as_ref().map_or(0.0, |spec| 1.0 / spec.control_period()),
            stale_timeout: self.config.settings.stale_after as f64 * 1e-9,
            enable_timeout: self.config.settings.enable_timeout as f64 * 1e-9,
            goal_timeout: self.config.settings.goal_timeout as f64 * 1e-9,
            clock: self.outputs.stamps.simulated().map(Arc::as_ref),
            thresholds: self.config.thresholds,
            recording: self.outputs.recording.as_ref().map(Recording::health),
        };
        let robot = self.spec.as_ref().map_or(&self.config.robot, |spec| &spec.robot);
        let mut message = diagnostics_message(diagnose(&sources, now), &self.outputs.node, robot);
        message.header.stamp = self.outputs.stamps.now();
        if let Err(error) = self.outputs.diagnostics.publish(&message) {
            tracing::warn!("/diagnostics could not be published: {error}");
        }
    }
}

/// What a policy is asked for at each tick.
fn sampling(config: &Config) -> (usize, u64) {
    (config.settings.candidates, config.settings.compute_budget)
}

/// The next message of a topic, where it is listened to; never, otherwise.
async fn next<T: r2r::WrappedTypesupport + Send + 'static>(inbox: &mut Option<Inbox<T>>) -> Option<T> {
    match inbox {
        None => std::future::pending().await,
        Some(inbox) => inbox.next().await,
    }
}

/// The end of the check that runs, if one does; never, otherwise.
async fn finished(
    check: &mut Option<tokio::task::JoinHandle<Checked>>,
) -> Result<Checked, tokio::task::JoinError> {
    match check {
        None => std::future::pending().await,
        Some(running) => {
            let checked = Pin::new(running).await;
            *check = None;
            checked
        }
    }
}
