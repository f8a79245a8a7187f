//! What the graph knows and r2r does not ask: who subscribes to a topic, with which type and quality of service.
//!
//! r2r keeps its node's handle to itself, so that an [`Observer`] has a context and a node of its own: a participant more on
//! the network, with threads of its own, for as long as it lives.

use std::fmt;
use std::ptr::null;

use r2r::QosProfile;
use r2r_rcl::{
    rcl_context_fini, rcl_context_t, rcl_get_subscriptions_info_by_topic, rcl_get_zero_initialized_context,
    rcl_get_zero_initialized_init_options, rcl_get_zero_initialized_node, rcl_init, rcl_init_options_fini,
    rcl_init_options_init, rcl_node_fini, rcl_node_get_default_options, rcl_node_init, rcl_node_options_fini,
    rcl_node_t, rcl_shutdown, rcutils_get_default_allocator,
    rmw_get_zero_initialized_topic_endpoint_info_array, rmw_topic_endpoint_info_array_fini,
    rmw_topic_endpoint_info_t,
};

use crate::node::RosError;
use crate::rcl::{check, text, words};

/// The middleware's name of a node whose name has not arrived yet, or that is no node of ROS 2.
const UNKNOWN: &str = "_NODE_NAME_UNKNOWN_";
/// What an error of [`Observer::create`] was about.
const STARTING: &str = "starting an observer of the graph";
/// What one of [`Observer::subscriptions`] was about.
const LOOKING: &str = "looking at the subscriptions";

/// One end of a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Whose it is.
    pub owner: Owner,
    /// Type of its messages, as `std_msgs/msg/String`.
    pub kind: String,
    /// What it offers or requests.
    pub qos: QosProfile,
}

/// Whose an end of a topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A node, by its full name.
    Node(String),
    /// The name has not arrived yet, or it is a program that is no node of ROS 2.
    Unknown,
}

impl Owner {
    /// Of a node as the middleware tells it.
    pub fn of(namespace: &str, node: &str) -> Self {
        if node == UNKNOWN {
            return Self::Unknown;
        }
        Self::Node(format!("{}/{node}", namespace.trim_end_matches('/')))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node '{name}'"),
            Self::Unknown => f.write_str("a program that is no node of ROS 2"),
        }
    }
}

/// Looks at the graph; what has not been discovered yet is not seen.
pub struct Observer {
    node: Box<rcl_node_t>,
    /// `node` points to it.
    context: Box<rcl_context_t>,
}

impl Observer {
    /// An observer in the domain of the process, as a node that lists leave out: its name begins with an underscore.
    ///
    /// # Errors
    /// When rcl refuses the name, or the middleware does not start.
    pub fn create(name: &str) -> Result<Self, RosError> {
        let (name, namespace) = (text(name, STARTING)?, c"/");
        // SAFETY: none of these takes or follows a pointer.
        let (mut context, mut node, mut options, allocator) = unsafe {
            (
                Box::new(rcl_get_zero_initialized_context()),
                Box::new(rcl_get_zero_initialized_node()),
                rcl_get_zero_initialized_init_options(),
                rcutils_get_default_allocator(),
            )
        };
        // SAFETY: the options are zero-initialised, as they must be.
        let initialised = unsafe { rcl_init_options_init(&mut options, allocator) };
        check(initialised, STARTING)?;
        // SAFETY: no arguments are given, so that none are read; the options were initialised, the context is
        // zero-initialised, and lies in a box that does not move while it is in use.
        let started = unsafe { rcl_init(0, null(), &options, &mut *context) };
        // SAFETY: they were initialised, are finalised once, and rcl_init has copied what it keeps.
        let _ = unsafe { rcl_init_options_fini(&mut options) };
        // Where it fails, rcl has taken back what it had begun.
        check(started, STARTING)?;
        // SAFETY: takes no pointer.
        let mut options = unsafe { rcl_node_get_default_options() };
        options.enable_rosout = false;
        // SAFETY: the node is zero-initialised and boxed, both names end in zero and outlive the call, which copies them; the
        // context was initialised and lives, in its box, as long as the node: `drop` finalises the node first.
        let made = unsafe {
            rcl_node_init(
                &mut *node,
                name.as_ptr(),
                namespace.as_ptr(),
                &mut *context,
                &options,
            )
        };
        // SAFETY: the options came from rcl, were copied, and are finalised once.
        let _ = unsafe { rcl_node_options_fini(&mut options) };
        if let Err(error) = check(made, STARTING) {
            end(&mut context);
            return Err(error);
        }
        Ok(Self { node, context })
    }

    /// The subscriptions to a topic, by its full name, that have been discovered so far.
    ///
    /// # Errors
    /// When rcl refuses the name or cannot read the graph.
    pub fn subscriptions(&self, topic: &str) -> Result<Vec<Endpoint>, RosError> {
        let topic = text(topic, LOOKING)?;
        // SAFETY: neither takes or follows a pointer.
        let (mut found, mut allocator) = unsafe {
            (
                rmw_get_zero_initialized_topic_endpoint_info_array(),
                rcutils_get_default_allocator(),
            )
        };
        // SAFETY: the node was initialised and lives; the topic ends in zero and outlives the call; the array is
        // zero-initialised, and the allocator is the one that it is given back to.
        let answer = unsafe {
            rcl_get_subscriptions_info_by_topic(
                &*self.node,
                &mut allocator,
                topic.as_ptr(),
                false,
                &mut found,
            )
        };
        let endpoints = if found.info_array.is_null() {
            Vec::new()
        } else {
            // SAFETY: rcl has written `size` elements there, nobody else has the array, and their texts live as long as it.
            unsafe {
                let infos = std::slice::from_raw_parts(found.info_array, found.size);
                infos.iter().filter_map(|info| endpoint(info)).collect()
            }
        };
        // SAFETY: the array is rcl's or still zero, and finalised once; `endpoints` holds copies.
        let _ = unsafe { rmw_topic_endpoint_info_array_fini(&mut found, &mut allocator) };
        check(answer, LOOKING)?;
        Ok(endpoints)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is finalised once, before its context.
        let _ = unsafe { rcl_node_fini(&mut *self.node) };
        end(&mut self.context);
    }
}

/// Ends a context that `rcl_init` has started and that has no node any more.
fn end(context: &mut rcl_context_t) {
    // SAFETY: the caller's context was initialised, has no node, and is ended once.
    unsafe {
        let _ = rcl_shutdown(context);
        let _ = rcl_context_fini(context);
    }
}

/// One element of rcl's array, copied. `None` where its quality of service is none that r2r can read, on which it asserts.
///
/// # Safety
/// Its texts are null, or end in zero and are valid for the call.
unsafe fn endpoint(info: &rmw_topic_endpoint_info_t) -> Option<Endpoint> {
    let profile = info.qos_profile;
    let qos = std::panic::catch_unwind(|| QosProfile::from(profile)).ok()?;
    // SAFETY: the caller's promise.
    let (namespace, node, kind) = unsafe {
        (
            words(info.node_namespace),
            words(info.node_name),
            words(info.topic_type),
        )
    };
    Some(Endpoint {
        owner: Owner::of(&namespace, &node),
        kind,
        qos,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_is_no_node_is_called_so() {
        assert_eq!(Owner::of("/", "driver").to_string(), "node '/driver'");
        assert_eq!(Owner::of("/left/", "driver").to_string(), "node '/left/driver'");
        let unknown = Owner::of("_NODE_NAMESPACE_UNKNOWN_", UNKNOWN);
        assert_eq!(unknown.to_string(), "a program that is no node of ROS 2");
    }

    #[test]
    fn a_name_that_is_none_is_refused_and_leaves_nothing_behind() {
        for name in ["no name", "zero\0", ""] {
            let error = Observer::create(name).err().unwrap().to_string();
            assert!(error.contains("name"), "{error}");
        }
    }

    /// Observers come and go beside a context that stays, as in a node; each sees what another participant subscribes to.
    #[test]
    fn observers_come_and_go_beside_the_process_own_context() {
        let mut node = crate::create_node("observed").unwrap();
        let requested = QosProfile::default().best_effort();
        let topic = format!("/observed_by_{}", std::process::id());
        let _subscription = node
            .subscribe::<r2r::std_msgs::msg::String>(&topic, requested)
            .unwrap();
        for round in 0..20 {
            let observer = Observer::create("_observer").unwrap();
            // Every other one goes before it has seen anything.
            if round % 2 == 1 {
                continue;
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            let seen = loop {
                let seen = observer.subscriptions(&topic).unwrap();
                let is_known = seen.iter().any(|end| end.owner != Owner::Unknown);
                assert!(Instant::now() < deadline, "round {round}: {seen:?}");
                if is_known {
                    break seen;
                }
                std::thread::sleep(Duration::from_millis(10));
            };
            assert_eq!(seen.len(), 1, "{seen:?}");
            assert_eq!(seen[0].owner.to_string(), "node '/observed'");
            assert_eq!(seen[0].kind, "std_msgs/msg/String");
            let reliability = format!("{:?}", seen[0].qos.reliability);
            assert_eq!(reliability, "BestEffort");
            assert!(observer.subscriptions("/no\0topic").is_err());
            assert_eq!(observer.subscriptions("/nobody_listens").unwrap(), Vec::new());
        }
    }
}
