//! Where the numbers of a configuration come from: built-in texts, files, `--set`; each lies over what was before.

use std::path::Path;

use toml::{Table, Value};

use super::{ConfigError, closest};

/// The configurations that travel inside the program: name, text.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("swing_arm", include_str!("../../configs/swing_arm.toml")),
    ("reach_arm", include_str!("../../configs/reach_arm.toml")),
    ("HalfCheetah-v5", include_str!("../../configs/half_cheetah.toml")),
    (DEFAULT, include_str!("../../configs/paper.toml")),
];

/// The built-in configuration of a task that has none of its own.
pub(super) const DEFAULT: &str = "paper";

/// The names of the built-in configurations, separated by commas.
pub fn built_in_names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

/// One that has no section `run` says only what differs from [`DEFAULT`].
pub(super) fn built_in(name: &str) -> Option<Table> {
    let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
    let table: Table = text.parse().ok()?;
    if table.contains_key("run") {
        return Some(table);
    }
    let mut base = built_in(DEFAULT)?;
    merge(&mut base, table);
    Some(base)
}

pub(super) fn read(path: &str) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(Path::new(path)).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
        closest: near(Path::new(path)),
    })?;
    table(path, &text)
}

/// What somebody may have meant by `path`: the configuration in that folder, else the TOML file beside it or the
/// built-in name that its name resembles most.
fn near(path: &Path) -> Option<String> {
    let stored = path.join("config.toml");
    if stored.is_file() {
        return Some(stored.display().to_string());
    }
    let stem = |path: &Path| Some(path.file_stem()?.to_string_lossy().into_owned());
    let folder = path.parent().unwrap_or(Path::new(""));
    let here = folder.as_os_str().is_empty().then_some(Path::new("."));
    let entries = std::fs::read_dir(here.unwrap_or(folder)).into_iter().flatten();
    let files = entries.flatten().map(|entry| folder.join(entry.file_name()));
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
    let mut known: Vec<(String, String)> = BUILT_IN
        .map(|(name, _)| (name.to_owned(), name.to_owned()))
        .into();
    known.extend(files.filter_map(|file| Some((stem(&file)?, file.display().to_string()))));
    known.sort();
    let name = closest(&stem(path)?, known.iter().map(|(name, _)| name.as_str()))?;
    let meant = known.into_iter().rfind(|(known, _)| *known == name);
    meant.map(|(_, shown)| shown)
}

pub(super) fn table(path: &str, text: &str) -> Result<Table, ConfigError> {
    let mut table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    leave_out_own_delay(&mut table);
    Ok(table)
}

/// Programs that could not leave the delay out stored all ranges, and 8 ms alone for the task's own. Today a
/// shortest delay of 0 is not stored, so that the 8 ms of a run of today are those that somebody asked for.
fn leave_out_own_delay(table: &mut Table) {
    let Some(Value::Table(environment)) = table.get_mut("environment") else {
        return;
    };
    let others = [
        "action_delay_min",
        "position_noise",
        "velocity_noise",
        "mass",
        "damping",
        "effort",
    ];
    let is = |key: &str, number: f64| environment.get(key).and_then(Value::as_float) == Some(number);
    if is("action_delay_max", 0.008) && others.iter().all(|key| is(key, 0.0)) {
        environment.remove("action_delay_max");
    }
}

/// Lays `over` on `base`, key by key.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Applies `section.key=value`; a value that is not TOML is taken as a string.
pub(super) fn apply_override(table: &mut Table, text: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Override(text.to_owned());
    let (path, value) = text.split_once('=').ok_or_else(malformed)?;
    let (section, key) = path.trim().split_once('.').ok_or_else(malformed)?;
    let value = parse_value(value.trim());
    // What people try first; from there on it is learnt.
    let key = match (section, key) {
        ("learner" | "sac", "temperature") => "initial_temperature",
        _ => key,
    };
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let section = section.as_table_mut().ok_or_else(malformed)?;
    let value = as_before(section.get(key), value);
    section.insert(key.to_owned(), value);
    Ok(())
}

/// A whole number in place of a whole number, also where it is written as 1e6.
fn as_before(before: Option<&Value>, value: Value) -> Value {
    let whole = value.as_float();
    let whole = whole.filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
    match whole {
        Some(number) if before.and_then(Value::as_integer).is_some() => Value::Integer(number as i64),
        _ => value,
    }
}

fn parse_value(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
