//! Parameter files of the command line (`--ros-args --params-file FILE`) and the nodes that they are for. A file whose
//! sections are for other names gives a node nothing, and rcl says nothing of it, so that it is told here.

use std::slice::from_raw_parts;

use r2r_rcl::{
    RCL_RET_ERROR, rcl_parse_yaml_file, rcl_ret_t, rcl_yaml_node_struct_fini, rcl_yaml_node_struct_init,
    rcutils_get_default_allocator,
};

use crate::args::params_files;
use crate::node::RosError;
use crate::rcl::{check, text, words};

/// What an error was about.
const READING: &str = "reading a parameter file";
/// Sections that are for every node.
const FOR_ALL: [&str; 2] = ["/**", "**"];

/// A parameter file of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamsFile {
    path: String,
    /// The names of nodes that it has sections for.
    sections: Vec<String>,
}

impl ParamsFile {
    /// Those of the command line, in order.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn of_this_process() -> Result<Vec<Self>, RosError> {
        let files = params_files(std::env::args());
        files.into_iter().map(Self::read).collect()
    }

    fn read(path: String) -> Result<Self, RosError> {
        let name = text(&path, READING)?;
        // SAFETY: neither takes a pointer; what is made is given back below.
        let parameters = unsafe { rcl_yaml_node_struct_init(rcutils_get_default_allocator()) };
        if parameters.is_null() {
            return Err(RosError::Rcl {
                doing: READING,
                reason: "there is no memory".to_owned(),
            });
        }
        // SAFETY: the path ends in zero and outlives the call; `parameters` was initialised and nobody else has it.
        let is_read = unsafe { rcl_parse_yaml_file(name.as_ptr(), parameters) };
        let answer = if is_read { 0 } else { RCL_RET_ERROR as rcl_ret_t };
        let checked = check(answer, READING);
        // SAFETY: rcl has written `num_nodes` texts there, or none, which end in zero and live as long as `parameters`.
        let sections = unsafe {
            let (names, count) = ((*parameters).node_names, (*parameters).num_nodes);
            if names.is_null() {
                Vec::new()
            } else {
                from_raw_parts(names, count)
                    .iter()
                    .map(|name| words(*name))
                    .collect()
            }
        };
        // SAFETY: it was initialised, and is finalised once; `sections` holds copies.
        unsafe { rcl_yaml_node_struct_fini(parameters) };
        checked.map(|()| Self { path, sections })
    }

    /// That it holds nothing for the node of this name and full name, where that is so.
    pub fn ignored_by(&self, name: &str, full: &str) -> Option<String> {
        let is_for =
            |section: &String| FOR_ALL.contains(&section.as_str()) || section == name || section == full;
        if self.sections.iter().any(is_for) {
            return None;
        }
        Some(format!(
            "parameter file '{}' holds nothing for this node and is left out: it has sections for [{}], expected one for \
             '{full}', '{name}' or '/**'",
            self.path,
            self.sections.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, yaml: &str) -> String {
        let path = std::env::temp_dir().join(format!("mfpo_ros_{}_{name}.yaml", std::process::id()));
        std::fs::write(&path, yaml).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_file_for_another_node_is_named_with_its_sections_and_what_is_expected() {
        let path = file(
            "other",
            "/left/control:\n  ros__parameters:\n    rate: 50.0\narm:\n  ros__parameters:\n    rate: 1.0\n",
        );
        let read = ParamsFile::read(path.clone()).unwrap();
        let words = read.ignored_by("control", "/right/control").unwrap();
        for part in [
            path.as_str(),
            "/left/control",
            "arm",
            "'/right/control', 'control' or '/**'",
        ] {
            assert!(words.contains(part), "{words}");
        }
        assert_eq!(read.ignored_by("control", "/left/control"), None);
        assert_eq!(read.ignored_by("arm", "/right/arm"), None);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_for_every_node_is_for_this_one() {
        let path = file("all", "/**:\n  ros__parameters:\n    rate: 50.0\n");
        let read = ParamsFile::read(path.clone()).unwrap();
        assert_eq!(read.ignored_by("control", "/control"), None);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let error = ParamsFile::read("/nowhere/params.yaml".to_owned()).unwrap_err();
        assert!(error.to_string().contains("reading a parameter file"), "{error}");
    }
}
