//! A broker that somebody else runs: its messages are acknowledged after the commit.
//!
//! rumqttc encodes and decodes the packets; what is sent when is decided here. Its own event loop writes to the socket for
//! each packet, and throws away without a word what is unsent where the broker did not keep the session. Here everything
//! that can be sent goes out at one go; the store is the truth, and what was not confirmed on one connection is handed in
//! again for the next.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_core::{Backoff, Filter};
use bytes::BytesMut;
use rumqttc::{
    Disconnect, Packet, PingReq, Publish, QoS, Subscribe, SubscribeFilter, SubscribeReasonCode, Unsubscribe,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::ledger::{Inbound, Outbound};
use self::wire::{PING_EVERY, Packets, WireError, written};
use super::{Arrival, Inlet, Outgoing, Sender, stopped};
use crate::config::Connect;
use crate::limits;
use crate::pipeline::{Acknowledge, Pipeline, Settled};

mod ledger;
mod wire;

/// The client of a broker that somebody else runs.
#[derive(Debug)]
pub struct ClientInlet(Connect);

impl ClientInlet {
    /// A client that connects when it runs.
    pub fn new(connect: Connect) -> Self {
        Self(connect)
    }

    // Without an envelope the topic says who sent a message.
    fn device(&self, topic: &Arc<str>) -> Arc<str> {
        match self.0.device_level {
            Some(level) => topic.split('/').nth(level - 1).map_or_else(|| topic.clone(), Arc::from),
            None => topic.clone(),
        }
    }
}

impl Inlet for ClientInlet {
    async fn run(
        self,
        pipeline: Arc<Pipeline>,
        mut outgoing: mpsc::Receiver<Outgoing>,
        mut stop: watch::Receiver<bool>,
    ) {
        let seed = pipeline.clock.stamp().monotonic_us;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), seed);
        loop {
            // Returns only if it fails, or as the agent stops.
            let Err(error) = self.connection(&pipeline, &mut outgoing, &stop, &mut backoff).await else { return };
            let wait = backoff.failed();
            tracing::warn!(host = self.0.host, port = self.0.port, ?wait, "no connection to the broker: {error}");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }
}

impl ClientInlet {
    // Lives as long as one connection; an error says why it ended.
    async fn connection(
        &self,
        pipeline: &Arc<Pipeline>,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        stop: &watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> Result<(), WireError> {
        let mut stopping = stop.clone();
        let accepted = tokio::select! {
            accepted = wire::connect(&self.0) => accepted?,
            () = stopped(&mut stopping) => return Ok(()),
        };
        backoff.succeeded();
        let session_present = accepted.session_present;
        tracing::info!(host = self.0.host, session_present, "connected to the broker");
        let connection = Arc::new(Connection::default());
        let writing = Writing {
            connection: connection.clone(),
            stream: accepted.write,
            bytes: BytesMut::new(),
            unconfirmed: Vec::new(),
            subscribed: BTreeSet::new(),
        };
        // Acknowledgements go out while what comes waits for room in the pipeline, which acknowledgements make.
        tokio::select! {
            error = self.read(pipeline, accepted.packets, &connection, stop) => Err(error),
            written = writing.run(pipeline, outgoing, stop.clone()) => written,
            () = connection.not_kept.notified() => Err(WireError::NotKept),
            // However slow the broker or the disk is.
            () = async {
                stopped(&mut stopping).await;
                tokio::time::sleep(STOP_WAIT).await;
            } => Ok(()),
        }
    }

    // Takes in what comes, until the connection is of no more use.
    async fn read(
        &self,
        pipeline: &Arc<Pipeline>,
        mut packets: Packets<OwnedReadHalf>,
        connection: &Arc<Connection>,
        stop: &watch::Receiver<bool>,
    ) -> WireError {
        // That of the pipeline when no message that comes again was on its way last. A broker may have many events of a device
        // on the way: where one was thrown away, none after it may be handled.
        let mut generation = pipeline.generation();
        loop {
            match packets.next().await {
                Err(error) => return error,
                // What comes while the agent stops is not acknowledged, and so comes again.
                Ok(Packet::Publish(_)) if *stop.borrow() => {}
                Ok(Packet::Publish(publish)) => {
                    let (generation, acknowledge): (_, Acknowledge) = match publish.qos {
                        QoS::AtMostOnce => (None, Box::new(|_| {})),
                        QoS::AtLeastOnce => {
                            let current = pipeline.generation();
                            let mut inbound = locked(&connection.inbound);
                            if inbound.is_empty() {
                                generation = current;
                            }
                            let number = inbound.came(publish.pkid);
                            drop(inbound);
                            let owed = Owed { connection: Some(connection.clone()), number };
                            (Some(generation), Box::new(move |settled| owed.committed(settled)))
                        }
                        // A subscription that somebody else made under this client_id; the agent's are of QoS 1.
                        QoS::ExactlyOnce => {
                            return WireError::Unexpected(
                                "QoS 2, to which only another client can have subscribed; take another client_id",
                            );
                        }
                    };
                    let topic: Arc<str> = publish.topic.into();
                    let sender = Sender::Claimed(self.device(&topic));
                    // This client speaks MQTT 3.1.1, which has no user properties.
                    let arrival = Arrival { sender, topic, payload: publish.payload, properties: Vec::new() };
                    super::take(pipeline, generation, &self.0.mapping, arrival, acknowledge).await;
                }
                Ok(Packet::PubAck(ack)) => locked(&connection.outbound).acknowledged(ack.pkid),
                Ok(Packet::SubAck(ack)) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                    tracing::error!("the broker refused a subscription; look at its access rules for this client");
                }
                Ok(Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp) => {}
                Ok(_) => return WireError::Unexpected("none that a broker sends to a client like this"),
            }
        }
    }
}

/// What reading and writing a connection share, and those who wait for something to come of it.
#[derive(Debug, Default)]
struct Connection {
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    /// Something that came may be acknowledged.
    acknowledge: Notify,
    /// Something that came is not acknowledged, and never will be.
    not_kept: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The acknowledgement of one message. Dropped unused, the connection ends, so that the broker sends it again.
struct Owed {
    connection: Option<Arc<Connection>>,
    number: u64,
}

impl Owed {
    // A connection that is gone acknowledges nothing; the broker sends again.
    fn committed(mut self, _: Settled) {
        if let Some(connection) = self.connection.take()
            && locked(&connection.inbound).committed(self.number)
        {
            connection.acknowledge.notify_one();
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.not_kept.notify_one();
        }
    }
}

/// How long a stop waits for what is in flight.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// All that is sent.
struct Writing {
    connection: Arc<Connection>,
    stream: OwnedWriteHalf,
    // What goes out next.
    bytes: BytesMut,
    // Publishes of QoS 0 among that: for them, to be sent is to be taken.
    unconfirmed: Vec<oneshot::Sender<()>>,
    subscribed: BTreeSet<Filter>,
}

impl Writing {
    // Until everything that came was acknowledged after a stop.
    async fn run(
        mut self,
        pipeline: &Pipeline,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), WireError> {
        let connection = self.connection.clone();
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Before the plan is looked at, so that no change of it is missed.
        let mut changed = pin!(pipeline.plan_changed.notified());
        self.subscribe(pipeline)?;
        let mut batch = Vec::with_capacity(limits::PUBLISHES_IN_FLIGHT);
        loop {
            self.send().await?;
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = &mut changed => {
                    changed.set(pipeline.plan_changed.notified());
                    self.subscribe(pipeline)?;
                }
                () = connection.acknowledge.notified() => {}
                // With its last sender the agent is gone.
                _ = outgoing.recv_many(&mut batch, limits::PUBLISHES_IN_FLIGHT), if !outgoing.is_closed() => {
                    for next in batch.drain(..) {
                        self.publish(next)?;
                    }
                }
                _ = pings.tick() => written(PingReq.write(&mut self.bytes))?,
            }
        }
        self.send().await?;
        while !locked(&connection.inbound).is_empty() {
            connection.acknowledge.notified().await;
            self.send().await?;
        }
        written(Disconnect.write(&mut self.bytes))?;
        self.send().await?;
        Ok(self.stream.shutdown().await?)
    }

    // All that waits to be sent, at one go.
    async fn send(&mut self) -> Result<(), WireError> {
        locked(&self.connection.inbound).acknowledge(&mut self.bytes).map_err(WireError::TooLarge)?;
        self.stream.write_all_buf(&mut self.bytes).await?;
        for taken in self.unconfirmed.drain(..) {
            // Whoever waited may be gone, as the agent stops.
            let _ = taken.send(());
        }
        Ok(())
    }

    // Brings the subscriptions to what the functions listen to.
    fn subscribe(&mut self, pipeline: &Pipeline) -> Result<(), WireError> {
        let wanted: BTreeSet<Filter> = pipeline.plan().filters().into_iter().collect();
        let new: Vec<SubscribeFilter> = wanted
            .difference(&self.subscribed)
            .map(|filter| SubscribeFilter::new(filter.to_string(), QoS::AtLeastOnce))
            .collect();
        if !new.is_empty() {
            let mut subscribe = Subscribe::new_many(new);
            subscribe.pkid = locked(&self.connection.outbound).identifier();
            written(subscribe.write(&mut self.bytes))?;
        }
        let old: Vec<String> = self.subscribed.difference(&wanted).map(Filter::to_string).collect();
        if !old.is_empty() {
            let pkid = locked(&self.connection.outbound).identifier();
            written(Unsubscribe { pkid, topics: old }.write(&mut self.bytes))?;
        }
        self.subscribed = wanted;
        Ok(())
    }

    fn publish(&mut self, Outgoing { publish, taken }: Outgoing) -> Result<(), WireError> {
        // QoS 2 would need the broker to remember packet identifiers beyond a connection, and so would this client; it
        // is sent as QoS 1, for a publish of a function is at least once in any case.
        let qos = if publish.flags.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut packet = Publish::new(publish.topic.as_ref(), qos, publish.payload.as_ref());
        packet.retain = publish.flags.retain;
        if qos == QoS::AtMostOnce {
            self.unconfirmed.push(taken);
        } else {
            let mut outbound = locked(&self.connection.outbound);
            packet.pkid = outbound.identifier();
            outbound.sent(packet.pkid, taken);
        }
        written(packet.write(&mut self.bytes))
    }
}
