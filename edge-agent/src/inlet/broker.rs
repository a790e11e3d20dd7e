//! The gateway's own broker: its PUBACK waits for the commit.

use std::net::SocketAddr;
use std::sync::Arc;

use agent_broker::{Access, Broker, BrokerError, Handle, Inbound, Ingest, Options, Presence, QoS};
use agent_core::event::EventKind;
use agent_core::{Event, Identity};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::identity::{BOOT_PROPERTY, Mapping, SEQUENCE_PROPERTY};
use super::{Arrival, Inlet, Outgoing, Sender, stopped};
use crate::config::Listen;
use crate::pipeline::Pipeline;

/// The gateway's own broker, bound to its port.
pub struct BrokerInlet {
    broker: Broker,
    // Under which the gateway's own publishes are events: the life of the store that numbered them.
    epoch: u64,
    mapping: Arc<Mapping>,
}

/// The source of events that functions of this gateway published. No event of a device can have this source: a name that
/// begins with `@` is refused there.
const GATEWAY: &str = "@gateway";

impl BrokerInlet {
    /// Binds the port; nothing is accepted before [`Inlet::run`].
    ///
    /// # Errors
    /// The port is taken, or the address is not of this machine.
    pub async fn bind(listen: &Listen, epoch: u64) -> Result<Self, BrokerError> {
        let access = if listen.users.is_empty() {
            Access::Anonymous
        } else {
            Access::Passwords(listen.users.iter().map(|(user, secret)| (user.clone(), secret.0.clone())).collect())
        };
        let max_packet_bytes = listen.max_packet_bytes;
        let rules = listen.rules.clone();
        let options = Options { listen: listen.address, max_packet_bytes, access, rules, ..Options::default() };
        let broker = Broker::bind(options).await?;
        tracing::info!(address = %broker.local_addr(), "the gateway's broker listens");
        Ok(Self { broker, epoch, mapping: listen.mapping.clone() })
    }

    /// The address and the port that it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    /// The way to it while it runs.
    pub fn handle(&self) -> Handle {
        self.broker.handle()
    }
}

impl Inlet for BrokerInlet {
    async fn run(
        self,
        pipeline: Arc<Pipeline>,
        mut outgoing: mpsc::Receiver<Outgoing>,
        mut stop: watch::Receiver<bool>,
    ) {
        let handle = self.broker.handle();
        let epoch = self.epoch;
        let returns = pipeline.clone();
        let publisher = tokio::spawn(async move {
            while let Some(Outgoing { publish, taken }) = outgoing.recv().await {
                let qos = match publish.flags.qos {
                    0 => QoS::AtMostOnce,
                    1 => QoS::AtLeastOnce,
                    _ => QoS::ExactlyOnce,
                };
                let payload = Bytes::copy_from_slice(&publish.payload);
                // It may be handed over twice; by its number a subscriber can tell.
                let (boot, sequence) = (epoch.to_string(), publish.id.to_string());
                let number = [(BOOT_PROPERTY, boot.as_str()), (SEQUENCE_PROPERTY, sequence.as_str())];
                if let Err(error) = handle.publish(&publish.topic, payload, qos, publish.flags.retain, &number) {
                    // The topic was checked when the function named it, so this is a fault of ours; the event still
                    // goes to the functions.
                    tracing::error!(topic = %publish.topic, id = publish.id, "the broker refused a function's publish: {error}");
                }
                // Functions hear what functions publish, and exactly once: the number under which the publish was
                // committed is its identity.
                let event = Event {
                    identity: Some(Identity { source: GATEWAY.into(), boot: epoch, sequence: publish.id }),
                    ..Event::new(
                        EventKind::Mqtt,
                        publish.device,
                        publish.topic,
                        publish.payload,
                        returns.clock.wall_us(),
                    )
                };
                let taken = Box::new(move |_| {
                    // Nobody waits any more if the agent stops; then it is sent again at the next start.
                    let _ = taken.send(());
                });
                returns.submit(event, taken).await;
            }
        });
        self.broker
            .run(Arc::new(Intake { pipeline, mapping: self.mapping }), async move { stopped(&mut stop).await })
            .await;
        publisher.abort();
    }
}

struct Intake {
    pipeline: Arc<Pipeline>,
    mapping: Arc<Mapping>,
}

impl Ingest for Intake {
    async fn submit(&self, inbound: Inbound) {
        let Inbound { client, topic, payload, user_properties: properties, generation, ack, .. } = inbound;
        let arrival = Arrival { sender: Sender::Known(client), topic, payload, properties };
        super::take(&self.pipeline, generation, &self.mapping, arrival, Box::new(move |_| ack.accept())).await;
    }

    fn generation(&self) -> u64 {
        self.pipeline.generation()
    }

    async fn presence(&self, client: &Arc<str>, presence: Presence) {
        let change = match presence {
            Presence::Connected => function_package::Presence::Connected,
            Presence::Disconnected => function_package::Presence::Disconnected,
        };
        let event = Event::new(EventKind::Device, client.clone(), change.name(), [], self.pipeline.clock.wall_us());
        let mut wanted = Vec::new();
        self.pipeline.plan().route(&event, &mut wanted);
        if wanted.is_empty() {
            return;
        }
        // Nobody waits for it: a device does not come again because the gateway forgot that it came.
        self.pipeline.submit(event, Box::new(|_| {})).await;
    }
}
