//! The broker as its owner sees it: bind, run, publish from inside.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt5_protocol::{QoS, is_valid_topic_name};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection;
use crate::hub::Hub;
use crate::ingest::Ingest;
use crate::link::Close;
use crate::message::Message;
use crate::options::{BrokerError, Options};
use crate::stats::Stats;
use crate::wire::beginning;

/// Pause after the system refused to accept a connection, for the reason (no file descriptor left) does not go away by
/// trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An MQTT broker that is bound and not running yet.
#[derive(Debug)]
pub struct Broker {
    hub: Arc<Hub>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Broker {
    /// Binds the socket. Nothing is accepted before [`Broker::run`].
    ///
    /// # Errors
    /// [`BrokerError::Bind`] when the address cannot be listened on, [`BrokerError::Option`] when a setting makes no sense.
    pub async fn bind(options: Options) -> Result<Self, BrokerError> {
        options.check()?;
        let listen = options.listen;
        let failed = |source| BrokerError::Bind { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { hub: Arc::new(Hub::new(options)), listener, address })
    }

    /// The address that is listened on, with the port that was found for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What others use while the broker runs.
    pub fn handle(&self) -> Handle {
        Handle { hub: self.hub.clone() }
    }

    /// Serves until `shutdown` is ready. Then nothing more is accepted or read; acknowledgements of messages that are with
    /// the application still go out as their verdicts come, for [`Options::shutdown_timeout`] at most; MQTT 5 clients are
    /// told that the server shuts down. Returns when all connections are gone.
    pub async fn run<I: Ingest>(self, ingest: Arc<I>, shutdown: impl Future<Output = ()>) {
        let Self { hub, listener, address } = self;
        let places = Arc::new(Semaphore::new(hub.options.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        tracing::info!(%address, "the broker listens");
        {
            let expiry = expire(&hub);
            tokio::pin!(shutdown, expiry);
            loop {
                tokio::select! {
                    () = &mut shutdown => break,
                    () = &mut expiry => {}
                    accepted = listener.accept() => match accepted {
                        Ok((stream, address)) => admit(&hub, &ingest, &places, &mut connections, stream, address),
                        Err(error) => {
                            tracing::warn!(%error, "a connection cannot be accepted");
                            sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    Some(ended) = connections.join_next() => report(ended),
                }
            }
        }
        drop(listener);
        hub.closing.send_replace(true);
        hub.close_all(Close::Drain);
        let all_gone = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if timeout(hub.options.shutdown_timeout, all_gone).await.is_err() {
            tracing::warn!(left = connections.len(), "connections are cut off: their messages got no verdict in time");
            connections.shutdown().await;
        }
        tracing::info!(%address, "the broker has stopped");
    }
}

fn admit<I: Ingest>(
    hub: &Arc<Hub>,
    ingest: &Arc<I>,
    places: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let Ok(place) = places.clone().try_acquire_owned() else {
        hub.counters.turned_away.add(1);
        tracing::warn!(%address, max_connections = hub.options.max_connections, "a connection too many is closed");
        return;
    };
    connections.spawn(connection::serve(hub.clone(), ingest.clone(), stream, address, place));
}

/// A connection that panics takes nothing else with it, but must not go unseen.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

/// Ends sessions in time. Never returns.
async fn expire(hub: &Hub) {
    loop {
        let next = hub.expire(Instant::now().into_std());
        tokio::select! {
            () = async {
                match next {
                    Some(next) => sleep_until(Instant::from_std(next)).await,
                    None => std::future::pending().await,
                }
            } => {}
            () = hub.earlier.notified() => {}
        }
    }
}

/// The way to a running broker from inside the process, from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    hub: Arc<Hub>,
}

impl Handle {
    /// Publishes to all subscribers, and as the topic's retained message when `retain` is set (an empty payload deletes
    /// it). MQTT 5 subscribers get the user properties, too. Returns how many sessions took it; a session whose queue is
    /// full does not.
    ///
    /// # Errors
    /// [`PublishError`] names the topic that no client could be sent, or the size.
    pub fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        user_properties: &[(&str, &str)],
    ) -> Result<usize, PublishError> {
        let wrong = |cause| Err(PublishError::Topic { topic: beginning(topic).to_owned(), cause });
        if topic.is_empty() {
            return wrong("it is empty");
        }
        if topic.len() > usize::from(u16::MAX) {
            return wrong("it is longer than 65,535 bytes");
        }
        if topic.contains(['+', '#']) {
            return wrong("it contains a wildcard");
        }
        if !is_valid_topic_name(topic) {
            return wrong("it contains U+0000");
        }
        let (bytes, max) = (topic.len() + payload.len(), self.hub.options.max_packet_bytes as usize);
        if bytes > max {
            return Err(PublishError::TooLarge { topic: beginning(topic).to_owned(), bytes, max });
        }
        let message = Message::new(topic.into(), payload, qos, retain).with_user_properties(user_properties);
        Ok(self.hub.route(message, Instant::now().into_std()))
    }

    /// Drops every connection without acknowledging what waits for its commit, so that devices connect and send again.
    /// For a store that failed.
    pub fn disconnect_all(&self) {
        self.hub.close_all(Close::SendAgain);
    }

    /// Counters and sizes now.
    pub fn stats(&self) -> Stats {
        self.hub.stats()
    }
}

/// Why a message from inside cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is no topic name (section 4.7.3).
    #[error("cannot publish to {topic:?}: {cause}")]
    Topic {
        /// Its first 100 bytes.
        topic: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The message is larger than clients may send.
    #[error("cannot publish to {topic:?}: topic and payload are {bytes} bytes, max_packet_bytes is {max}")]
    TooLarge {
        /// Its first 100 bytes.
        topic: String,
        /// Bytes of topic and payload.
        bytes: usize,
        /// [`Options::max_packet_bytes`].
        max: usize,
    },
}
