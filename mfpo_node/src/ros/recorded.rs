//! What the service tells the recorder: policies that may act, the status and the log as they are published, what has
//! gone wrong.

use std::sync::mpsc::{Receiver, TryRecvError};

use mfpo_ros::parameters::{ParameterValue as Value, Parameters, shown};
use mfpo_ros::time;

use super::life::respond;
use super::r2r;
use super::service::Service;
use r2r::mfpo_msgs::msg::PolicyStatus;
use r2r::std_srvs::srv::Trigger;
use r2r::{ServiceRequest, WrappedTypesupport};

use crate::config::Config;
use crate::recording::recorder::Saved;
use crate::recording::{Channel, Facts, Note, Recording};
use crate::weights::Policy;

use std::collections::BTreeMap;
use std::sync::Arc;

/// Who waits for a recording to be saved.
pub type Saving = (ServiceRequest<Trigger::Service>, Receiver<Saved>);

/// What recordings say of this node.
pub fn facts(config: &Config, parameters: &Parameters, node: &str, namespace: &str) -> Facts {
    Facts {
        node: node.to_owned(),
        namespace: namespace.to_owned(),
        seed: config.settings.seed,
        device: config.device.clone(),
        parameters: texts(parameters),
    }
}

/// The parameters in words.
fn texts(parameters: &Parameters) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(value) => value.clone(),
        Value::StringArray(values) => values.join(", "),
        other => shown(other),
    };
    let declared = parameters.declared();
    let named = declared.filter_map(|p| Some((p.name.to_string(), text(parameters.get(&p.name)?))));
    named.collect()
}

impl Service {
    /// The policy is about to act: recordings have to hold it.
    pub fn record_policy(&self, policy: &mut Policy) {
        let bundle = policy.take_bundle();
        if let Some((recording, bundle)) = self.outputs.recording.as_ref().zip(bundle) {
            recording.note(Note::Policy(Arc::clone(policy.identity()), bundle));
        }
    }

    /// The parameters have changed.
    pub fn record_parameters(&self, parameters: &Parameters) {
        if let Some(recording) = &self.outputs.recording {
            recording.note(Note::Parameters(texts(parameters)));
        }
    }

    /// A status was published.
    pub fn record_status(&self, message: &PolicyStatus) {
        if let Some(recording) = &self.outputs.recording {
            record(recording, Channel::Status, message);
        }
    }

    /// Publishes the log, and records it.
    pub fn forward_log(&self) {
        let recording = self.outputs.recording.as_ref();
        self.outputs.rosout.forward(&mut |line| {
            if let Some(recording) = recording {
                record(recording, Channel::Log, line);
            }
        });
    }

    /// What is recorded so far is to be saved; answered when its file is begun.
    pub fn save_recording(&mut self, request: ServiceRequest<Trigger::Service>) {
        match &self.outputs.recording {
            Some(recording) => self.saves.push((request, recording.save())),
            None => respond(
                request,
                false,
                "nothing is recorded; expected a folder in parameter record.folder".to_owned(),
            ),
        }
    }

    /// What has gone wrong outside of the ticks is worth a recording; what was saved is told.
    pub fn look_after_recording(&mut self) {
        for mishap in self.status.take_mishaps() {
            if let Some(recording) = &self.outputs.recording {
                recording.note(Note::Fault(mishap));
            }
        }
        let waiting = std::mem::take(&mut self.saves);
        for (request, answer) in waiting {
            match answer.try_recv() {
                Ok(Ok(path)) => respond(request, true, path.display().to_string()),
                Ok(Err(reason)) => respond(request, false, reason),
                Err(TryRecvError::Empty) => self.saves.push((request, answer)),
                Err(TryRecvError::Disconnected) => {
                    respond(request, false, "the recorder has ended".to_owned());
                }
            }
        }
    }
}

fn record<M: WrappedTypesupport>(recording: &Recording, channel: Channel, message: &M) {
    match message.to_serialized_bytes() {
        Ok(bytes) => recording.note(Note::Message(channel, time::system_nanoseconds(), bytes)),
        // It has been published already.
        Err(error) => tracing::debug!("a message is missing from the recording: {error}"),
    }
}
