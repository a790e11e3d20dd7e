//! Where events come from, and where the publishes of functions go.

use std::future::Future;
use std::sync::Arc;

use agent_core::{Event, event::EventKind};
use agent_store::Publish;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use self::identity::{Identified, Mapping};
use crate::pipeline::{Acknowledge, Pipeline};

pub mod broker;
pub mod client;
pub mod identity;

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
    /// Its user properties (MQTT 5), in the order sent.
    pub properties: Vec<(String, String)>,
}

/// Who sent a message.
#[derive(Debug)]
pub enum Sender {
    /// This device, says the connection that it came through. What the message says must agree.
    Known(Arc<str>),
    /// The connection does not say. The message is believed; if it says nothing, it is this.
    Claimed(Arc<str>),
}

/// Takes a message into the pipeline, in this generation of it if one is said. `mapping` says where the identity lies in messages
/// that have none of their own.
pub async fn take(
    pipeline: &Pipeline,
    generation: Option<u64>,
    mapping: &Mapping,
    arrival: Arrival,
    acknowledge: Acknowledge,
) {
    let time_us = pipeline.clock.wall_us();
    let event = |device, identity, payload: &[u8]| Event {
        identity,
        ..Event::new(EventKind::Mqtt, device, arrival.topic.clone(), payload, time_us)
    };
    match identity::identify(mapping, &arrival) {
        Ok(Identified { device, identity, payload, lacking }) => {
            if lacking {
                pipeline.counters.unidentified.add(1);
            }
            pipeline.submit_in(generation, event(device, identity, payload), acknowledge).await;
        }
        Err(refusal) => {
            let (Sender::Known(device) | Sender::Claimed(device)) = &arrival.sender;
            let reason = format!("the message of {device} on {} is refused: {refusal}", arrival.topic);
            pipeline.refuse(event(device.clone(), None, &arrival.payload), reason, acknowledge).await;
        }
    }
}
