//! Which ROS 2 this workspace is built with: the one that is sourced, else the pinned wheels.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::environment;

/// The distribution that the wheels hold.
pub const WHEELS_DISTRO: &str = "kilted";

/// The processors that the wheels are for, as `std::env::consts::ARCH` names them.
const WHEELS_PROCESSOR: &str = "x86_64";

/// What a shell on another processor types before the set-up.
pub const SOURCE_LINE: &str = "source /opt/ros/jazzy/setup.bash";

/// What r2r has to be told for a distribution: it has no name for kilted, which the jazzy bindings fit.
pub fn distro_for_r2r(distro: &str) -> &str {
    if distro == "kilted" { "jazzy" } else { distro }
}

/// Where ROS 2 comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ros {
    /// A ROS 2 that the user has sourced, used as it is.
    Sourced {
        /// Name of the distribution, as `jazzy`.
        distro: String,
        /// AMENT_PREFIX_PATH without what lies in this repository or in the set-up of another clone.
        prefixes: Vec<PathBuf>,
    },
    /// The wheels that the set-up installs.
    Wheels,
}

impl Ros {
    /// The one of the shell that started this, for the repository `root`.
    ///
    /// # Errors
    /// See [`Ros::detect`].
    pub fn of_shell(root: &Path) -> Result<Self> {
        let value = |name| env::var(name).ok();
        Self::detect(
            root,
            value("AMENT_PREFIX_PATH").as_deref(),
            value("ROS_DISTRO").as_deref(),
        )
    }

    /// Reads AMENT_PREFIX_PATH (`ament`); prefixes inside of the repository `root` or of the set-up of another clone are
    /// our own, not the user's. ROS_DISTRO counts only where the prefixes themselves do not say what they are: for cargo,
    /// .deps/cargo.toml may have set it.
    ///
    /// # Errors
    /// When it names prefixes of which none holds a ROS 2 that this can name.
    pub fn detect(root: &Path, ament: Option<&str>, ros_distro: Option<&str>) -> Result<Self> {
        let prefixes: Vec<PathBuf> = ament
            .unwrap_or_default()
            .split(':')
            .filter(|prefix| !prefix.is_empty())
            .map(PathBuf::from)
            .filter(|prefix| !prefix.starts_with(root) && !environment::is_of_set_up(prefix))
            .collect();
        if prefixes.is_empty() {
            return Ok(Self::Wheels);
        }
        let distro = named(&prefixes, ros_distro)?;
        Ok(Self::Sourced { distro, prefixes })
    }

    /// Whether it can be had on `processor`: there are wheels for one alone.
    pub fn exists_for(&self, processor: &str) -> bool {
        *self != Self::Wheels || processor == WHEELS_PROCESSOR
    }

    /// Refuses wheels that do not exist for `processor`.
    ///
    /// # Errors
    /// When they do not.
    pub fn require_for(&self, processor: &str) -> Result<()> {
        if self.exists_for(processor) {
            return Ok(());
        }
        bail!(
            "ROS 2 as wheels: expected a processor {WHEELS_PROCESSOR}, got {processor}; install ROS 2 Jazzy \
             (docs.ros.org), source it in this shell, as `{SOURCE_LINE}`, and run the command again"
        )
    }

    /// Name of the distribution.
    pub fn distro(&self) -> &str {
        match self {
            Self::Sourced { distro, .. } => distro,
            Self::Wheels => WHEELS_DISTRO,
        }
    }
}

/// The distribution of `prefixes`, or ROS_DISTRO where they hold one that does not say what it is.
fn named(prefixes: &[PathBuf], ros_distro: Option<&str>) -> Result<String> {
    if let Some(distro) = prefixes.iter().find_map(|prefix| distro_in(prefix)) {
        return Ok(distro);
    }
    let Some(base) = prefixes.iter().find(|prefix| has_rcl(prefix)) else {
        bail!(
            "AMENT_PREFIX_PATH is set, but no ROS 2 is in it: {}; source the setup.bash of a ROS 2, or `unset \
             AMENT_PREFIX_PATH` to use the wheels",
            env::join_paths(prefixes).unwrap_or_default().to_string_lossy()
        );
    };
    match ros_distro.filter(|name| is_known(name)) {
        Some(distro) => Ok(distro.to_owned()),
        None => bail!(
            "the ROS 2 in {} does not say which distribution it is; expected ROS_DISTRO beside AMENT_PREFIX_PATH, one \
             of {}, got '{}'; source the setup.bash of that ROS 2, or `unset AMENT_PREFIX_PATH` to use the wheels",
            base.display(),
            KNOWN.join(", "),
            ros_distro.unwrap_or_default()
        ),
    }
}

/// Distributions that r2r has bindings for, and the one that the jazzy bindings fit.
const KNOWN: [&str; 6] = ["humble", "iron", "jazzy", "kilted", "lyrical", "rolling"];

fn is_known(distro: &str) -> bool {
    KNOWN.contains(&distro)
}

fn has_rcl(prefix: &Path) -> bool {
    prefix.join("lib/librcl.so").exists()
}

/// The distribution installed in `prefix`, as its own files or, where it is one, its name say.
fn distro_in(prefix: &Path) -> Option<String> {
    let hook = prefix.join("share/ros_environment/environment/1.ros_distro.sh");
    let from_hook = fs::read_to_string(hook).ok().and_then(|text| {
        let (_, value) = text.split_once("ROS_DISTRO=")?;
        let name: String = value
            .trim_start_matches('"')
            .chars()
            .take_while(char::is_ascii_lowercase)
            .collect();
        (!name.is_empty()).then_some(name)
    });
    from_hook.or_else(|| {
        let name = prefix.file_name()?.to_string_lossy().into_owned();
        (has_rcl(prefix) && is_known(&name)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Ros;
    use crate::environment::BASH_MARK;

    fn install(prefix: &Path, distro: &str) {
        let hooks = prefix.join("share/ros_environment/environment");
        fs::create_dir_all(&hooks).expect("a folder");
        fs::write(
            hooks.join("1.ros_distro.sh"),
            format!("# hook\nexport ROS_DISTRO={distro}\n"),
        )
        .expect("a file");
    }

    #[test]
    fn nothing_sourced_means_the_wheels() {
        for ament in [
            None,
            Some(""),
            Some("/repo/.deps/overlay/x:/repo/.deps/venv"),
            Some("/repo/install/mfpo_msgs"),
        ] {
            // .deps/cargo.toml sets ROS_DISTRO for the wheels.
            assert_eq!(
                Ros::detect(Path::new("/repo"), ament, Some("jazzy")).expect("detected"),
                Ros::Wheels
            );
        }
    }

    #[test]
    fn sourced_distribution_is_named_by_its_own_files_and_used_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let distro = folder.path().join("opt/ros");
        install(&distro, "humble");
        let ament = format!(
            "/repo/.deps/overlay/x:/home/me/ws/install/thing:{}",
            distro.display()
        );
        let ros = Ros::detect(Path::new("/repo"), Some(&ament), None).expect("detected");
        let prefixes = vec!["/home/me/ws/install/thing".into(), distro];
        assert_eq!(
            ros,
            Ros::Sourced {
                distro: "humble".into(),
                prefixes
            }
        );
    }

    #[test]
    fn prefix_path_without_a_ros_is_refused_with_what_to_type() {
        let error = Ros::detect(Path::new("/repo"), Some("/nowhere/here"), Some("jazzy"))
            .expect_err("no ROS there")
            .to_string();
        assert!(
            error.contains("/nowhere/here") && error.contains("unset AMENT_PREFIX_PATH"),
            "{error}"
        );
    }

    #[test]
    fn only_a_sourced_ros_is_used_where_there_are_no_wheels() {
        let sourced = Ros::Sourced {
            distro: "jazzy".into(),
            prefixes: Vec::new(),
        };
        for processor in ["x86_64", "aarch64"] {
            sourced.require_for(processor).expect("it is there");
        }
        Ros::Wheels.require_for("x86_64").expect("there are wheels");
        let error = Ros::Wheels
            .require_for("aarch64")
            .expect_err("no wheels")
            .to_string();
        assert!(
            error.contains("aarch64") && error.contains("source /opt/ros/jazzy/setup.bash"),
            "{error}"
        );
    }

    #[test]
    fn set_up_of_another_clone_is_no_ros_of_the_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let deps = folder.path().join("other clone/.deps");
        let (venv, overlay) = (deps.join("venv"), deps.join("overlay/kilted-1"));
        for prefix in [&venv, &overlay] {
            fs::create_dir_all(prefix.join("lib")).expect("a folder");
            fs::write(prefix.join("lib/librcl.so"), "").expect("a file");
        }
        let ament = format!("{}:{}", overlay.display(), venv.display());
        let detect = |ament: &str| Ros::detect(Path::new("/repo"), Some(ament), None);
        assert!(detect(&ament).is_err(), "some other program's .deps");
        fs::write(deps.join("setup.bash"), "# Something else.\n").expect("a file");
        assert!(detect(&ament).is_err(), "some other program's setup.bash");
        fs::write(deps.join("setup.bash"), format!("{BASH_MARK}\n")).expect("a file");
        assert_eq!(detect(&ament).expect("detected"), Ros::Wheels);
        let distro = folder.path().join("opt/ros");
        install(&distro, "humble");
        let ros = detect(&format!("{ament}:{}", distro.display())).expect("detected");
        let prefixes = vec![distro];
        assert_eq!(
            ros,
            Ros::Sourced {
                distro: "humble".into(),
                prefixes
            }
        );
    }

    #[test]
    fn sourced_ros_that_does_not_say_what_it_is_wants_ros_distro() {
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = |name: &str| {
            let prefix = folder.path().join(name);
            fs::create_dir_all(prefix.join("lib")).expect("a folder");
            fs::write(prefix.join("lib/librcl.so"), "").expect("a file");
            prefix.to_string_lossy().into_owned()
        };
        let detect = |ament: &str, distro| Ros::detect(Path::new("/repo"), Some(ament), distro);
        assert_eq!(detect(&prefix("iron"), None).expect("its name").distro(), "iron");
        let own = prefix("my_ros");
        assert_eq!(detect(&own, Some("humble")).expect("told").distro(), "humble");
        for distro in [None, Some(""), Some("noetic")] {
            let error = detect(&own, distro).expect_err("nothing names it").to_string();
            for word in [
                own.as_str(),
                "ROS_DISTRO",
                "humble",
                "setup.bash",
                "unset AMENT_PREFIX_PATH",
            ] {
                assert!(error.contains(word), "{word}: {error}");
            }
            assert!(
                error.contains(&format!("got '{}'", distro.unwrap_or_default())),
                "{error}"
            );
        }
    }

    #[test]
    fn only_kilted_has_another_name_for_r2r() {
        assert_eq!(super::distro_for_r2r("kilted"), "jazzy");
        assert_eq!(super::distro_for_r2r("humble"), "humble");
    }
}
