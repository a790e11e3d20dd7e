//! One connection from its CONNECT to its end. Its two halves, reading and writing, run side by side in one task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt5_protocol::{ProtocolVersion, ReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::time::{Instant, timeout};

use crate::encode;
use crate::handshake::{self, Hello, Rejection};
use crate::hub::{Hub, Seat};
use crate::ingest::{Ack, Inbound, Ingest, Presence};
use crate::link::{Close, Link};
use crate::message::user_properties;
use crate::reader::Input;
use crate::wire::Violation;
use crate::writer::BATCH;

/// Time for the last words to a client that is not reading. Longer helps nobody: the session is free already.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a client's that are read and thrown away at the end, so that they do not make the system reset the connection
/// before the last words arrive. A client that sends more than this meanwhile may miss them.
const FAREWELL_BYTES: usize = 4 << 20;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said DISCONNECT.
    Disconnected { with_will: bool, expiry: Option<Duration> },
    /// The socket did, or the client closed it without a word.
    Lost(std::io::Error),
    /// Nothing came for one and a half times the keep-alive.
    Silent,
    /// The client broke the protocol.
    Violation(Violation),
    /// Another connection has its name now.
    TakenOver { resumed: bool },
    /// Every device is to send again.
    SendAgain,
    /// The broker shuts down, and everything that was owed is sent.
    Drained,
    /// An MQTT 3.1.1 client published what the application refused.
    Refused(String),
    /// The application let go of a message without a verdict.
    Unanswered,
}

impl End {
    /// What an MQTT 5 client is told; `None` if it cannot or need not hear it.
    fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Disconnected { .. } | Self::Lost(_) => None,
            Self::Silent => Some(ReasonCode::KeepAliveTimeout),
            Self::Violation(violation) => Some(violation.reason),
            Self::TakenOver { .. } => Some(ReasonCode::SessionTakenOver),
            Self::SendAgain | Self::Unanswered => Some(ReasonCode::ServerBusy),
            Self::Drained => Some(ReasonCode::ServerShuttingDown),
            Self::Refused(_) => Some(ReasonCode::ImplementationSpecificError),
        }
    }

    fn log(&self, client: &str) {
        match self {
            Self::Disconnected { .. } => tracing::debug!(client, "the client disconnected"),
            Self::Lost(error) => tracing::debug!(client, %error, "the connection is lost"),
            Self::Silent => tracing::debug!(client, "closed: nothing came within 1.5 times the keep-alive"),
            Self::Violation(cause) => tracing::warn!(client, %cause, "closed: the client broke the protocol"),
            Self::TakenOver { .. } => tracing::debug!(client, "closed: the client connected again"),
            Self::SendAgain => tracing::debug!(client, "closed: every device is to send again"),
            Self::Drained => tracing::debug!(client, "closed: the broker shuts down"),
            Self::Refused(text) => tracing::warn!(client, text, "closed: a message was refused (MQTT 3.1.1)"),
            Self::Unanswered => tracing::warn!(client, "closed: a message got no verdict and is to be sent again"),
        }
    }

    /// Whether the will is published [MQTT-3.1.2-8, MQTT-3.14.4-3]. When the gateway itself ends the connection, the
    /// device is not gone: it comes back as soon as it can.
    fn wants_will(&self) -> bool {
        match self {
            Self::Disconnected { with_will, .. } => *with_will,
            Self::SendAgain | Self::Drained => false,
            _ => true,
        }
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        match close {
            Close::Drain => Self::Drained,
            Close::TakenOver { resumed } => Self::TakenOver { resumed },
            Close::SendAgain => Self::SendAgain,
        }
    }
}

/// What both halves of a connection know.
#[derive(Debug)]
pub(crate) struct Connection<I> {
    pub(crate) hub: Arc<Hub>,
    pub(crate) ingest: Arc<I>,
    pub(crate) link: Arc<Link>,
    pub(crate) seat: Arc<Seat>,
    pub(crate) hello: Hello,
}

/// Serves one client until it is gone and every message it published has its verdict.
pub(crate) async fn serve<I: Ingest>(
    hub: Arc<Hub>,
    ingest: Arc<I>,
    mut stream: TcpStream,
    address: SocketAddr,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
    }
    let link = Link::new(hub.next_id());
    let mut input = Input::default();
    let mut out = BytesMut::new();
    let mut closing = hub.closing.subscribe();
    let greeted = tokio::select! {
        greeted = timeout(hub.options.connect_timeout, greet(&hub, &link, &mut stream, &mut input, &mut out)) => greeted,
        _ = closing.wait_for(|closing| *closing) => return,
    };
    let (seat, hello) = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => {
            tracing::debug!(%address, "closed without a word");
            return;
        }
        Ok(Err(Rejection { cause, answer })) => {
            tracing::warn!(%address, %cause, "a client may not connect");
            farewell(stream, answer).await;
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "closed: no CONNECT within the deadline");
            return;
        }
    };
    tracing::debug!(client = %seat.client_id, identity = %hello.identity, %address, "connected");
    let mut connection = Connection { hub, ingest, link, seat, hello };
    let end = {
        let (mut read, mut write) = stream.split();
        let listen = async {
            connection.ingest.presence(&connection.hello.identity, Presence::Connected).await;
            connection.read(&mut read, &mut input).await
        };
        tokio::select! {
            end = listen => end,
            end = connection.write(&mut write, &mut out) => end,
        }
    };
    drop(input);
    end.log(&connection.seat.client_id);
    connection.leave(end, stream, out, permit).await;
}

/// Reads the CONNECT and takes the seat. The answer is left in `out`, so that it is the first to be written. `None`:
/// somebody who only looked whether the port is open, such as a load balancer.
async fn greet(
    hub: &Hub,
    link: &Arc<Link>,
    stream: &mut TcpStream,
    input: &mut Input,
    out: &mut BytesMut,
) -> Result<Option<(Arc<Seat>, Hello)>, Rejection> {
    let silent = |cause| Rejection { cause, answer: BytesMut::new() };
    let (mut read, _) = stream.split();
    let frame = loop {
        if let Some(frame) = input.next_frame(hub.options.max_packet_bytes).map_err(silent)? {
            break frame;
        }
        match input.fill(&mut read).await {
            Ok(()) => {}
            Err(_) if input.is_empty() => return Ok(None),
            Err(error) => return Err(silent(Violation::protocol(format!("no CONNECT: {error}")))),
        }
    };
    let hello = handshake::greet(frame, &hub.options, link.id).inspect_err(|rejection| {
        // The only thing for which a right is needed to connect is the will.
        hub.counters.denied.add(u64::from(rejection.cause.reason == ReasonCode::NotAuthorized));
    })?;
    let (seat, present) = hub
        .attach(&hello.claim, link, Instant::now().into_std())
        .map_err(|cause| Rejection::answered(hello.peer.version, cause, hello.peer.max_packet))?;
    encode::packet(out, &hello.connack(present));
    Ok(Some((seat, hello)))
}

impl<I> Drop for Connection<I> {
    /// However the task ends, by a panic of the application's too, the session is free afterwards.
    fn drop(&mut self) {
        self.hub.detach(&self.seat, &self.link, None, false, Instant::now().into_std());
    }
}

impl<I: Ingest> Connection<I> {
    /// Gives the session back, says the last words, sees to it that every message gets to its subscribers once it has its
    /// verdict, and publishes the will.
    async fn leave(
        &mut self,
        end: End,
        stream: TcpStream,
        mut out: BytesMut,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) {
        let now = Instant::now();
        let expiry = if let End::Disconnected { expiry, .. } = &end { *expiry } else { None };
        let will = self.hello.will.take().filter(|_| end.wants_will());
        // An absent client's session ends before a longer delay does, and the will goes then [MQTT-3.1.3-9].
        let delay =
            will.as_ref().map_or(Duration::ZERO, |will| will.delay.min(expiry.unwrap_or(self.hello.claim.expiry)));
        let gone = self.hub.detach(&self.seat, &self.link, expiry, !delay.is_zero(), now.into_std());
        if gone && !matches!(end, End::SendAgain | End::Drained) {
            self.ingest.presence(&self.hello.identity, Presence::Disconnected).await;
        }
        if let Some(reason) = end.reason() {
            if self.hello.peer.version == ProtocolVersion::V5 {
                encode::disconnect(&mut out, reason);
            }
            farewell(stream, out).await;
        } else {
            drop(stream);
        }
        drop(permit);
        self.settle().await;
        let Some(will) = will else { return };
        match end {
            // The client is back within the delay [MQTT-3.1.3-9].
            End::TakenOver { resumed: true } if !delay.is_zero() => return,
            End::TakenOver { .. } => {}
            _ if !delay.is_zero() && self.returns_before(now + delay).await => return,
            _ => {}
        }
        tracing::debug!(client = %self.seat.client_id, "the will is published");
        let message = will.message(self.seat.id, Instant::now().into_std());
        let inbound = (message.topic.clone(), message.payload.clone(), message.qos, message.retain);
        let sequence = self.link.shared().window.push(0, message);
        let (topic, payload, qos, retain) = inbound;
        self.ingest
            .submit(Inbound {
                client: self.hello.identity.clone(),
                topic,
                payload,
                qos,
                retain,
                duplicate: false,
                user_properties: user_properties(&will.properties),
                generation: None,
                ack: Ack::new(self.link.clone(), sequence),
            })
            .await;
        self.settle().await;
    }

    /// Waits for the verdicts that are still to come.
    async fn settle(&self) {
        let mut slots = Vec::new();
        loop {
            self.link.resolved(BATCH, &mut slots);
            let full = slots.len() == BATCH;
            for (slot, outcome) in slots.drain(..) {
                // How the connection should end does not matter any more.
                let _ = self.answer(slot, outcome, None);
            }
            if full {
                tokio::task::yield_now().await;
            } else if self.link.shared().window.is_empty() {
                return;
            } else {
                self.link.wake.notified().await;
            }
        }
    }

    /// Waits for the time of a delayed will. True when it is not to be published: the client resumed its session, or the
    /// broker shuts down.
    async fn returns_before(&self, deadline: Instant) -> bool {
        let mut closing = self.hub.closing.subscribe();
        loop {
            match self.link.shared().close {
                Some(Close::TakenOver { resumed }) => return resumed,
                Some(Close::Drain | Close::SendAgain) | None => {}
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return false,
                _ = closing.wait_for(|closing| *closing) => return true,
                () = self.link.wake.notified() => {}
            }
        }
    }
}

/// Sends the last words and closes.
async fn farewell(mut stream: TcpStream, mut out: BytesMut) {
    let (mut read, mut write) = stream.split();
    let talk = async {
        write_all(&mut write, &mut out).await?;
        write.shutdown().await?;
        let mut rest = (&mut read).take(FAREWELL_BYTES as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = timeout(FAREWELL, talk).await {
        tracing::trace!(%error, "the client did not hear the last words");
    }
}

/// Writes all of `out`. When the future is dropped halfway, `out` holds what is not written yet.
pub(crate) async fn write_all(write: &mut WriteHalf<'_>, out: &mut BytesMut) -> std::io::Result<()> {
    while !out.is_empty() {
        if write.write_buf(out).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}
