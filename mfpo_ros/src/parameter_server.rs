//! The six parameter services and `/parameter_events`, as `ros2 param` and rclcpp's and rclpy's clients use them.
//!
//! r2r has services of its own, without ranges, read-only marks and events, and on a task that nobody can ask first.
//! Here requests come as values ([`ParameterServer::next`]) and are answered between other work, so that a set takes
//! effect before its answer leaves.

use std::pin::Pin;

use futures::stream::{SelectAll, Stream, StreamExt, select_all};
use r2r::builtin_interfaces::msg::Time;
use r2r::rcl_interfaces::msg::{
    FloatingPointRange, IntegerRange, ListParametersResult, Parameter as ParameterMessage,
    ParameterDescriptor, ParameterEvent, ParameterValue as ValueMessage, SetParametersResult,
};
use r2r::rcl_interfaces::srv::{
    DescribeParameters, GetParameterTypes, GetParameters, ListParameters, SetParameters,
    SetParametersAtomically,
};
use r2r::{Node, ParameterValue, QosProfile, ServiceRequest, WrappedServiceTypeSupport};

use crate::node::RosError;
use crate::parameters::{Declared, ParameterError, Parameters, Range};
use crate::qos;

/// What somebody wants of the parameters.
pub enum Request {
    /// Values by name.
    Get(ServiceRequest<GetParameters::Service>),
    /// Types by name.
    Types(ServiceRequest<GetParameterTypes::Service>),
    /// Descriptors by name.
    Describe(ServiceRequest<DescribeParameters::Service>),
    /// Names by prefix.
    List(ServiceRequest<ListParameters::Service>),
    /// Set, each for itself.
    Set(ServiceRequest<SetParameters::Service>),
    /// Set, all or none.
    SetAtomically(ServiceRequest<SetParametersAtomically::Service>),
}

type Requests = Pin<Box<dyn Stream<Item = Request> + Send>>;

/// What a set must hold besides each parameter's own check: asked with all values as they would be.
pub type Fits<'a> = &'a mut dyn FnMut(&Parameters) -> Result<(), String>;

/// Serves the parameters of a node.
pub struct ParameterServer {
    requests: SelectAll<Requests>,
    events: r2r::Publisher<ParameterEvent>,
    node: String,
}

impl ParameterServer {
    /// Announces services and topic.
    ///
    /// # Errors
    /// When rcl refuses one.
    pub fn new(node: &mut Node) -> Result<Self, RosError> {
        let requests = select_all([
            serve(node, "get_parameters", Request::Get)?,
            serve(node, "get_parameter_types", Request::Types)?,
            serve(node, "describe_parameters", Request::Describe)?,
            serve(node, "list_parameters", Request::List)?,
            serve(node, "set_parameters", Request::Set)?,
            serve(node, "set_parameters_atomically", Request::SetAtomically)?,
        ]);
        let events = node
            .create_publisher("/parameter_events", qos::PARAMETER_EVENTS)
            .map_err(RosError::while_doing(
                "creating the publisher of /parameter_events",
            ))?;
        let node = node
            .fully_qualified_name()
            .map_err(RosError::while_doing("reading the node's name"))?;
        Ok(Self {
            requests,
            events,
            node,
        })
    }

    /// Waits for the next request; `None` when the node is gone.
    pub async fn next(&mut self) -> Option<Request> {
        self.requests.next().await
    }

    /// Answers a request; the names of the parameters that have changed. A client that has gone away gets no answer.
    pub fn answer(&self, request: Request, parameters: &mut Parameters, fits: Fits<'_>) -> Vec<String> {
        let mut changed = Vec::new();
        let answered = match request {
            Request::Get(request) => {
                let values = request.message.names.iter().map(|name| get(parameters, name));
                let values = values.collect();
                request.respond(GetParameters::Response { values })
            }
            Request::Types(request) => {
                let names = request.message.names.iter();
                let types = names.map(|name| get(parameters, name).type_).collect();
                request.respond(GetParameterTypes::Response { types })
            }
            Request::Describe(request) => {
                let names = request.message.names.iter();
                let descriptors = names.map(|name| describe(parameters, name)).collect();
                request.respond(DescribeParameters::Response { descriptors })
            }
            Request::List(request) => {
                let result = list(parameters, &request.message);
                request.respond(ListParameters::Response { result })
            }
            Request::Set(request) => {
                let each = request.message.parameters.iter();
                let results = each
                    .map(|one| set(parameters, std::slice::from_ref(one), fits, &mut changed))
                    .collect();
                request.respond(SetParameters::Response { results })
            }
            Request::SetAtomically(request) => {
                let result = set(parameters, &request.message.parameters, fits, &mut changed);
                request.respond(SetParametersAtomically::Response { result })
            }
        };
        if let Err(error) = answered {
            tracing::debug!("a parameter request could not be answered: {error}");
        }
        changed
    }

    /// Tells everybody of every parameter: they are new.
    pub fn announce_all(&self, parameters: &Parameters, stamp: Time) {
        let names: Vec<String> = parameters.declared().map(|d| d.name.to_string()).collect();
        self.publish(ParameterEvent {
            stamp,
            node: self.node.clone(),
            new_parameters: messages(parameters, &names),
            ..Default::default()
        });
    }

    /// Tells everybody of parameters that have changed.
    pub fn announce(&self, parameters: &Parameters, changed: &[String], stamp: Time) {
        self.publish(ParameterEvent {
            stamp,
            node: self.node.clone(),
            changed_parameters: messages(parameters, changed),
            ..Default::default()
        });
    }

    fn publish(&self, event: ParameterEvent) {
        if let Err(error) = self.events.publish(&event) {
            tracing::debug!("/parameter_events could not be published: {error}");
        }
    }
}

/// One service of the node, as a stream of requests.
fn serve<T: WrappedServiceTypeSupport + 'static>(
    node: &mut Node,
    name: &str,
    request: fn(ServiceRequest<T>) -> Request,
) -> Result<Requests, RosError>
where
    ServiceRequest<T>: Send,
{
    let stream = node
        .create_service::<T>(&format!("~/{name}"), QosProfile::parameters())
        .map_err(RosError::while_doing(format!("creating the service ~/{name}")))?;
    Ok(Box::pin(stream.map(request)))
}

fn get(parameters: &Parameters, name: &str) -> ValueMessage {
    parameters.get(name).map(value_message).unwrap_or_default()
}

fn messages(parameters: &Parameters, names: &[String]) -> Vec<ParameterMessage> {
    let message = |name: &String| ParameterMessage {
        name: name.clone(),
        value: get(parameters, name),
    };
    names.iter().map(message).collect()
}

fn describe(parameters: &Parameters, name: &str) -> ParameterDescriptor {
    let Some(declared) = parameters.declared().find(|d| d.name == name) else {
        return ParameterDescriptor {
            name: name.to_owned(),
            ..Default::default()
        };
    };
    ParameterDescriptor {
        name: name.to_owned(),
        type_: value_message(&declared.default).type_,
        description: declared.description.to_string(),
        additional_constraints: declared.constraints.to_owned(),
        read_only: !declared.at_run_time,
        floating_point_range: floating_point_range(declared),
        integer_range: integer_range(declared),
        ..Default::default()
    }
}

fn floating_point_range(declared: &Declared) -> Vec<FloatingPointRange> {
    match declared.range {
        Some(Range::Double(from_value, to_value)) => vec![FloatingPointRange {
            from_value,
            to_value,
            step: 0.0,
        }],
        _ => Vec::new(),
    }
}

fn integer_range(declared: &Declared) -> Vec<IntegerRange> {
    match declared.range {
        Some(Range::Integer(from_value, to_value)) => vec![IntegerRange {
            from_value,
            to_value,
            step: 1,
        }],
        _ => Vec::new(),
    }
}

/// Names under the prefixes that are asked for (all, where none is), no deeper than asked for (0 is any depth).
fn list(parameters: &Parameters, request: &ListParameters::Request) -> ListParametersResult {
    let is_shallow = |rest: &str| request.depth == 0 || (rest.matches('.').count() as u64) < request.depth;
    let is_under = |name: &str, prefix: &String| {
        name == prefix
            || name
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(is_shallow)
    };
    let is_wanted = |name: &str| {
        if request.prefixes.is_empty() {
            return is_shallow(name);
        }
        request.prefixes.iter().any(|prefix| is_under(name, prefix))
    };
    let mut result = ListParametersResult::default();
    for declared in parameters.declared().filter(|d| is_wanted(&d.name)) {
        result.names.push(declared.name.to_string());
        let prefix = declared
            .name
            .rsplit_once('.')
            .map(|(prefix, _)| prefix.to_owned());
        result
            .prefixes
            .extend(prefix.filter(|prefix| !result.prefixes.contains(prefix)));
    }
    result
}

/// Sets all of `wanted`, or none.
fn set(
    parameters: &mut Parameters,
    wanted: &[ParameterMessage],
    fits: Fits<'_>,
    changed: &mut Vec<String>,
) -> SetParametersResult {
    let mut next = parameters.clone();
    let tried = wanted
        .iter()
        .try_for_each(|one| next.set(&one.name, &value_of(&one.value)))
        .map_err(|error: ParameterError| error.to_string())
        .and_then(|()| fits(&next));
    if let Err(reason) = tried {
        return SetParametersResult {
            successful: false,
            reason,
        };
    }
    let differs = |one: &&ParameterMessage| parameters.get(&one.name) != next.get(&one.name);
    changed.extend(wanted.iter().filter(differs).map(|one| one.name.clone()));
    *parameters = next;
    SetParametersResult {
        successful: true,
        reason: String::new(),
    }
}

/// A value as a message; the numbers are those of `rcl_interfaces/ParameterType`.
fn value_message(value: &ParameterValue) -> ValueMessage {
    let mut message = ValueMessage::default();
    message.type_ = match value {
        ParameterValue::NotSet => 0,
        ParameterValue::Bool(value) => {
            message.bool_value = *value;
            1
        }
        ParameterValue::Integer(value) => {
            message.integer_value = *value;
            2
        }
        ParameterValue::Double(value) => {
            message.double_value = *value;
            3
        }
        ParameterValue::String(value) => {
            message.string_value.clone_from(value);
            4
        }
        ParameterValue::ByteArray(values) => {
            message.byte_array_value.clone_from(values);
            5
        }
        ParameterValue::BoolArray(values) => {
            message.bool_array_value.clone_from(values);
            6
        }
        ParameterValue::IntegerArray(values) => {
            message.integer_array_value.clone_from(values);
            7
        }
        ParameterValue::DoubleArray(values) => {
            message.double_array_value.clone_from(values);
            8
        }
        ParameterValue::StringArray(values) => {
            message.string_array_value.clone_from(values);
            9
        }
    };
    message
}

fn value_of(message: &ValueMessage) -> ParameterValue {
    match message.type_ {
        1 => ParameterValue::Bool(message.bool_value),
        2 => ParameterValue::Integer(message.integer_value),
        3 => ParameterValue::Double(message.double_value),
        4 => ParameterValue::String(message.string_value.clone()),
        5 => ParameterValue::ByteArray(message.byte_array_value.clone()),
        6 => ParameterValue::BoolArray(message.bool_array_value.clone()),
        7 => ParameterValue::IntegerArray(message.integer_array_value.clone()),
        8 => ParameterValue::DoubleArray(message.double_array_value.clone()),
        9 => ParameterValue::StringArray(message.string_array_value.clone()),
        _ => ParameterValue::NotSet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        let number = |name| Declared::new(name, ParameterValue::Double(1.0), "a number");
        Parameters::new(vec![
            number("rate").range(Range::Double(0.0, 5.0)).at_run_time(),
            number("limits.velocity").at_run_time(),
            number("limits.deep.effort"),
        ])
    }

    fn wanted(name: &str, value: f64) -> ParameterMessage {
        ParameterMessage {
            name: name.into(),
            value: value_message(&ParameterValue::Double(value)),
        }
    }

    #[test]
    fn a_set_of_several_is_all_or_none() {
        let mut p = parameters();
        let mut changed = Vec::new();
        let both = [wanted("limits.velocity", 2.0), wanted("rate", 9.0)];
        let result = set(&mut p, &both, &mut |_| Ok(()), &mut changed);
        assert!(
            !result.successful && result.reason.contains("0 to 5"),
            "{}",
            result.reason
        );
        assert!(changed.is_empty());
        assert_eq!(p.get("limits.velocity"), Some(&ParameterValue::Double(1.0)));
        let both = [wanted("limits.velocity", 2.0), wanted("rate", 1.0)];
        assert!(set(&mut p, &both, &mut |_| Ok(()), &mut changed).successful);
        assert_eq!(changed, ["limits.velocity"], "the rate was 1 before");
    }

    #[test]
    fn a_set_that_does_not_fit_the_whole_changes_nothing() {
        let mut p = parameters();
        let mut changed = Vec::new();
        let result = set(
            &mut p,
            &[wanted("rate", 2.0)],
            &mut |_| Err("not with this robot".into()),
            &mut changed,
        );
        assert_eq!(
            (result.successful, result.reason.as_str()),
            (false, "not with this robot")
        );
        assert_eq!(p.get("rate"), Some(&ParameterValue::Double(1.0)));
    }

    #[test]
    fn names_are_listed_by_prefix_and_depth() {
        let names = |prefixes: &[&str], depth| {
            let request = ListParameters::Request {
                prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
                depth,
            };
            list(&parameters(), &request).names
        };
        assert_eq!(names(&[], 0), ["rate", "limits.velocity", "limits.deep.effort"]);
        assert_eq!(names(&[], 1), ["rate"]);
        assert_eq!(names(&["limits"], 1), ["limits.velocity"]);
        assert_eq!(names(&["limits"], 0), ["limits.velocity", "limits.deep.effort"]);
        assert_eq!(names(&["rate"], 1), ["rate"]);
    }

    #[test]
    fn values_survive_the_round_trip() {
        for value in [
            ParameterValue::NotSet,
            ParameterValue::Bool(true),
            ParameterValue::Integer(-3),
            ParameterValue::Double(0.5),
            ParameterValue::String("a".into()),
            ParameterValue::StringArray(vec!["a".into(), "b".into()]),
            ParameterValue::DoubleArray(vec![1.0]),
            ParameterValue::IntegerArray(vec![1]),
            ParameterValue::BoolArray(vec![false]),
            ParameterValue::ByteArray(vec![7]),
        ] {
            assert_eq!(value_of(&value_message(&value)), value);
        }
    }

    #[test]
    fn a_descriptor_tells_range_and_whether_it_may_change() {
        let rate = describe(&parameters(), "rate");
        assert_eq!(rate.floating_point_range[0].to_value, 5.0);
        assert!(!rate.read_only && describe(&parameters(), "limits.deep.effort").read_only);
    }
}
