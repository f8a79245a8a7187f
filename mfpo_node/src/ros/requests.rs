//! What operators ask of the node by service, as values: the life cycle as `ros2 lifecycle` speaks to it, and start,
//! stop, roll back and load.

use std::pin::Pin;

use futures::stream::{SelectAll, Stream, StreamExt, select_all};
use mfpo_ros::RosError;

use super::r2r;
use r2r::lifecycle_msgs::srv::{ChangeState, GetAvailableStates, GetAvailableTransitions, GetState};
use r2r::mfpo_msgs::srv::{LoadPolicy, Probe};
use r2r::std_srvs::srv::Trigger;
use r2r::{Node, QosProfile, ServiceRequest, WrappedServiceTypeSupport};

/// Answered at once.
pub enum Query {
    /// Where is the node in its life cycle?
    State(ServiceRequest<GetState::Service>),
    /// Which states are there?
    States(ServiceRequest<GetAvailableStates::Service>),
    /// Which transitions start here?
    Transitions(ServiceRequest<GetAvailableTransitions::Service>),
    /// Which transitions are there?
    Graph(ServiceRequest<GetAvailableTransitions::Service>),
    /// Stop the robot: it never waits for anything else.
    Stop(ServiceRequest<Trigger::Service>),
    /// Load a bundle; answered when it is checked.
    Load(ServiceRequest<LoadPolicy::Service>),
    /// Probe the joints; answered when the last one is done.
    Probe(ServiceRequest<Probe::Service>),
    /// Save what was recorded so far.
    SaveRecording(ServiceRequest<Trigger::Service>),
}

/// Carried out one after the other, and answered when it is done.
pub enum Command {
    /// A transition of the life cycle.
    ChangeState(ServiceRequest<ChangeState::Service>),
    /// Let the policy command the robot.
    Start(ServiceRequest<Trigger::Service>),
    /// Back to the policy before.
    RollBack(ServiceRequest<Trigger::Service>),
}

type Requests<R> = Pin<Box<dyn Stream<Item = R> + Send>>;

/// What was asked and not read yet.
pub struct Operators {
    /// Answered at once.
    pub queries: SelectAll<Requests<Query>>,
    /// One after the other.
    pub commands: SelectAll<Requests<Command>>,
}

impl Operators {
    /// Announces the services.
    ///
    /// # Errors
    /// When rcl refuses one.
    pub fn new(node: &mut Node) -> Result<Self, RosError> {
        Ok(Self {
            queries: select_all([
                serve(node, "get_state", Query::State)?,
                serve(node, "get_available_states", Query::States)?,
                serve(node, "get_available_transitions", Query::Transitions)?,
                serve(node, "get_transition_graph", Query::Graph)?,
                serve(node, "stop", Query::Stop)?,
                serve(node, "load_policy", Query::Load)?,
                serve(node, "probe", Query::Probe)?,
                serve(node, "save_recording", Query::SaveRecording)?,
            ]),
            commands: select_all([
                serve(node, "change_state", Command::ChangeState)?,
                serve(node, "start", Command::Start)?,
                serve(node, "rollback", Command::RollBack)?,
            ]),
        })
    }
}

/// One service of the node, as a stream of requests.
fn serve<T: WrappedServiceTypeSupport + 'static, R: 'static>(
    node: &mut Node,
    name: &str,
    request: fn(ServiceRequest<T>) -> R,
) -> Result<Requests<R>, RosError>
where
    ServiceRequest<T>: Send,
{
    let stream = node
        .create_service::<T>(&format!("~/{name}"), QosProfile::services_default())
        .map_err(RosError::while_doing(format!("creating the service ~/{name}")))?;
    Ok(Box::pin(stream.map(request)))
}
