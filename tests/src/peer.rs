//! The other side of the topics: a program made of rclpy that publishes, listens and calls services for a test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::{PATIENCE, Process, TestEnv, repository, until};

/// Quality of service, as rclpy names it.
#[derive(Debug, Clone, Copy)]
pub enum Qos {
    /// Sensor data: best effort.
    Sensor,
    /// Reliable, volatile.
    Reliable,
    /// Reliable, transient local.
    Latched,
}

impl Qos {
    fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Reliable => "reliable",
            Self::Latched => "latched",
        }
    }
}

/// A simulated robot of two joints, right or wrong.
#[derive(Debug, Clone, Copy)]
pub struct Simulated {
    /// What its states call elbow and wrist.
    pub names: [&'static str; 2],
    /// What they multiply their positions and velocities with.
    pub reads: [f64; 2],
    /// What they multiply their commands with.
    pub obeys: [f64; 2],
    /// Where they are at the start, rad.
    pub start: [f64; 2],
}

impl Simulated {
    /// As the policy expects it.
    pub const RIGHT: Self = Self {
        names: ["elbow", "wrist"],
        reads: [1.0, 1.0],
        obeys: [1.0, 1.0],
        start: [0.0, 0.0],
    };
}

/// The field that the arrival of a message is added as; no message has one of this name.
pub const ARRIVED: &str = "_arrived";

/// Everything that has arrived, by topic.
type Arrived = Arc<Mutex<HashMap<String, Vec<Value>>>>;

/// A rclpy program under the test's command. It listens to `policy/status`, `policy/action` and `commands`.
pub struct Peer {
    orders: ChildStdin,
    answers: Receiver<Value>,
    arrived: Arrived,
    process: Process,
}

impl Peer {
    pub(crate) fn start(env: &TestEnv, namespace: &str) -> Self {
        let script = repository().join("tests/python/peer.py");
        let mut command = env.command_by_udp(Path::new("python3"));
        command.arg(script).arg(namespace);
        let (process, orders, output) = Process::start_connected("peer", command, &env.log_path("peer"));
        let (sender, answers) = channel();
        let arrived = Arrived::default();
        let inbox = Arc::clone(&arrived);
        std::thread::spawn(move || read(BufReader::new(output), &sender, &inbox));
        let mut peer = Self {
            orders,
            answers,
            arrived,
            process,
        };
        peer.listen("policy/status", "mfpo_msgs/PolicyStatus", Qos::Latched);
        peer.listen("policy/action", "mfpo_msgs/PolicyAction", Qos::Reliable);
        peer.listen("commands", "std_msgs/Float64MultiArray", Qos::Reliable);
        peer
    }

    /// The program itself.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Keeps every message of a topic from now on.
    pub fn listen(&mut self, topic: &str, kind: &str, qos: Qos) {
        self.ask(json!({"do": "listen", "topic": topic, "type": kind, "qos": qos.name()}));
    }

    /// Publishes once, when somebody listens, and tells when ([`now`]).
    pub fn publish(&mut self, topic: &str, kind: &str, qos: Qos, message: Value) -> f64 {
        let at = self.ask(
            json!({"do": "publish", "topic": topic, "type": kind, "qos": qos.name(), "message": message}),
        );
        at.as_f64().expect("a time")
    }

    /// Publishes the file of a bundle on `policy/bundle`, and tells when ([`now`]). Nothing but the file says what it
    /// holds.
    pub fn offer(&mut self, bundle: &Path) -> f64 {
        self.offer_to("policy/bundle", bundle)
    }

    /// [`Peer::offer`] on a topic of another name.
    pub fn offer_to(&mut self, topic: &str, bundle: &Path) -> f64 {
        let message = json!({"stamp": "now", "data": {"file": bundle}});
        self.publish(topic, "mfpo_msgs/PolicyBundle", Qos::Latched, message)
    }

    /// Publishes `times` equal messages on `joint_states` at once.
    pub fn burst_of_states(&mut self, message: &Value, times: u32) {
        self.ask(
            json!({"do": "publish", "topic": "joint_states", "type": "sensor_msgs/JointState",
            "qos": "sensor", "message": message, "times": times}),
        );
    }

    /// Publishes `message` on `joint_states` 100 times a second from now on, in place of what was repeated under
    /// this name before.
    pub fn repeat_states(&mut self, name: &str, message: &Value) {
        self.repeat(name, message, 100);
    }

    /// Publishes `enable` on the topic of that name ten times a second from now on; `None` ends it.
    pub fn repeat_enable(&mut self, enable: Option<bool>) {
        let hz = if enable.is_some() { 10 } else { 0 };
        self.ask(
            json!({"do": "repeat", "name": "enable", "topic": "enable", "hz": hz,
            "type": "std_msgs/Bool", "qos": "reliable", "message": {"data": enable.unwrap_or_default()}}),
        );
    }

    /// Publishes this goal on the topic of that name ten times a second from now on.
    pub fn repeat_goal(&mut self, frame: &str, [x, y, z]: [f64; 3]) {
        self.ask(
            json!({"do": "repeat", "name": "goal", "topic": "goal", "hz": 10, "type": "geometry_msgs/PointStamped",
            "qos": "reliable", "message": {"header": {"frame_id": frame}, "point": {"x": x, "y": y, "z": z}}}),
        );
    }

    /// Ends [`Peer::repeat_states`].
    pub fn silence(&mut self, name: &str) {
        self.repeat(name, &Value::Null, 0);
    }

    /// [`Peer::repeat_states`] at any rate, 0 ends it; tells when the last one of before was sent ([`now`]).
    pub fn repeat(&mut self, name: &str, message: &Value, hz: u32) -> Option<f64> {
        let last = self.ask(
            json!({"do": "repeat", "name": name, "as": name, "topic": "joint_states", "hz": hz,
            "type": "sensor_msgs/JointState", "qos": "sensor", "message": message}),
        );
        last.as_f64()
    }

    /// The longest time between two messages of those that are, or were last, repeated under this name, s.
    pub fn longest_gap(&mut self, name: &str) -> Option<f64> {
        self.ask(json!({"do": "longest_gap", "name": name})).as_f64()
    }

    /// [`Peer::repeat_states`] by a publisher of its own, of any type and quality of service.
    pub fn repeat_as(&mut self, name: &str, (topic, kind, qos): (&str, &str, Qos), message: &Value) {
        self.ask(
            json!({"do": "repeat", "name": name, "as": name, "topic": topic, "hz": 100,
            "type": kind, "qos": qos.name(), "message": message}),
        );
    }

    /// Ends what is repeated under a name, and its publisher with it; tells when the last one was sent ([`now`]).
    pub fn withdraw(&mut self, name: &str) -> Option<f64> {
        self.ask(json!({"do": "withdraw", "name": name})).as_f64()
    }

    /// States of both joints of `two_joints`, at rest.
    pub fn report_both_joints(&mut self) {
        self.repeat_states("robot", &states(&["elbow", "wrist"], &[0.1, 0.2], &[0.0, 0.0]));
    }

    /// Calls a service.
    pub fn call(&mut self, service: &str, kind: &str, request: Value) -> Value {
        self.ask(json!({"do": "call", "service": service, "type": kind, "request": request}))
    }

    /// When the last service was called, once it had been found ([`now`]).
    pub fn called(&mut self) -> f64 {
        self.ask(json!({"do": "called"})).as_f64().expect("a time")
    }

    /// Begins to call a service whose answer is long in coming: [`Peer::answered`].
    pub fn begin(&mut self, service: &str, kind: &str, request: Value) {
        self.ask(json!({"do": "begin", "service": service, "type": kind, "request": request}));
    }

    /// Waits for the answer to [`Peer::begin`].
    pub fn answered(&mut self) -> Value {
        until("the service answers", || {
            let answer = self.ask(json!({"do": "end"}));
            (!answer.is_null()).then_some(answer)
        })
    }

    /// Becomes a robot of the joints `elbow` and `wrist` with commands of this interface, whose states may be wrong.
    pub fn simulate(&mut self, interface: &str, robot: &Simulated) {
        self.ask(
            json!({"do": "simulate", "interface": interface, "names": robot.names, "reads": robot.reads,
            "obeys": robot.obeys, "start": robot.start}),
        );
    }

    /// Somebody moves a joint of that robot by hand.
    pub fn push(&mut self, joint: usize, by: f64) {
        self.ask(json!({"do": "push", "joint": joint, "by": by}));
    }

    /// Sets one parameter of `/control`: success and reason. `value` as in rcl_interfaces/ParameterValue.
    pub fn set_parameter(&mut self, name: &str, value: Value) -> (bool, String) {
        let request = json!({"parameters": [{"name": name, "value": value}]});
        let answer = self.call("/control/set_parameters", "rcl_interfaces/SetParameters", request);
        let result = &answer["results"][0];
        let reason = result["reason"].as_str().unwrap_or_default().to_owned();
        (result["successful"] == true, reason)
    }

    /// Starts a managed node of rcl itself, to compare with.
    pub fn start_lifecycle_node(&mut self, name: &str) {
        self.ask(json!({"do": "lifecycle_node", "name": name}));
    }

    /// Asks a managed node for a transition by its label, as `ros2 lifecycle set` does by its number.
    pub fn change_state(&mut self, node: &str, label: &str) -> bool {
        let request = json!({"transition": {"label": label}});
        let service = format!("/{node}/change_state");
        self.call(&service, "lifecycle_msgs/ChangeState", request)["success"] == true
    }

    /// The state of a managed node.
    pub fn lifecycle(&mut self, node: &str) -> String {
        let answer = self.call(
            &format!("/{node}/get_state"),
            "lifecycle_msgs/GetState",
            json!({}),
        );
        answer["current_state"]["label"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Calls a `std_srvs/Trigger` of `/control`: success and message.
    pub fn trigger(&mut self, name: &str) -> (bool, String) {
        let answer = self.call(&format!("/control/{name}"), "std_srvs/Trigger", json!({}));
        let message = answer["message"].as_str().unwrap_or_default().to_owned();
        (answer["success"] == true, message)
    }

    /// Has `/control` load a bundle: whether it is accepted, and why not.
    pub fn load(&mut self, bundle: &Path) -> (bool, String) {
        let request = json!({"path": bundle});
        let answer = self.call("/control/load_policy", "mfpo_msgs/LoadPolicy", request);
        let reason = answer["reason"].as_str().unwrap_or_default().to_owned();
        (answer["accepted"] == true, reason)
    }

    /// Names of `nodes`, and types of `topics` by name.
    pub fn graph(&mut self) -> Value {
        self.ask(json!({"do": "graph"}))
    }

    /// Node, reliability and durability of the other programs' `publishers` and `subscriptions` of a topic.
    pub fn endpoints(&mut self, topic: &str) -> Value {
        self.ask(json!({"do": "endpoints", "topic": topic}))
    }

    /// Types of the fields of a message by name, and the values of `constants`.
    pub fn fields(&mut self, kind: &str, constants: &[&str]) -> Value {
        self.ask(json!({"do": "fields", "type": kind, "constants": constants}))
    }

    /// Number of messages of a topic so far.
    pub fn count(&self, topic: &str) -> usize {
        self.all().get(topic).map_or(0, Vec::len)
    }

    /// The messages of a topic from number `first` on.
    pub fn messages(&self, topic: &str, first: usize) -> Vec<Value> {
        let all = self.all();
        let of_topic = all.get(topic).map(Vec::as_slice).unwrap_or_default();
        of_topic.get(first..).unwrap_or_default().to_vec()
    }

    /// The newest message of a topic.
    pub fn newest(&self, topic: &str) -> Option<Value> {
        self.all().get(topic).and_then(|all| all.last().cloned())
    }

    /// Waits for `more` messages of a topic and returns them.
    pub fn next(&self, topic: &str, more: usize) -> Vec<Value> {
        let first = self.count(topic);
        until(&format!("{more} messages arrive on {topic}"), || {
            (self.count(topic) >= first + more).then(|| self.messages(topic, first))
        })
    }

    /// Waits until the newest `policy/status` is as `law` asks, and returns it.
    pub fn status(&self, what: &str, law: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.newest("policy/status").unwrap_or_default();
                law(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("policy/status never showed: {what}; the last one: {last:#}"))
    }

    /// Waits until the policy commands the robot.
    pub fn active(&self) -> Value {
        self.status("the policy commands the robot", |s| s["state"] == state::ACTIVE)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<Value>>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&mut self, order: Value) -> Value {
        writeln!(self.orders, "{order}").unwrap_or_else(|error| panic!("the peer has ended: {error}"));
        let answer = self.answers.recv_timeout(PATIENCE);
        let mut answer = answer.unwrap_or_else(|error| panic!("the peer does not answer {order}: {error}"));
        assert!(answer["error"].is_null(), "{order}: {}", answer["error"]);
        answer["answer"].take()
    }

    /// Has it ended, whatever the reason?
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended().is_some()
    }
}

/// The states of `mfpo_msgs/PolicyStatus`.
pub mod state {
    /// No bundle was accepted yet.
    pub const WAITING_FOR_POLICY: u8 = 0;
    /// Some joint has not reported.
    pub const WAITING_FOR_STATES: u8 = 1;
    /// The policy commands the robot.
    pub const ACTIVE: u8 = 2;
    /// The watchdog commands the robot.
    pub const FALLBACK: u8 = 3;
    /// The last safe command was sent.
    pub const STOPPED: u8 = 4;
    /// The life cycle is not active.
    pub const INACTIVE: u8 = 5;
    /// Single joints are probed.
    pub const PROBING: u8 = 6;
}

/// Seconds of the monotonic clock, which all programs of a machine share.
///
/// # Panics
/// When the machine has no such clock.
pub fn now() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
    time.tv_sec() as f64 + 1e-9 * time.tv_nsec() as f64
}

/// When a message arrived at the peer, by [`now`].
pub fn arrived(message: &Value) -> f64 {
    message[ARRIVED].as_f64().unwrap_or(f64::NAN)
}

/// A `sensor_msgs/JointState` stamped when it is sent.
pub fn states(names: &[&str], positions: &[f64], velocities: &[f64]) -> Value {
    json!({"header": {"stamp": "now"}, "name": names, "position": numbers(positions),
        "velocity": numbers(velocities)})
}

/// JSON has no NaN and no infinity.
fn numbers(values: &[f64]) -> Vec<Value> {
    values
        .iter()
        .map(|v| {
            if v.is_finite() {
                json!(v)
            } else {
                json!(v.to_string())
            }
        })
        .collect()
}

fn read(output: impl BufRead, answers: &Sender<Value>, arrived: &Arrived) {
    for line in output.lines().map_while(Result::ok) {
        let Ok(mut line) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        match line["topic"].as_str().map(str::to_owned) {
            Some(topic) => {
                let mut all = arrived.lock().unwrap_or_else(PoisonError::into_inner);
                let mut message = line["message"].take();
                message[ARRIVED] = line["at"].take();
                all.entry(topic).or_default().push(message);
            }
            // The test may have ended.
            None => drop(answers.send(line)),
        }
    }
}
