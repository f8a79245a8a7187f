//! A robot, its control node and whoever publishes policies, ready for a fault; and what can be seen of them since the
//! fault began.

use std::time::Duration;

use mfpo_policy::spec::{CommandInterface, RobotSpec};
use serde_json::Value;

use super::fade::Fade;
use super::outcome::{Outcome, milliseconds};
use super::view::View;
use crate::bundles::{digest_of, sealed, two_joints};
use crate::peer::{arrived, now, state, states};
use crate::{Peer, Process, TestEnv, until};

/// Age at which a state is stale here, s.
pub const STALE: f64 = 0.2;
/// The control period, s.
pub const TICK: f64 = 0.02;
/// What the way to the peer and back may add, s.
const SLACK: f64 = 0.06;
/// How long the policy fades in, s: what the node does unless it is told otherwise.
const FADE_IN: f64 = 0.2;
/// How long a fault lasts unless its name says otherwise.
pub const FAULT: Duration = Duration::from_millis(700);
/// Commands before a row that its records are compared with, too.
const EARLIER: usize = 50;
/// Both joints of `two_joints`.
pub const BOTH: [&str; 2] = ["elbow", "wrist"];

/// A running system.
pub struct Stand {
    pub peer: Peer,
    pub control: Process,
    pub spec: RobotSpec,
    /// Version of the newest bundle that was sent and is good.
    pub version: u64,
    /// Programs beside the node: the simulated robot, a trainer.
    pub others: Vec<Process>,
    pub parameters: Vec<String>,
    /// When the fault's row began: numbers of messages, bytes of the log.
    commands: usize,
    records: usize,
    log: usize,
    /// Number of the first record of this node: those before it are of one that has ended.
    own_records: usize,
    // Last, so that the domain is given back when nothing of it runs any more.
    pub env: TestEnv,
}

impl Stand {
    /// [`demanding`] with this interface, commanded by version 1; further parameters of the node.
    pub fn of(interface: CommandInterface, parameters: &[&str]) -> Self {
        let spec = demanding(interface);
        let bundle = sealed(&spec, 1);
        Self::with(spec, &bundle, parameters)
    }

    /// The joints of `two_joints` with this bundle to start with.
    pub fn with(spec: RobotSpec, bundle: &[u8], parameters: &[&str]) -> Self {
        let env = TestEnv::alone();
        let policy = env.file("first.safetensors", bundle);
        let mut parameters: Vec<String> = parameters.iter().map(|p| (*p).to_owned()).collect();
        parameters.push(format!("policy:={}", policy.display()));
        parameters.extend(without_stages());
        let peer = env.peer("");
        let control = start(&env, &parameters);
        let mut stand = Self::around(env, peer, control, spec);
        stand.parameters = parameters;
        stand.good_states();
        stand
    }

    /// Puts running programs together.
    pub fn around(env: TestEnv, peer: Peer, control: Process, spec: RobotSpec) -> Self {
        Self {
            env,
            peer,
            control,
            spec,
            version: 1,
            others: Vec::new(),
            parameters: Vec::new(),
            commands: 0,
            records: 0,
            log: 0,
            own_records: 0,
        }
    }

    /// The node, which has ended, is started anew, as it was at first; what is seen from now on is the row's.
    pub fn restart_control(&mut self) {
        self.mark();
        self.own_records = self.records;
        self.control = start(&self.env, &self.parameters);
        self.log = 0;
    }

    /// Waits until the policy commands alone; what is seen from now on is the row's.
    pub fn begin(&mut self) {
        until("the policy commands alone", || {
            let record = self.peer.newest("policy/action")?;
            let is_recent = now() - arrived(&record) < 0.5;
            (is_recent && record["fallback"] == false && record["blend"] == 1.0).then_some(())
        });
        self.mark();
    }

    /// What is seen from now on is the row's.
    pub fn mark(&mut self) {
        self.commands = self.peer.count("commands");
        self.records = self.peer.count("policy/action");
        self.log = self.control.log().len();
    }

    /// The robot reports both joints at rest from now on.
    pub fn good_states(&mut self) -> f64 {
        self.peer.report_both_joints();
        now()
    }

    /// Something else takes the place of the robot's states; tells when the last good one was sent.
    pub fn report_instead(&mut self, message: &Value, hz: u32) -> f64 {
        let last = self.peer.repeat("robot", message, hz);
        last.expect("a state was sent before")
    }

    /// Waits until no command has come for a while.
    pub fn commands_have_ended(&self) {
        until("commands have ended", || {
            let before = self.peer.count("commands");
            std::thread::sleep(Duration::from_millis(300));
            (self.peer.count("commands") == before).then_some(())
        });
    }

    /// What the robot saw since the row began: commands, of which every one is inside the limits and has its record.
    pub fn view(&self) -> View {
        let view = until("every command has its record", || {
            let view = self.look();
            (view.unexplained() == 0).then_some(view)
        });
        view.check_limits(&self.spec);
        view
    }

    fn look(&self) -> View {
        let (at, earlier) = (now(), self.commands.min(EARLIER));
        let mut before = self.peer.messages("commands", self.commands - earlier);
        // The record of the first command may have come before it.
        let first = self.records.saturating_sub(2).max(self.own_records);
        View {
            commands: before.split_off(earlier),
            before,
            records: self.peer.messages("policy/action", first),
            at,
        }
    }

    /// Waits for a record that arrived after a moment and is as `law` asks, and tells when its command arrived.
    pub fn command_after(&self, what: &str, after: f64, law: impl Fn(&Value) -> bool) -> f64 {
        let record = until(what, || {
            let mut records = self.peer.messages("policy/action", self.records).into_iter();
            records.find(|r| arrived(r) >= after && law(r))
        });
        until(what, || {
            let commands = self.peer.messages("commands", self.commands).into_iter();
            // A record arrives shortly before or after its command; a command that is held is there again and again.
            let distance = |at: &f64| (at - arrived(&record)).abs();
            let equal = commands.filter(|c| c["data"] == record["command"]);
            let times = equal.map(|c| arrived(&c)).filter(|at| distance(at) < 0.05);
            times.min_by(|a, b| distance(a).total_cmp(&distance(b)))
        })
    }

    /// When the fallback's first command after a moment arrived.
    pub fn fell(&self, after: f64) -> f64 {
        self.command_after("the fallback commands", after, |r| r["fallback"] == true)
    }

    /// [`Stand::fell`] after states went wrong at `began`, and within the time that it may take.
    pub fn falls(&self, began: f64) -> f64 {
        self.falls_within(STALE, began)
    }

    /// [`Stand::fell`] after a moment, and at most so many seconds and a tick after it.
    pub fn falls_within(&self, seconds: f64, began: f64) -> f64 {
        let fell = self.fell(began);
        let reaction = fell - began;
        assert!(
            reaction <= seconds + TICK + SLACK,
            "the fallback came after {reaction:.3} s; expected at most {seconds} s and a tick"
        );
        fell
    }

    /// Has the policy commanded since a moment?
    pub fn has_acted(&self, after: f64) -> bool {
        let records = self.peer.messages("policy/action", self.records);
        records
            .iter()
            .any(|r| arrived(r) >= after && r["fallback"] == false)
    }

    /// When the policy's first command after a moment arrived.
    pub fn acts(&self, after: f64) -> f64 {
        self.command_after("the policy commands", after, |r| r["fallback"] == false)
    }

    /// Waits until the policy commands alone again after a moment, and looks at its weight in the commands until then.
    pub fn fades_in(&self, after: f64) {
        let fade = until("the policy has faded in", || {
            Fade::ended_after(after, &self.peer.messages("policy/action", self.records))
        });
        fade.check(self.spec.control_period() / FADE_IN);
    }

    /// A fault that the fallback has to answer: states go wrong at `began`, and are good again once `end` is done.
    pub fn falls_back(&mut self, began: f64, words: &[&str], end: impl FnOnce(&mut Self) -> f64) -> Outcome {
        let fell = self.falls(began);
        self.recovers((began, fell), words, end)
    }

    /// A fault of `began` that the fallback has answered at `fell`, until `end` has ended it.
    pub fn recovers(
        &mut self,
        (began, fell): (f64, f64),
        words: &[&str],
        end: impl FnOnce(&mut Self) -> f64,
    ) -> Outcome {
        let log = self.says(words);
        std::thread::sleep(FAULT);
        let ended = end(self);
        let acts = self.acts(ended);
        self.fades_in(ended);
        let sees = self.view().fallback(&self.spec);
        let status = self.peer.active();
        assert_eq!(status["lifecycle"], "active");
        Outcome {
            sees,
            reaction: Some(fell - began),
            recovers: format!(
                "by itself with the first good state ({}); the policy fades in",
                milliseconds(acts - ended)
            ),
            way: None,
            log,
        }
    }

    /// A fault that the robot does not notice; `log` tells of it.
    pub fn goes_on(&self, log: String, recovers: &str) -> Outcome {
        Outcome {
            sees: self.view().policy_alone(),
            reaction: None,
            recovers: recovers.to_owned(),
            way: None,
            log,
        }
    }

    /// Waits for a line of the node's log since the row began, without what differs from run to run.
    pub fn says(&self, words: &[&str]) -> String {
        let line = until(&format!("the log says {words:?}"), || {
            let log = self.control.log();
            let new = log.get(self.log..).unwrap_or_default();
            let line = new.lines().find(|l| words.iter().all(|word| l.contains(word)));
            line.map(str::to_owned)
        });
        bare(&line)
    }

    /// Offers the next good bundle, and tells how long it took to act, s.
    pub fn next_good_bundle(&mut self) -> f64 {
        self.version += 1;
        let bundle = sealed(&self.spec, self.version);
        let digest = digest_of(&bundle);
        let file = self.env.file("good.safetensors", &bundle);
        let offered = self.peer.offer(&file);
        let status = self
            .peer
            .status("the good bundle acts", |s| s["digest"] == *digest);
        arrived(&status) - offered
    }

    /// Number of the fallback's and the policy's states in the status.
    pub fn waits_until_active(&self) -> Value {
        self.peer
            .status("the policy commands", |s| s["state"] == state::ACTIVE)
    }

    /// The end of the node's log, for whoever has to find out what went wrong.
    pub fn last_words(&self) -> String {
        let log = self.control.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// `two_joints` with a policy that asks for twice what the limits give, and from tick to tick for more than a rate allows. The
/// rate of an effort takes it to zero, and to what brakes a joint here, within one tick: the fallback is there at once.
pub fn demanding(interface: CommandInterface) -> RobotSpec {
    let (scale, rate) = match interface {
        CommandInterface::Effort => (2.0, 70.0),
        CommandInterface::Velocity => (4.0, 20.0),
        CommandInterface::Position => (2.0, 1.5),
    };
    let mut spec = two_joints(interface);
    for joint in &mut spec.joints {
        joint.command_rate_max = Some(rate);
    }
    for joint in &mut spec.action.joints {
        joint.scale = scale;
    }
    spec
}

/// What the node of every row is told: states go stale early, and a good bundle acts at once.
pub fn without_stages() -> Vec<String> {
    let stages = ["shadow", "blend", "probation"].map(|stage| format!("swap.{stage}:=0.0"));
    let stale = format!("stale_timeout:={STALE}");
    stages.into_iter().chain([stale]).collect()
}

fn start(env: &TestEnv, parameters: &[String]) -> Process {
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    env.control(&parameters)
}

/// States of both joints at rest, where they are unless a fault says otherwise.
pub fn at_rest() -> Value {
    states(&BOTH, &[0.1, 0.2], &[0.0, 0.0])
}

/// [`at_rest`] with a stamp that is so many seconds ahead.
pub fn stamped(ahead: f64) -> Value {
    let mut message = at_rest();
    message["header"]["stamp"] = serde_json::json!({"now": ahead});
    message
}

/// A stamp in seconds.
pub fn seconds(stamp: &Value) -> f64 {
    let of = |name: &str| stamp[name].as_f64().unwrap_or(f64::NAN);
    of("sec") + 1e-9 * of("nanosec")
}

/// A line of the log without time, level and count; digests are cut short.
fn bare(line: &str) -> String {
    let levels = [" WARN ", " INFO ", " ERROR "];
    let text = levels.iter().find_map(|level| line.split_once(level));
    let text = text.map_or(line, |(_, text)| text).trim();
    let text = text
        .split_once(" more like it since")
        .and_then(|(text, _)| text.rsplit_once(" ("))
        .map_or(text, |(text, _)| text);
    let words = text.split(' ').map(|word| {
        let digits: String = word.chars().filter(char::is_ascii_hexdigit).collect();
        if digits.len() < 32 {
            word.to_owned()
        } else {
            word.replace(&digits, "...")
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
