//! The table of `docs/faults.md`, made of what the rows told, and its comparison with the one that is there.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Told;
use super::outcome::milliseconds;
use crate::repository;

/// Set to take over what was seen into docs/faults.md.
const ACCEPT: &str = "MFPO_ACCEPT_FAULTS";

const HEAD: &str = "# What happens when something breaks

Every row is a fault that a test injects into a running system: the real `control` node over real DDS, a publisher and
subscriber made of rclpy in the robot's place (under \"Programs and the network\", from its third row on, the simulated robot and
the trainer themselves). The test asserts on what the robot received - every command finite, inside the limits, no further from the
one before than its rate allows, and told of by a record of `policy/action` - and writes this table from what it saw:
`cargo xtask test --slow`. It fails where something differs from what is written here other than a time or, in the log, a number of
commands, missed ticks or bytes, or the version that a resumed run has come to; a part of the rows runs in `cargo xtask test`.
\"Without a gap\": no tick was left out, the command of each one arrived, and no two were more than 100 ms apart, after which the
simulated robot brakes on its own. \"The policy fades in\": its weight in the commands rose from 0 to 1 by the same share at each
tick, over `fade_in`.

A policy of 50 Hz that asks for twice what the limits give (that of the simulated robot asks for no more), joint states at 100 Hz,
`stale_timeout` 0.2 s, `fade_in` 0.2 s (0 beside a trainer), the stages of a swap at 0, commands in N m unless a row says otherwise,
no real-time priority but in the rows that say so, where that is permitted. A reaction is the time from the fault (the last good
state, goal or heartbeat sent, the bundle sent, the signal, the call) to the first command or status that answers it, as it arrived
at the robot, or to the first state of a robot that brakes on its own; the times are those of one run on the 2-core machine where the
table was accepted last (# in a row that is newer). A row that failed while the machine did not keep time says nothing, and is tried again, up to three times:
a thread that only sleeps was more than a period late, the control thread was ready and waited 18 ms for a core by the kernel's own
count, or more than 1.5 programs wanted each core. What a real robot does without commands is up to its own timeout; the simulated
one brakes.
";

/// Units of the times in the table.
const TIMES: [&str; 3] = ["s", "ms", "us"];
/// What follows the other numbers of the log that differ from run to run: commands that a rule altered, ticks that a node that
/// stood still missed, sizes of bundles (their manifests hold when they were made), and the version that a resumed run, whose
/// name is hidden, has come to.
const COUNTED: [&str; 4] = [" commands for the ", " missed ticks", " bytes", " of run '...'"];

fn path() -> PathBuf {
    repository().join("docs/faults.md")
}

/// Where the results go, beside the programs: `faults.json`, `faults.md`.
fn results() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(3).expect("the target folder").join("faults");
    std::fs::create_dir_all(&folder).expect("a folder for the results");
    folder
}

/// Writes what was seen as JSON, makes the table of it, and compares that with the one that is there.
///
/// # Panics
/// Where they differ in more than times.
pub fn check_all(rows: &[Told]) {
    let results = results();
    let all: Vec<Value> = rows.iter().map(Told::json).collect();
    let file = results.join("faults.json");
    let text = serde_json::to_string_pretty(&json!({"rows": all})).expect("JSON");
    std::fs::write(&file, text + "\n").expect("the results");
    let read = std::fs::read_to_string(&file).expect("the results");
    let read: Value = serde_json::from_str(&read).expect("JSON");
    let new = table(read["rows"].as_array().map(Vec::as_slice).unwrap_or_default());
    let written = results.join("faults.md");
    std::fs::write(&written, &new).expect("the table");
    if std::env::var_os(ACCEPT).is_some() {
        std::fs::write(path(), &new).expect("docs/faults.md");
        return;
    }
    let old = std::fs::read_to_string(path()).unwrap_or_default();
    let (old, new) = (without_times(&old), without_times(&new));
    let mut lines = new.lines().zip(old.lines().chain(std::iter::repeat("")));
    let differing = lines.find(|(new, old)| new != old);
    assert!(
        old == new,
        "docs/faults.md differs in more than times; the first line that does (times are #):\n{differing:?}\nWhat was \
         seen is in {}; where it is as it should be, run again with {ACCEPT}=1, or copy that file to docs/faults.md",
        written.display()
    );
}

/// Compares some rows with the table that is there.
///
/// # Panics
/// Where one is not in it, times apart.
pub fn check_some(rows: &[Told]) {
    let old = without_times(&std::fs::read_to_string(path()).unwrap_or_default());
    for row in rows {
        let line = without_times(&line(&row.json()));
        assert!(
            old.lines().any(|old| old == line.trim_end()),
            "docs/faults.md does not hold this row (times are #); `cargo xtask test --slow` tells more:\n{line}"
        );
    }
}

fn table(rows: &[Value]) -> String {
    let mut text = HEAD.to_owned();
    let mut title = "";
    for row in rows {
        let of = row["title"].as_str().unwrap_or_default();
        if of != title {
            title = of;
            let _ = write!(
                text,
                "\n## {title}\n\n| fault | what the robot sees | reaction | how it recovers | what the log says |\n\
                 |---|---|---|---|---|\n"
            );
        }
        text += &line(row);
        text.push('\n');
    }
    text
}

fn line(row: &Value) -> String {
    let cell = |name: &str| {
        let text = row[name].as_str().unwrap_or_default().replace('|', "/");
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let reaction = row["reaction_ms"].as_f64();
    let reaction = reaction.map_or_else(|| "-".to_owned(), |ms| milliseconds(1e-3 * ms));
    format!(
        "| {} | {} | {reaction} | {} | {} |",
        cell("fault"),
        cell("robot_sees"),
        cell("recovers"),
        cell("log")
    )
}

/// The table with `#` for every time, and for what else differs from run to run in what the log says.
fn without_times(table: &str) -> String {
    let lines = table.lines().map(|line| match line.rsplit_once(" | ") {
        Some((cells, log)) => format!("{} | {}\n", masked(cells, &[]), masked(log, &COUNTED)),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// `#` for every number that a unit of time or one of these words follows.
fn masked(text: &str, words: &[&str]) -> String {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[at..].find(|c| !is_part(c)).map_or(rest.len(), |n| at + n);
        let after = &rest[end..];
        let unit = after.strip_prefix(' ').unwrap_or_default();
        let unit = unit
            .split(|c: char| !c.is_ascii_alphabetic())
            .next()
            .unwrap_or_default();
        let is_masked = TIMES.contains(&unit) || words.iter().any(|words| after.starts_with(words));
        out += &rest[..at];
        out += if is_masked { "#" } else { &rest[at..end] };
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::{line, without_times};

    #[test]
    fn only_times_and_what_the_log_counts_may_differ() {
        let text = "| -0.2 N m | 204 ms | in 1.5 s | 2 publishers (0.6 us an action) for 1499986.431 ms |";
        let masked = "| -0.2 N m | # ms | in # s | 2 publishers (# us an action) for # ms |\n";
        assert_eq!(without_times(text), masked);
        for (log, masked) in [
            (
                "counts 11 commands for the elbow",
                "counts # commands for the elbow",
            ),
            ("counts 50 missed ticks", "counts # missed ticks"),
            (
                "(54672 bytes): it announces 109344 bytes",
                "(# bytes): it announces # bytes",
            ),
            ("version 24 of run '...' for", "version # of run '...' for"),
        ] {
            assert_eq!(
                without_times(&format!("| a | {log} |")),
                format!("| a | {masked} |\n")
            );
        }
    }

    #[test]
    fn words_differ_beside_equal_times() {
        assert_ne!(
            without_times("| 204 ms | zero |"),
            without_times("| 204 ms | held |")
        );
    }

    #[test]
    fn every_other_number_has_to_be_the_same() {
        for text in [
            "| a | joint 'elbow' appears 2 times |",
            "| a | version 3 of run 'run-a' is not newer; expected above 4 |",
            "| a | position has 1 values for 2 names |",
            "| a | golden probe 1: component 0 of the action is 1; expected 1.1 +- 0.001 |",
            "| a | parameter stale_timeout is now 0.201 |",
            "| a | /joint_states has 2 publishers |",
            "| 11 commands for the elbow | b |",
        ] {
            for (at, _) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
                let other = format!("{}7{}", &text[..at], &text[at + 1..]);
                assert_ne!(without_times(&other), without_times(text), "{other}");
            }
        }
    }

    #[test]
    fn a_row_is_one_line_of_the_table() {
        let row = serde_json::json!({"fault": "a|b", "robot_sees": "c", "reaction_ms": 12.4, "recovers": "", "log": "d"});
        assert_eq!(line(&row), "| a/b | c | 12 ms | - | d |");
    }
}
