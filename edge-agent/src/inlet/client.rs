//! A broker that somebody else runs, through rumqttc: its messages are acknowledged after the commit.
//!
//! The client is built anew for each connection. rumqttc would carry what is unsent from one connection to the next, but
//! throws it away without a word where the broker did not keep the session; here the store is the truth, and what was
//! not confirmed is handed in again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_core::{Backoff, Filter};
use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, Incoming, MqttOptions, NetworkOptions, QoS,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::{Arrival, Inlet, Outgoing, Sender, stopped};
use crate::config::Connect;
use crate::limits;
use crate::pipeline::{Acknowledge, Pipeline};

/// The client of a broker that somebody else runs.
#[derive(Debug)]
pub struct ClientInlet(Connect);

impl ClientInlet {
    /// A client that connects when it runs.
    pub fn new(connect: Connect) -> Self {
        Self(connect)
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(&self.0.client_id, &self.0.host, self.0.port);
        let packet = self.0.max_packet_bytes as usize;
        options
            .set_keep_alive(Duration::from_secs(30))
            // The broker keeps what comes while the agent is away.
            .set_clean_session(false)
            .set_manual_acks(true)
            .set_inflight(limits::CLIENT_INFLIGHT)
            .set_max_packet_size(packet, packet);
        if let Some((user, password)) = &self.0.login {
            options.set_credentials(user, &password.0);
        }
        options
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
            let error = self.connection(&pipeline, &mut outgoing, stop.clone(), &mut backoff).await;
            let stopping = *stop.borrow();
            if stopping {
                return;
            }
            let wait = backoff.failed();
            tracing::warn!(host = self.0.host, port = self.0.port, ?wait, "no connection to the broker: {error}");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }
}

/// What is to be told to the broker, beside publishes.
enum Note {
    /// It accepted the connection.
    Connected,
    /// It sent a message of QoS 1; all messages are numbered.
    Received { number: u64, packet: u16 },
    /// The message with this number is on disk.
    Committed { number: u64 },
}

impl ClientInlet {
    // Lives as long as one connection; answers why it ended.
    async fn connection(
        &self,
        pipeline: &Arc<Pipeline>,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        stop: watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> ConnectionError {
        let (client, mut events) = AsyncClient::new(self.options(), usize::from(limits::CLIENT_INFLIGHT));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let confirmations = Mutex::new(Confirmations::default());
        let (notes, mut noted) = mpsc::unbounded_channel();
        let requests = Requests {
            client,
            pipeline: pipeline.clone(),
            confirmations: &confirmations,
            subscribed: BTreeSet::new(),
            unacknowledged: VecDeque::new(),
        };
        // Requests wait for room in the client's queue, which only polling makes: the two must not wait for each other.
        tokio::select! {
            error = self.poll(pipeline, &mut events, &confirmations, notes, stop.clone(), backoff) => error,
            () = requests.serve(outgoing, &mut noted, stop) => ConnectionError::RequestsDone,
        }
    }

    async fn poll(
        &self,
        pipeline: &Arc<Pipeline>,
        events: &mut EventLoop,
        confirmations: &Mutex<Confirmations>,
        notes: mpsc::UnboundedSender<Note>,
        stop: watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> ConnectionError {
        let mut number = 0;
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => return error,
            };
            match event {
                Event::Incoming(Incoming::ConnAck(ack)) => {
                    backoff.succeeded();
                    tracing::info!(
                        host = self.0.host,
                        session_present = ack.session_present,
                        "connected to the broker"
                    );
                    let _ = notes.send(Note::Connected);
                }
                // What comes while the agent stops is not acknowledged, and so comes again.
                Event::Incoming(Incoming::Publish(_)) if *stop.borrow() => {}
                Event::Incoming(Incoming::Publish(publish)) => {
                    let topic: Arc<str> = publish.topic.into();
                    let sender = Sender::Claimed(self.device(&topic));
                    // This client speaks MQTT 3.1.1, which has no user properties.
                    let arrival = Arrival { sender, topic, payload: publish.payload, properties: Vec::new() };
                    let acknowledge: Acknowledge = if publish.qos == QoS::AtMostOnce {
                        Box::new(|_| {})
                    } else {
                        number += 1;
                        let _ = notes.send(Note::Received { number, packet: publish.pkid });
                        let notes = notes.clone();
                        // A connection that is gone acknowledges nothing; the broker sends again.
                        Box::new(move |_| drop(notes.send(Note::Committed { number })))
                    };
                    super::take(pipeline, &self.0.mapping, arrival, acknowledge).await;
                }
                Event::Incoming(Incoming::SubAck(ack)) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                    tracing::error!("the broker refused a subscription; look at its access rules for this client");
                }
                Event::Incoming(Incoming::PubAck(ack)) => locked(confirmations).acknowledged(ack.pkid),
                Event::Outgoing(rumqttc::Outgoing::Publish(packet)) => locked(confirmations).sent(packet),
                _ => {}
            }
        }
    }
}

fn locked(confirmations: &Mutex<Confirmations>) -> std::sync::MutexGuard<'_, Confirmations> {
    confirmations.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who waits for the PUBACK of which packet.
#[derive(Default)]
struct Confirmations {
    // Handed to the client, which sends them in this order and then says which packet identifier each got.
    unsent: VecDeque<oneshot::Sender<()>>,
    unacknowledged: HashMap<u16, oneshot::Sender<()>>,
}

impl Confirmations {
    fn sent(&mut self, packet: u16) {
        let Some(taken) = self.unsent.pop_front() else { return };
        if packet == 0 {
            // QoS 0: that is all there is to know.
            let _ = taken.send(());
        } else {
            self.unacknowledged.insert(packet, taken);
        }
    }

    fn acknowledged(&mut self, packet: u16) {
        if let Some(taken) = self.unacknowledged.remove(&packet) {
            let _ = taken.send(());
        }
    }
}

/// All that is asked of the client.
struct Requests<'a> {
    client: AsyncClient,
    pipeline: Arc<Pipeline>,
    confirmations: &'a Mutex<Confirmations>,
    subscribed: BTreeSet<Filter>,
    // In the order received, for so they must be acknowledged (MQTT 3.1.1, section 4.6).
    unacknowledged: VecDeque<Received>,
}

struct Received {
    number: u64,
    packet: u16,
    committed: bool,
}

/// How long a stop waits for what is in flight.
const STOP_WAIT: Duration = Duration::from_secs(5);

impl Requests<'_> {
    // Until the client is gone, or everything in flight was acknowledged after a stop.
    async fn serve(
        mut self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        noted: &mut mpsc::UnboundedReceiver<Note>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut connected = false;
        let served: Result<(), ClientError> = async {
            loop {
                let pipeline = self.pipeline.clone();
                let changed = pipeline.plan_changed.notified();
                tokio::select! {
                    () = stopped(&mut stop) => break,
                    () = changed => if connected { self.subscribe().await? },
                    Some(note) = noted.recv() => {
                        connected |= matches!(note, Note::Connected);
                        self.note(note).await?;
                    }
                    // Before the connection stands nothing is taken that would be lost with it.
                    Some(next) = outgoing.recv(), if connected => self.publish(next).await?,
                }
            }
            let deadline = Instant::now() + STOP_WAIT;
            while !self.unacknowledged.is_empty() {
                let Ok(Some(note)) = timeout_at(deadline, noted.recv()).await else { break };
                self.note(note).await?;
            }
            self.client.disconnect().await
        }
        .await;
        if served.is_ok() {
            // The disconnect goes out by polling, which then ends this connection; until then there is nothing to do.
            tokio::time::sleep(STOP_WAIT).await;
        }
    }

    async fn note(&mut self, note: Note) -> Result<(), ClientError> {
        match note {
            Note::Connected => self.subscribe().await,
            Note::Received { number, packet } => {
                self.unacknowledged.push_back(Received { number, packet, committed: false });
                Ok(())
            }
            Note::Committed { number } => {
                let at = self.unacknowledged.partition_point(|received| received.number < number);
                if let Some(received) = self.unacknowledged.get_mut(at).filter(|received| received.number == number) {
                    received.committed = true;
                }
                while let Some(received) = self.unacknowledged.pop_front_if(|received| received.committed) {
                    let mut publish = rumqttc::Publish::new("", QoS::AtLeastOnce, Vec::new());
                    publish.pkid = received.packet;
                    self.client.ack(&publish).await?;
                }
                Ok(())
            }
        }
    }

    // Brings the subscriptions to what the functions listen to.
    async fn subscribe(&mut self) -> Result<(), ClientError> {
        let wanted: BTreeSet<Filter> = self.pipeline.plan().filters().into_iter().collect();
        let new: Vec<SubscribeFilter> = wanted
            .difference(&self.subscribed)
            .map(|filter| SubscribeFilter::new(filter.to_string(), QoS::AtLeastOnce))
            .collect();
        if !new.is_empty() {
            self.client.subscribe_many(new).await?;
        }
        for old in self.subscribed.difference(&wanted) {
            self.client.unsubscribe(old.as_str()).await?;
        }
        self.subscribed = wanted;
        Ok(())
    }

    async fn publish(&mut self, Outgoing { publish, taken }: Outgoing) -> Result<(), ClientError> {
        // QoS 2 would need the broker to remember packet identifiers beyond a connection, and so would this client; it
        // is sent as QoS 1, for a publish of a function is at least once in any case.
        let qos = if publish.flags.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        locked(self.confirmations).unsent.push_back(taken);
        self.client.publish(publish.topic.as_ref(), qos, publish.flags.retain, publish.payload.as_ref()).await
    }
}
