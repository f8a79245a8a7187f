//! Every parameter: its default, what it says, the values it takes and whether it may change at run time.

use mfpo_ros::parameters::{Declared, ParameterValue as Value, Range};

use super::checks::{
    LONGEST_BLIND, MOST_CANDIDATES, blind_seconds, blind_seconds_or_none, candidates, command_topic, cpus,
    device, fallback, finite_numbers, megabytes, not_negative, not_negative_integer, positive, priority,
    record_mode, runs, trigger, trusted_keys,
};

/// No time here is longer, s: what is meant is then certainly something else.
const LONGEST: f64 = 3600.0;

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// The parameters at their defaults.
pub fn declared() -> Vec<Declared> {
    let groups = [
        policies(),
        swaps(),
        control(),
        safety(),
        limits(),
        probe(),
        recording(),
        diagnostics(),
    ];
    groups.into_iter().flatten().collect()
}

/// Where policies come from.
fn policies() -> Vec<Declared> {
    vec![
        Declared::new(
            "policy",
            text(""),
            "Path of the policy bundle to start with; empty waits for the topic policy/bundle",
        ),
        Declared::new(
            "policy_folder",
            text(""),
            "Folder that is watched: its newest *.safetensors goes live once it has passed every check; empty is none",
        ),
        Declared::new("device", text("cpu"), "Where the policy runs: cpu, cuda or cuda:N")
            .check(device, "cpu, cuda or cuda:N"),
        Declared::new(
            "accept_bundles",
            Value::Bool(true),
            "Whether bundles of topic and folder go live; while false the newest one is kept and considered later",
        )
        .at_run_time(),
        Declared::new(
            "accept_runs",
            Value::StringArray(Vec::new()),
            "Training runs that may take over from the first one, by their whole names; '*' alone is any, empty is none",
        )
        .check(runs, "whole names of runs, or '*' alone; no patterns")
        .at_run_time(),
        Declared::new(
            "allow_downgrade",
            Value::Bool(false),
            "Whether a bundle may go live whose version is not above the newest of its run",
        )
        .at_run_time(),
        Declared::new(
            "trusted_keys",
            Value::StringArray(Vec::new()),
            "Public keys whose signatures count, 64 hexadecimal digits or files of `mfpo_train keygen`; empty needs no signature",
        )
        .check(trusted_keys, "64 hexadecimal digits, or a file that holds a public key"),
        Declared::new(
            "robot",
            text(""),
            "Name of the robot that a bundle must be for; empty takes the first bundle's",
        ),
    ]
}

/// How the loop runs.
fn control() -> Vec<Declared> {
    vec![
        Declared::new(
            "autostart",
            Value::Bool(true),
            "Whether the node configures itself and becomes active as soon as the robot is ready; false waits for \
             ros2 lifecycle set (or ~/start)",
        ),
        Declared::new(
            "rate",
            Value::Double(0.0),
            "Control rate [Hz]; 0 takes the policy's own, a policy trained for another rate is refused",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 100_000.0)),
        Declared::new(
            "trigger",
            text("fixed_rate"),
            "What makes the loop tick: fixed_rate (newest state at each deadline) or on_state (arriving states)",
        )
        .check(trigger, "fixed_rate or on_state"),
        Declared::new(
            "candidates",
            Value::Integer(1),
            "Actions sampled at each tick [count]; with more than 1 the bundle's critics choose the best",
        )
        .check(candidates, "more than 1 needs a bundle with critics")
        .range(Range::Integer(1, MOST_CANDIDATES))
        .at_run_time(),
        Declared::new(
            "compute_budget",
            Value::Double(0.0),
            "Time from the state taken in which steps and candidates are sampled, as many as fit [s]; 0 samples all of them",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, LONGEST))
        .at_run_time(),
        Declared::new("seed", Value::Integer(0), "Seed of the policy's noise")
            .check(not_negative_integer, "from 0")
            .range(Range::Integer(0, i64::MAX)),
        Declared::new(
            "command_topic_type",
            text("float64_multi_array"),
            "Type of the topic commands: float64_multi_array or joint_trajectory (a trajectory of velocities or efforts holds no \
             positions, and ros2_control's joint_trajectory_controller refuses it: take float64_multi_array there)",
        )
        .check(command_topic, "float64_multi_array or joint_trajectory"),
        Declared::new(
            "realtime_priority",
            Value::Integer(0),
            "SCHED_FIFO priority of the control thread, 1 to 99, and one less of the middleware's threads; 0 leaves them to \
             the ordinary scheduler",
        )
        .check(priority, "from 0 to 99")
        .range(Range::Integer(0, 99)),
        Declared::new(
            "lock_memory",
            Value::Bool(false),
            "Whether the memory of the process is locked, so that no tick waits for a page; needs an unlimited memlock",
        ),
        Declared::new(
            "cpu_affinity",
            Value::IntegerArray(Vec::new()),
            "Processors that the control thread may run on, by number from 0; empty is all",
        )
        .check(cpus, "numbers of processors that this process may use"),
        Declared::new(
            "dry_run",
            Value::Bool(false),
            "Whether everything is computed, recorded and told as ever, and no command is published",
        ),
        Declared::new(
            "use_sim_time",
            Value::Bool(false),
            "Whether stamps come from the topic /clock of a simulator; nothing is commanded before it has come, and the fallback acts \
             where it stands still. It may be slower than real time: ages and deadlines stay on the machine's own clock",
        ),
    ]
}

/// What happens when something is wrong.
fn safety() -> Vec<Declared> {
    let seconds = Range::Double(0.0, LONGEST_BLIND);
    vec![
        Declared::new(
            "stale_timeout",
            Value::Double(0.1),
            "Age at which a joint's state is stale and the fallback acts [s]; at least the control period",
        )
        .check(blind_seconds, "above 0")
        .range(seconds)
        .at_run_time(),
        Declared::new(
            "fallback",
            text("auto"),
            "Command while the policy may not act (stale states, no heartbeat, ~/stop, the guard): auto, hold (position), ramp \
             (velocity), damp (effort), zero (velocity, effort); auto is the one named for the robot's interface",
        )
        .check(fallback, "one that fits the robot's command interface")
        .at_run_time(),
        Declared::new(
            "damping",
            Value::Double(0.0),
            "Damping of the effort fallback [N m s/rad, N s/m for a prismatic joint]; 0 is not undamped: each joint's largest effort \
             over its largest speed",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 1e6))
        .at_run_time(),
        Declared::new(
            "fallback_effort",
            Value::DoubleArray(Vec::new()),
            "What the effort fallback adds its damping to, and commands alone where a velocity is not fresh [N m, N for a \
             prismatic joint]: one for \
             each action joint in the policy's order, as a rule what holds the robot up at rest; empty is zero",
        )
        .check(finite_numbers, "as many as the policy's action joints, or none; only with damp")
        .at_run_time(),
        Declared::new(
            "guard",
            Value::Bool(false),
            "Whether the fallback takes over where a signal of the policy - one step against all, spread of the candidates, \
             the critics' value - is beyond what the bundle's guard allows; poor signals, which find wrong units",
        )
        .at_run_time(),
        Declared::new(
            "recovery_inputs",
            Value::Integer(1),
            "Good inputs in a row after which the policy takes over from the fallback [count]; 0 waits for ~/start",
        )
        .check(not_negative_integer, "from 0")
        .range(Range::Integer(0, 1_000_000))
        .at_run_time(),
        Declared::new(
            "fade_in",
            Value::Double(0.2),
            "Time over which the policy's command takes over on activation, after a fallback and on a \
             swap without a blend [s]; 0 is at once",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 60.0))
        .at_run_time(),
        Declared::new(
            "enable_timeout",
            Value::Double(0.0),
            "How long one heartbeat on topic enable permits motion [s]; 0 needs no heartbeat",
        )
        .check(blind_seconds_or_none, "from 0")
        .range(seconds),
        Declared::new(
            "goal_timeout",
            Value::Double(0.0),
            "How long a goal holds [s], for a policy that observes one: where no other has come by then the fallback acts until \
             one does; 0 holds until the next one, whenever that comes",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, LONGEST))
        .at_run_time(),
    ]
}

/// How one policy takes over from another.
fn swaps() -> Vec<Declared> {
    let stage = |name, default, description| {
        Declared::new(name, Value::Double(default), description)
            .check(not_negative, "from 0")
            .range(Range::Double(0.0, LONGEST))
            .at_run_time()
    };
    vec![
        stage(
            "swap.shadow",
            0.2,
            "Time for which a new policy is computed and compared before it acts [s]; 0 leaves the stage out",
        ),
        stage(
            "swap.blend",
            0.3,
            "Time over which a new policy's weight rises against the one before, both computed [s]; 0 leaves the stage out",
        ),
        stage(
            "swap.probation",
            2.0,
            "Time for which a new policy is watched; it is returned from when it gives no action or its guard fires, and, where \
             the policy before has acted for ten ticks, when limits trip more often or it is slower [s]; 0 leaves the stage \
             out",
        ),
        Declared::new(
            "swap.interventions_rise",
            Value::Double(0.2),
            "Part of the ticks on probation, 0 to 1, in which a limit may trip beyond the habit of the policy before [1]",
        )
        .check(not_negative, "from 0")
        .range(Range::Double(0.0, 1.0))
        .at_run_time(),
        Declared::new(
            "swap.latency_factor",
            Value::Double(3.0),
            "A tick on probation is slow when it takes so many times what the policy before did, and a tenth of the period \
             at least [1]; a fifth of the ticks may be slow",
        )
        .check(positive, "above 0")
        .range(Range::Double(0.0, 1e6))
        .at_run_time(),
    ]
}

/// Limits below those of the bundle's spec.
fn limits() -> Vec<Declared> {
    let largest = Range::Double(0.0, 1e6);
    vec![
        Declared::new(
            "use_robot_description",
            Value::Bool(true),
            "Whether the limits of the robot's own description (topic robot_description, URDF) tighten the policy's",
        ),
        Declared::new(
            "limits.position_margin",
            Value::Double(0.0),
            "Kept away from each position limit of the policy's commanded joints [rad, m for a prismatic joint]",
        )
        .check(not_negative, "less than half the range of every commanded joint")
        .range(Range::Double(0.0, 100.0))
        .at_run_time(),
        Declared::new(
            "limits.velocity_scale",
            Value::Double(1.0),
            "Part of the commanded joints' velocity limits that may be used [1]",
        )
        .check(positive, "above 0")
        .range(Range::Double(0.0, 1.0))
        .at_run_time(),
        Declared::new(
            "limits.effort_scale",
            Value::Double(1.0),
            "Part of the commanded joints' effort limits that may be used [1]",
        )
        .check(positive, "above 0")
        .range(Range::Double(0.0, 1.0))
        .at_run_time(),
        Declared::new(
            "limits.command_rate_max",
            Value::Double(0.0),
            "Largest rate of change of a command [per second in its own unit: rad/s, rad/s^2 or N m/s, m or N for a prismatic \
             joint]; 0 is the robot's own, a larger one than that changes nothing",
        )
        .check(not_negative, "from 0")
        .range(largest)
        .at_run_time(),
        Declared::new(
            "limits.acceleration_max",
            Value::Double(0.0),
            "Largest acceleration of a commanded position or velocity [rad/s^2, m/s^2 for a prismatic joint]; 0 is the robot's own, \
             a larger one than that changes nothing",
        )
        .check(not_negative, "from 0")
        .range(largest)
        .at_run_time(),
    ]
}

/// How `~/probe` moves joints.
fn probe() -> Vec<Declared> {
    let number = |name, default, most, description| {
        Declared::new(name, Value::Double(default), description)
            .check(positive, "above 0")
            .range(Range::Double(0.0, most))
            .at_run_time()
    };
    vec![
        Declared::new(
            "probe.allowed",
            Value::Bool(false),
            "Whether ~/probe may move joints; by hand it moves nothing and needs no permission",
        )
        .at_run_time(),
        number(
            "probe.amplitude",
            0.05,
            0.5,
            "How far ~/probe moves a joint [rad or m]",
        ),
        number("probe.seconds", 1.0, 10.0, "Time in which it moves that far [s]"),
        number(
            "probe.effort",
            0.1,
            1.0,
            "Part of a joint's effort limit that ~/probe uses on a robot with effort commands [1]",
        ),
        number(
            "probe.by_hand",
            0.3,
            3.0,
            "How far an operator is asked to move each joint by hand [rad or m]",
        ),
        number(
            "probe.by_hand_timeout",
            20.0,
            LONGEST,
            "How long the operator has for each joint [s]",
        ),
    ]
}

/// What is kept of what the node did.
fn recording() -> Vec<Declared> {
    let seconds = |name, default, description| {
        Declared::new(name, Value::Double(default), description)
            .check(positive, "above 0")
            .range(Range::Double(0.0, LONGEST))
    };
    vec![
        Declared::new(
            "record.folder",
            text(""),
            "Folder for recordings (MCAP) of every tick and the policies that acted; empty records nothing",
        ),
        Declared::new(
            "record.mode",
            text("continuous"),
            "When they are written: continuous, or before_fault (the seconds before something goes wrong and a few after)",
        )
        .check(record_mode, "continuous or before_fault"),
        seconds(
            "record.seconds",
            30.0,
            "What before_fault keeps of the time before something goes wrong [s]",
        ),
        seconds("record.seconds_after", 2.0, "What before_fault keeps of the time after it [s]"),
        seconds(
            "record.file_seconds",
            600.0,
            "Time after which one recording ends and the next begins [s]",
        ),
        Declared::new(
            "record.megabytes_max",
            Value::Integer(4000),
            "What the node's recordings may take in the folder [MB]; the oldest are removed, those of faults too",
        )
        .check(megabytes, "from 4")
        .range(Range::Integer(4, 10_000_000)),
    ]
}

/// When /diagnostics warns; the names are those of ros2_control's controller_manager.
fn diagnostics() -> Vec<Declared> {
    let threshold = |name, default, description| {
        Declared::new(name, Value::Double(default), description)
            .check(positive, "above 0")
            .range(Range::Double(0.0, 1e9))
            .at_run_time()
    };
    vec![
        threshold(
            "diagnostics.threshold.periodicity.mean_error.warn",
            5.0,
            "Difference between the control rate and the measured average at which /diagnostics warns [Hz]",
        ),
        threshold(
            "diagnostics.threshold.periodicity.mean_error.error",
            10.0,
            "The same, at which it is an error [Hz]",
        ),
        threshold(
            "diagnostics.threshold.periodicity.standard_deviation.warn",
            5.0,
            "Standard deviation of the measured rate at which /diagnostics warns [Hz]",
        ),
        threshold(
            "diagnostics.threshold.periodicity.standard_deviation.error",
            10.0,
            "The same, at which it is an error [Hz]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.mean.warn",
            1000.0,
            "Average time from state taken to command handed over at which /diagnostics warns [us]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.mean.error",
            2000.0,
            "The same, at which it is an error [us]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.standard_deviation.warn",
            500.0,
            "Standard deviation of that time at which /diagnostics warns [us]",
        ),
        threshold(
            "diagnostics.threshold.execution_time.standard_deviation.error",
            1000.0,
            "The same, at which it is an error [us]",
        ),
    ]
}
