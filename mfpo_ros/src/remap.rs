//! The names that topics have on the network, after the remap rules of the command line (`-r joint_states:=/left/states`);
//! rcl itself reads and applies them. r2r applies them, too, where it subscribes, and does not tell.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use r2r_rcl::{
    rcl_arguments_fini, rcl_arguments_t, rcl_get_zero_initialized_arguments, rcl_parse_arguments, rcl_ret_t,
    rcutils_allocator_t, rcutils_get_default_allocator,
};

use crate::node::RosError;
use crate::rcl::{check, text, words};

// SAFETY: the signature is that of rcl/remap.h, which has not changed from Humble on; the library is linked by r2r, whose types
// these are.
unsafe extern "C" {
    /// Of rcl/remap.h, which r2r's bindings leave out; in every distribution from Humble on.
    ///
    /// # Safety
    /// `local` and `global` are null or arguments that rcl has initialised; the names end in zero; the allocator is one of
    /// rcutils'; `output` is writable, and null before. All of them outlive the call. What is written there is null or a string
    /// of this allocator, which the caller gives back to it.
    fn rcl_remap_topic_name(
        local: *const rcl_arguments_t,
        global: *const rcl_arguments_t,
        topic: *const c_char,
        node: *const c_char,
        namespace: *const c_char,
        allocator: rcutils_allocator_t,
        output: *mut *mut c_char,
    ) -> rcl_ret_t;
}

/// What an error of [`Remaps::topic`] was about.
const REMAPPING: &str = "remapping a topic's name";

/// The remap rules of this process.
pub struct Remaps {
    arguments: rcl_arguments_t,
    allocator: rcutils_allocator_t,
}

impl Remaps {
    /// Those of the command line.
    ///
    /// # Errors
    /// When rcl refuses an argument.
    pub fn of_this_process() -> Result<Self, RosError> {
        Self::of(std::env::args())
    }

    fn of(arguments: impl Iterator<Item = String>) -> Result<Self, RosError> {
        // An argument with a zero byte cannot come from a command line.
        let given: Vec<CString> = arguments.filter_map(|a| CString::new(a).ok()).collect();
        let pointers: Vec<*const c_char> = given.iter().map(|a| a.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
        // SAFETY: neither takes or follows a pointer.
        let (mut arguments, allocator) = unsafe {
            (
                rcl_get_zero_initialized_arguments(),
                rcutils_get_default_allocator(),
            )
        };
        // SAFETY: `pointers` holds `count` pointers to strings that end in zero and outlive the call, which copies what it
        // keeps; `arguments` is zero-initialised, as it must be.
        let parsed = unsafe { rcl_parse_arguments(count, pointers.as_ptr(), allocator, &mut arguments) };
        check(parsed, "reading the remap rules")?;
        Ok(Self { arguments, allocator })
    }

    /// The name of a topic of `node` in `namespace`; `topic` is its full name before any remapping.
    ///
    /// # Errors
    /// When rcl refuses a name.
    pub fn topic(&self, topic: &str, node: &str, namespace: &str) -> Result<String, RosError> {
        let (name, node, namespace) = (
            text(topic, REMAPPING)?,
            text(node, REMAPPING)?,
            text(namespace, REMAPPING)?,
        );
        let mut output: *mut c_char = null_mut();
        // SAFETY: the three names are strings that end in zero and outlive the call, the arguments were initialised by
        // `rcl_parse_arguments`, there may be no local ones, the allocator is rcutils' own, and `output` is null.
        let remapped = unsafe {
            rcl_remap_topic_name(
                null(),
                &self.arguments,
                name.as_ptr(),
                node.as_ptr(),
                namespace.as_ptr(),
                self.allocator,
                &mut output,
            )
        };
        check(remapped, REMAPPING)?;
        if output.is_null() {
            return Ok(topic.to_owned());
        }
        // SAFETY: rcl has written a string that ends in zero and is ours.
        let remapped = unsafe { words(output) };
        if let Some(deallocate) = self.allocator.deallocate {
            // SAFETY: `output` comes from this very allocator, and nothing points to it any more.
            unsafe { deallocate(output.cast::<c_void>(), self.allocator.state) };
        }
        Ok(remapped)
    }
}

impl Drop for Remaps {
    fn drop(&mut self) {
        // SAFETY: they were initialised by `rcl_parse_arguments` and are finalised once.
        let _ = unsafe { rcl_arguments_fini(&mut self.arguments) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remaps(line: &str) -> Remaps {
        Remaps::of(line.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn names_are_those_that_the_rules_of_the_command_line_give() {
        let remaps = remaps(
            "control --ros-args -r joint_states:=states -r policy/bundle:=/trainer/bundle -p rate:=5.0",
        );
        let topic = |name| remaps.topic(name, "control_loop", "/left").unwrap();
        assert_eq!(topic("/left/joint_states"), "/left/states");
        assert_eq!(topic("/left/policy/bundle"), "/trainer/bundle");
        assert_eq!(topic("/left/enable"), "/left/enable");
    }

    #[test]
    fn a_rule_for_one_node_is_for_no_other() {
        let remaps = remaps("control --ros-args -r control_loop:joint_states:=/states");
        let topic = |node| remaps.topic("/joint_states", node, "/").unwrap();
        assert_eq!(
            (topic("control_loop").as_str(), topic("control").as_str()),
            ("/states", "/joint_states")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert!(remaps("control").topic("/joint\0states", "control", "/").is_err());
    }
}
