//! Where events come from, and where the publishes of functions go.

use std::future::Future;
use std::sync::Arc;

use agent_core::{Event, Identity, event::EventKind};
use agent_store::Publish;
use bytes::Bytes;
use device_wire::Envelope;
use tokio::sync::{mpsc, oneshot, watch};

use crate::pipeline::{Acknowledge, Pipeline};

pub mod broker;
pub mod client;

/// A connection to the world of MQTT, both ways.
pub trait Inlet: Send {
    /// Takes messages in, and sends out what comes through `outgoing`, until `stop` is true. Then it takes nothing new,
    /// gives what is in flight time to be acknowledged, and returns.
    fn run(
        self,
        pipeline: Arc<Pipeline>,
        outgoing: mpsc::Receiver<Outgoing>,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send;
}

/// Returns when the agent is to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender is gone only when the agent is.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A publish on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// What to publish.
    pub publish: Publish,
    /// Used when the broker has taken it; dropped if that cannot be known, and then it is sent again.
    pub taken: oneshot::Sender<()>,
}

/// A message as it came in.
#[derive(Debug)]
pub struct Arrival {
    /// Who sent it.
    pub sender: Sender,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its payload, perhaps in an envelope.
    pub payload: Bytes,
}

/// Who sent a message.
#[derive(Debug)]
pub enum Sender {
    /// This device, says the connection that it came through. An envelope must agree.
    Known(Arc<str>),
    /// The connection does not say. An envelope is believed; without one it is this.
    Claimed(Arc<str>),
}

/// Takes a message into the pipeline.
pub async fn take(pipeline: &Pipeline, arrival: Arrival, acknowledge: Acknowledge) {
    let time_us = pipeline.clock.wall_us();
    let Arrival { sender, topic, payload } = arrival;
    let plain = |device: &Arc<str>| Event {
        kind: EventKind::Mqtt,
        device: device.clone(),
        topic: topic.clone(),
        payload: payload.as_ref().into(),
        identity: None,
        time_us,
    };
    let (Sender::Known(device) | Sender::Claimed(device)) = &sender;
    let envelope = match Envelope::decode(&payload) {
        Ok(None) => return pipeline.submit(plain(device), acknowledge).await,
        Ok(Some(envelope)) => envelope,
        Err(error) => {
            let reason = format!("the message of {device} on {topic} begins like an event envelope, but {error}");
            return pipeline.refuse(plain(device), reason, acknowledge).await;
        }
    };
    let device: Arc<str> = match &sender {
        Sender::Known(device) if **device != *envelope.device => {
            let reason = format!(
                "{device} sent an event in the name of {}; a device sends its own, so let it connect under the name that \
                 is in its envelopes",
                envelope.device
            );
            return pipeline.refuse(plain(device), reason, acknowledge).await;
        }
        Sender::Known(device) => device.clone(),
        Sender::Claimed(_) => envelope.device.into(),
    };
    let event = Event {
        kind: EventKind::Mqtt,
        topic: topic.clone(),
        payload: envelope.payload.into(),
        identity: Some(Identity {
            source: device.clone(),
            boot: u64::from(envelope.boot),
            sequence: envelope.sequence,
        }),
        device,
        time_us,
    };
    pipeline.submit(event, acknowledge).await;
}
