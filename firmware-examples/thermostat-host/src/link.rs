use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use device_sdk::{Token, WINDOW};
use rumqttc::{AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing};
use rumqttc::{Packet, QoS};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::args::Broker;

/// Requests that wait for the event loop: never more than a window of publishes, and one DISCONNECT.
const REQUESTS: usize = WINDOW + 1;

/// Events that wait for the device's loop. When it is full the event loop waits, not the device, so any size
/// works; a window and its acknowledgements fit.
const EVENTS: usize = 2 * WINDOW;

/// Packet identifiers go round within this, so it must be larger than the window: then no publish can meet an
/// identifier that is still in use.
const INFLIGHT: u16 = 4 * WINDOW as u16;

/// How often an idle connection is probed: a dead one is noticed after at most twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a connection may take to be made, and a write to be flushed.
const NETWORK_TIMEOUT_SECONDS: u64 = 5;

/// How long to wait until a DISCONNECT is written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection to the broker, from its CONNECT to its end. It never reconnects: rumqttc's own pending
/// publishes would be cleared without a word when the broker has lost the session (CONNACK without "session
/// present"), so each connection has a fresh event loop, and what must be sent again is the SDK's session's
/// business alone. For the same reason the MQTT session is a clean one: there is nothing in it to resume.
///
/// The event loop is polled by a task of its own, which never publishes, and the device's loop publishes without
/// ever waiting: so the bounded channel between the two cannot lock them.
pub(crate) struct Link {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, ConnectionError>>,
    poller: JoinHandle<()>,
    /// Given to the client, in this order, but without a packet identifier yet.
    unnumbered: VecDeque<Token>,
    unacknowledged: HashMap<u16, Token>,
}

/// What happened on the link.
#[derive(Debug)]
pub(crate) enum Report {
    Connected { session_present: bool },
    Acknowledged(Token),
    Lost(LinkError),
}

/// Why a link is over.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Connection(Box<ConnectionError>),
    #[error("the client takes no more publishes")]
    Client(#[source] Box<ClientError>),
    #[error("the client numbered a publish that it was not given")]
    Numbering,
    #[error("it is closed")]
    Closed,
}

impl Link {
    /// Begins to connect; the answer comes from [`next`](Self::next).
    pub(crate) fn open(broker: &Broker, client_id: &str) -> Self {
        let mut options = MqttOptions::new(client_id, &broker.host, broker.port);
        options.set_clean_session(true).set_keep_alive(KEEP_ALIVE).set_inflight(INFLIGHT);
        let (client, mut event_loop) = AsyncClient::new(options, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(NETWORK_TIMEOUT_SECONDS);
        event_loop.set_network_options(network);

        let (sender, events) = mpsc::channel(EVENTS);
        let poller = tokio::spawn(poll_until_lost(event_loop, sender));
        Self { client, events, poller, unnumbered: VecDeque::new(), unacknowledged: HashMap::new() }
    }

    /// Publishes with QoS 1, without waiting.
    pub(crate) fn publish(&mut self, token: Token, topic: &str, bytes: &[u8]) -> Result<(), LinkError> {
        let given = self.client.try_publish(topic, QoS::AtLeastOnce, false, bytes);
        given.map_err(|error| LinkError::Client(Box::new(error)))?;
        self.unnumbered.push_back(token);
        Ok(())
    }

    /// Waits for what happens next. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Report {
        loop {
            let event = match self.events.recv().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Report::Lost(LinkError::Connection(Box::new(error))),
                None => return Report::Lost(LinkError::Closed),
            };
            match event {
                Event::Incoming(Packet::ConnAck(connack)) => {
                    return Report::Connected { session_present: connack.session_present };
                }
                Event::Outgoing(Outgoing::Publish(id)) => match self.unnumbered.pop_front() {
                    Some(token) => {
                        self.unacknowledged.insert(id, token);
                    }
                    None => return Report::Lost(LinkError::Numbering),
                },
                Event::Incoming(Packet::PubAck(ack)) => {
                    if let Some(token) = self.unacknowledged.remove(&ack.pkid) {
                        return Report::Acknowledged(token);
                    }
                }
                _ => {}
            }
        }
    }

    /// Says goodbye to the broker, so that it does not take the device for lost.
    pub(crate) async fn close(mut self) {
        let written = async {
            while let Some(Ok(event)) = self.events.recv().await {
                if event == Event::Outgoing(Outgoing::Disconnect) {
                    break;
                }
            }
        };
        if self.client.try_disconnect().is_ok() {
            // Too late is as good as never: the connection is dropped either way.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, written).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

async fn poll_until_lost(mut event_loop: EventLoop, events: mpsc::Sender<Result<Event, ConnectionError>>) {
    loop {
        let event = event_loop.poll().await;
        let lost = event.is_err();
        if events.send(event).await.is_err() || lost {
            return;
        }
    }
}
