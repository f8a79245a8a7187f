//! How a program of this workspace reaches others: by UDP alone, without the shared memory of Fast DDS, unless the user has
//! chosen.
//!
//! Shared memory saves some microseconds a message and can cost a robot its loop. Whoever discovers the first endpoint of
//! another program of the machine tries that program's port, and waits for it - a third of a second at a time, the program
//! being idle, frozen or gone - with locks held that every publisher and every receiving thread of its own process needs (Fast DDS
//! 3.2.2: `SharedMemGlobal::Port::healthy_check` below `PDP::addReaderProxyData`; eProsima/Fast-DDS issue 6535). A `ros2 topic
//! echo` that somebody starts is enough.
//!
//! Fast DDS and rmw read environment variables, so that is what [`settle`] sees to. Where ROS 2 is to keep to this machine
//! (`ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST`), rmw brings a shared memory of its own, whatever `FASTDDS_BUILTIN_TRANSPORTS`
//! says; there a profile does what rmw does for that range, without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use crate::environment::restart_with;

use tracing::{info, warn};

/// Transports by name; where it is set, the user has chosen.
const BUILT_IN: &str = "FASTDDS_BUILTIN_TRANSPORTS";
/// The file with settings of Fast DDS 3, and of Fast DDS 2 (Humble, Jazzy).
const PROFILES: [&str; 2] = ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"];
/// The same without a variable, in the working folder.
const PROFILES_HERE: [&str; 2] = ["DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml"];
/// Fast DDS goes by these before every other.
const STRONGER: [&str; 2] = ["ROS2_EASY_MODE", "FASTDDS_ENVIRONMENT_FILE"];
const MIDDLEWARE: &str = "RMW_IMPLEMENTATION";
const RANGE: &str = "ROS_AUTOMATIC_DISCOVERY_RANGE";
const LOCALHOST_ONLY: &str = "ROS_LOCALHOST_ONLY";
const STATIC_PEERS: &str = "ROS_STATIC_PEERS";

/// What rmw_fastrtps sets for the range LOCALHOST - no multicast, 32 participants looked for on this machine - without its
/// shared memory, and with an announcement every 0.3 s in place of 3 s.
///
/// A program that starts announces itself before it listens (Fast DDS 3.2.2: `RTPSParticipantImpl::enable` registers its
/// receivers last), so that the only answer of those who are there already can get lost: in a third of the starts here. It then finds them by
/// their next periodic announcement: 0 to 3 s later where nothing else is said, among them a robot whose controller was
/// killed and started again. That costs each program 0.9 ms of processor time a second, in a thread of Fast DDS.
pub const THIS_MACHINE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>udp</transport_id>
        <type>UDPv4</type>
        <maxInitialPeersRange>32</maxInitialPeersRange>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="this_machine" is_default_profile="true">
      <rtps>
        <userTransports><transport_id>udp</transport_id></userTransports>
        <useBuiltinTransports>false</useBuiltinTransports>
        <builtin>
          <discovery_config>
            <leaseAnnouncement><sec>0</sec><nanosec>300000000</nanosec></leaseAnnouncement>
          </discovery_config>
          <metatrafficUnicastLocatorList><locator><udpv4/></locator></metatrafficUnicastLocatorList>
          <initialPeersList><locator><udpv4><address>127.0.0.1</address></udpv4></locator></initialPeersList>
        </builtin>
      </rtps>
    </participant>
  </profiles>
</dds>
"#;

/// Why a process uses what its middleware brings, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// The user, or the middleware that the user has chosen, wants it so.
    Chosen(String),
    /// Nobody wants it so.
    Hindered(String),
}

/// What it takes to have UDP alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Nothing: it is so already, by the process that has started this one or by the user.
    Nothing,
    BuiltIn,
    Profile,
}

static SETTLED: OnceLock<Result<(), Why>> = OnceLock::new();

/// Leaves this process UDP alone, unless the user has chosen transports: for this it may begin anew
/// ([`restart_with`]), so call it early in `main`, behind the command line. The first node that is created tells the log what
/// it came to.
pub fn settle() {
    SETTLED.get_or_init(|| {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let here = PROFILES_HERE.into_iter().find(|name| Path::new(name).exists());
        means(variable, here)
            .map_err(Why::Chosen)
            .and_then(|means| restart_by(means, variable).map_err(Why::Hindered))
    });
}

/// Tells the log, once and behind the first node, what came of [`settle`].
pub(crate) fn tell() {
    static TOLD: Once = Once::new();
    let Some(settled) = SETTLED.get() else { return };
    TOLD.call_once(|| match (settled, shares_memory()) {
        (_, false) => info!("no shared memory of Fast DDS in use: nobody else can hold this program up by it"),
        (Err(Why::Chosen(why)), true) => info!(
            "Fast DDS' shared memory in use, because {why}; another ROS 2 program that starts or hangs can hold this one up"
        ),
        (settled, true) => {
            let why = match settled {
                Err(Why::Hindered(why)) => why,
                _ => "the middleware does not go by its variables",
            };
            warn!(
                "Fast DDS' shared memory in use ({why}): another ROS 2 program that starts or hangs can hold this one up; set \
                 ROS_HOME to a folder that this program may write to, or {BUILT_IN}=UDPv4 (of no use with \
                 {RANGE}=LOCALHOST), or a profile of your own ({})",
                PROFILES[0]
            );
        }
    });
}

/// Has this process memory that Fast DDS shares with others?
fn shares_memory() -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    ["/fastdds_", "/fastrtps_"].iter().any(|name| maps.contains(name))
}

/// The variables that let a process which keeps to this machine reach others by UDP alone, [`THIS_MACHINE`] being at `path`,
/// under the distribution `distro` (`ROS_DISTRO`).
#[must_use]
pub fn on_this_machine(distro: Option<&str>, path: &str) -> Vec<(&'static str, String)> {
    // Every other range has transports of its own. The profile is Fast DDS' own, and nothing else would keep another
    // middleware to this machine now.
    let mut variables = vec![
        (RANGE, "SYSTEM_DEFAULT".to_owned()),
        (MIDDLEWARE, "rmw_fastrtps_cpp".to_owned()),
    ];
    variables.extend(profiles_of(distro).iter().map(|name| (*name, path.to_owned())));
    variables
}

/// Where the Fast DDS that this program has loaded, or that lies on the path of libraries, looks for its file, or else that of
/// the distribution: rmw warns of the older variable under the newer one.
fn profiles_of(distro: Option<&str>) -> &'static [&'static str] {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let folders = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let is_there = |library: &str| {
        let on_the_path = |folder: PathBuf| folder.join(library).exists();
        maps.contains(&format!("/{library}")) || std::env::split_paths(&folders).any(on_the_path)
    };
    let (new, old) = (&PROFILES[..1], &PROFILES[1..]);
    match distro {
        _ if is_there("libfastdds.so") => new,
        _ if is_there("libfastrtps.so") => old,
        Some("humble" | "iron" | "jazzy") => old,
        Some(_) => new,
        None => &PROFILES,
    }
}

/// Is this the path of [`THIS_MACHINE`]?
fn is_ours(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == THIS_MACHINE)
}

/// What it takes, by the environment and a file of settings in the working folder; an error says what the user has chosen.
fn means(variable: impl Fn(&str) -> Option<String>, here: Option<&str>) -> Result<Means, String> {
    let told = |name: &str| variable(name).map(|value| format!("{name} is '{value}'"));
    if let Some(other) = told(MIDDLEWARE).filter(|told| !told.contains("'rmw_fastrtps")) {
        return Err(other);
    }
    if let Some(stronger) = STRONGER.into_iter().find_map(told) {
        return Err(stronger);
    }
    let distro = variable("ROS_DISTRO");
    let range = variable(RANGE).unwrap_or_default();
    // As rcl has it: what it does not know is this machine, too.
    let is_only_here = variable(LOCALHOST_ONLY).is_some_and(|value| value == "1");
    let is_here = is_only_here || !["", "OFF", "SUBNET", "SYSTEM_DEFAULT"].contains(&range.as_str());
    let means = if is_here { Means::Profile } else { Means::BuiltIn };
    let profiles = profiles_of(distro.as_deref());
    if profiles
        .iter()
        .filter_map(|name| variable(name))
        .any(|path| is_ours(&path))
    {
        return Ok(if is_here { Means::Profile } else { Means::Nothing });
    }
    match variable(BUILT_IN).as_deref() {
        Some("UDPv4") if !is_here => return Ok(Means::Nothing),
        None | Some("UDPv4") => {}
        Some(other) => return Err(format!("{BUILT_IN} is '{other}'")),
    }
    if let Some(chosen) = PROFILES.into_iter().find_map(told) {
        return Err(chosen);
    }
    if let Some(name) = here {
        return Err(format!("{name} is in the working folder"));
    }
    if is_here && distro.as_deref() == Some("humble") {
        return Err("ROS_DISTRO is 'humble', which has its own way to keep to this machine".to_owned());
    }
    if is_here
        && !is_only_here
        && let Some(peers) = told(STATIC_PEERS)
    {
        return Err(format!("{peers} while {RANGE} is '{range}'"));
    }
    Ok(means)
}

/// Begins anew where that takes it; an error says why it cannot.
fn restart_by(means: Means, variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let restarted = match means {
        Means::Nothing => Ok(()),
        Means::BuiltIn => restart_with(&[(BUILT_IN, Some("UDPv4"))]),
        Means::Profile => {
            let path = profile(&variable)?;
            let variables = on_this_machine(variable("ROS_DISTRO").as_deref(), &path);
            let mut wanted: Vec<_> = variables
                .iter()
                .map(|(name, value)| (*name, Some(value.as_str())))
                .collect();
            wanted.push((LOCALHOST_ONLY, None));
            restart_with(&wanted)
        }
    };
    restarted.map_err(|error| format!("this program cannot begin anew: {error}"))
}

/// The path of [`THIS_MACHINE`] below the user's folder of ROS 2, or that of the session, where it is written unless it is
/// there already: Fast DDS takes no file that has no name.
fn profile(variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let below_home = || variable("HOME").map(|home| format!("{home}/.ros"));
    let homes = [
        variable("ROS_HOME").or_else(below_home),
        variable("XDG_RUNTIME_DIR"),
    ];
    let mut why = "neither HOME nor XDG_RUNTIME_DIR names a folder, and Fast DDS needs a file".to_owned();
    for home in homes.into_iter().flatten() {
        let folder = format!("{home}/mfpo");
        let path = format!("{folder}/fast_dds_udp_on_this_machine.xml");
        if is_ours(&path) {
            return Ok(path);
        }
        // Whoever reads it meanwhile finds all of it.
        let new = format!("{path}.{}", std::process::id());
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&new, THIS_MACHINE))
            .and_then(|()| fs::rename(&new, &path));
        match written {
            Ok(()) => return Ok(path),
            Err(error) => why = format!("cannot write {path}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Means, String> {
        let value = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        means(value, None)
    }

    #[test]
    fn nobody_has_chosen_so_it_is_udp_alone() {
        for variables in [
            &[][..],
            &[(MIDDLEWARE, "rmw_fastrtps_cpp"), ("ROS_DISTRO", "kilted")],
            &[(RANGE, "SUBNET"), (STATIC_PEERS, "192.168.1.7")],
            &[(RANGE, "SYSTEM_DEFAULT"), (LOCALHOST_ONLY, "0")],
            &[(RANGE, "OFF")],
            &[("ROS_DISTRO", "humble")],
        ] {
            assert_eq!(of(variables), Ok(Means::BuiltIn), "{variables:?}");
        }
        for variables in [
            &[(RANGE, "LOCALHOST")][..],
            // rcl knows neither.
            &[(RANGE, "localhost")],
            &[(RANGE, "Subnet")],
            &[(LOCALHOST_ONLY, "1")],
            &[
                (LOCALHOST_ONLY, "1"),
                (RANGE, "OFF"),
                (STATIC_PEERS, "192.168.1.7"),
            ],
            // Where it keeps to this machine the middleware does not go by that variable.
            &[(RANGE, "LOCALHOST"), (BUILT_IN, "UDPv4")],
        ] {
            assert_eq!(of(variables), Ok(Means::Profile), "{variables:?}");
        }
    }

    #[test]
    fn whoever_has_chosen_keeps_it() {
        for variables in [
            &[(MIDDLEWARE, "rmw_cyclonedds_cpp")][..],
            &[(BUILT_IN, "DEFAULT")],
            &[(RANGE, "LOCALHOST"), (BUILT_IN, "SHM")],
            &[(BUILT_IN, "UDPv4"), ("ROS2_EASY_MODE", "192.168.1.7")],
            &[("FASTDDS_ENVIRONMENT_FILE", "/etc/robot.json")],
            &[(PROFILES[0], "/etc/robot.xml")],
            &[(PROFILES[1], "/etc/robot.xml")],
            &[(LOCALHOST_ONLY, "1"), ("ROS_DISTRO", "humble")],
            &[(RANGE, "LOCALHOST"), (STATIC_PEERS, "192.168.1.7")],
        ] {
            let why = of(variables).expect_err(&format!("{variables:?}"));
            assert!(why.contains(variables.last().expect("a variable").1), "{why}");
        }
        let why = means(|_| None, Some(PROFILES_HERE[0])).expect_err("a file of the user's");
        assert!(why.contains(PROFILES_HERE[0]), "{why}");
    }

    #[test]
    fn without_a_place_for_its_file_it_says_so() {
        let why = profile(|_| None).expect_err("no folder");
        assert!(why.contains("HOME"), "{why}");
        let why =
            profile(|name| (name == "HOME").then(|| "/proc".to_owned())).expect_err("no place to write");
        assert!(why.contains("cannot write /proc/.ros/mfpo/"), "{why}");
    }

    #[test]
    fn a_process_that_was_started_with_udp_alone_needs_nothing() {
        assert_eq!(of(&[(BUILT_IN, "UDPv4")]), Ok(Means::Nothing));
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().to_string_lossy().into_owned();
        let home = |name: &str| match name {
            "ROS_HOME" => Some("/proc".to_owned()),
            "XDG_RUNTIME_DIR" => Some(folder.clone()),
            _ => None,
        };
        let path = profile(home).expect("a file");
        assert_eq!(profile(home), Ok(path.clone()), "it is there already");
        for distro in [None, Some("jazzy"), Some("kilted")] {
            let mut variables = on_this_machine(distro, &path);
            variables.extend(distro.map(|distro| ("ROS_DISTRO", distro.to_owned())));
            let mut variables: Vec<_> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
            assert_eq!(of(&variables), Ok(Means::Nothing), "{variables:?}");
            // The file alone does not do it.
            variables.retain(|(name, _)| *name != RANGE);
            variables.push((RANGE, "LOCALHOST"));
            assert_eq!(of(&variables), Ok(Means::Profile), "{variables:?}");
        }
    }
}
