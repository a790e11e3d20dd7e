//! The reading half of a connection: bytes to packets, packets to what they ask for. It goes on reading while publishes
//! wait for their commit, up to the receive window.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::{Packet, PacketType, ProtocolVersion, QoS, ReasonCode};
use tokio::net::tcp::ReadHalf;
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, End};
use crate::encode;
use crate::handshake::TOPIC_ALIASES;
use crate::ingest::{Ack, Inbound, Ingest, Refusal, RefusalCode};
use crate::message::{Message, user_properties};
use crate::session::{Arrival, Release};
use crate::wire::{Frame, Violation, beginning, next_frame};

/// Bytes asked of the socket in one read: little while a connection says little, much while it says much.
const LEAST_READ: usize = 1 << 10;
const MOST_READ: usize = 64 << 10;

/// Bytes of replies that may wait to be written. A client that asks and does not read is not read any further.
const MAX_REPLIES: usize = 64 << 10;

/// What came from the socket, and what the connection remembers of it.
#[derive(Debug)]
pub(crate) struct Input {
    buffer: BytesMut,
    /// Bytes asked for in the next read.
    chunk: usize,
    /// Topics behind the aliases of the client, by alias.
    aliases: Vec<Option<Arc<str>>>,
    /// The last topic: most devices publish to the same one again and again.
    last_topic: Option<Arc<str>>,
    /// A publish was denied already: the operator is told of a client, not of each of its messages.
    denied: bool,
}

impl Default for Input {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), chunk: LEAST_READ, aliases: Vec::new(), last_topic: None, denied: false }
    }
}

impl Input {
    pub(crate) fn next_frame(&mut self, max: u32) -> Result<Option<Frame>, Violation> {
        next_frame(&mut self.buffer, max)
    }

    /// Whether nothing came that was not taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Waits for bytes. The buffer exists only while it holds some, so that idle connections cost little.
    pub(crate) async fn fill(&mut self, read: &mut ReadHalf<'_>) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        loop {
            read.readable().await?;
            self.buffer.reserve(self.chunk);
            match read.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    if count >= self.chunk {
                        self.chunk = (self.chunk * 2).min(MOST_READ);
                    } else if count < self.chunk / 4 {
                        self.chunk = (self.chunk / 2).max(LEAST_READ);
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The topic of a PUBLISH, which may be named by an alias [MQTT-3.3.2-8 to -12].
    fn topic(&mut self, packet: &mut PublishPacket) -> Result<Arc<str>, Violation> {
        let name = std::mem::take(&mut packet.topic_name);
        let alias = packet.properties.get_topic_alias();
        if let Some(alias) = alias.filter(|alias| *alias > TOPIC_ALIASES) {
            let cause = format!("topic alias {alias}; {TOPIC_ALIASES} are allowed");
            return Err(Violation::new(ReasonCode::TopicAliasInvalid, cause));
        }
        if let (true, Some(alias)) = (name.is_empty(), alias) {
            let known = self.aliases.get(usize::from(alias)).cloned().flatten();
            return known.ok_or_else(|| Violation::protocol(format!("topic alias {alias} stands for nothing yet")));
        }
        let topic = match &self.last_topic {
            Some(last) if **last == *name => last.clone(),
            _ => Arc::from(name),
        };
        self.last_topic = Some(topic.clone());
        if let Some(alias) = alias {
            let index = usize::from(alias);
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, None);
            }
            self.aliases[index] = Some(topic.clone());
        }
        Ok(topic)
    }
}

impl<I: Ingest> Connection<I> {
    /// Reads until the connection is to end.
    pub(crate) async fn read(&self, read: &mut ReadHalf<'_>, input: &mut Input) -> End {
        // One and a half times the keep-alive [MQTT-3.1.2-22].
        let patience = self.hello.keep_alive.map(|keep_alive| keep_alive * 3 / 2);
        let mut heard = Instant::now();
        let alarm = sleep_until(heard + patience.unwrap_or_default());
        tokio::pin!(alarm);
        loop {
            match self.packets(input).await {
                Ok(true) => heard = Instant::now(),
                Ok(false) => {}
                Err(end) => return end,
            }
            tokio::select! {
                filled = input.fill(read) => if let Err(error) = filled {
                    return End::Lost(error);
                },
                // The alarm is set anew only when it rings, not for every packet.
                () = silence(&mut heard, patience, alarm.as_mut()) => return End::Silent,
            }
        }
    }

    /// Handles the packets that are complete. True when there was one.
    async fn packets(&self, input: &mut Input) -> Result<bool, End> {
        let mut any = false;
        loop {
            self.room().await;
            let Some(frame) = input.next_frame(self.hub.options.max_packet_bytes)? else { return Ok(any) };
            any = true;
            self.handle(frame.decode(self.hello.peer.version)?, input).await?;
        }
    }

    /// Waits until there is room for one more publish and its acknowledgement; for ever once nothing is to be read, for
    /// then the writing half ends the connection.
    async fn room(&self) {
        // The one publish too many of an MQTT 5 client has to be seen, for it is against the protocol.
        let limit = self.window() + usize::from(self.hello.peer.version == ProtocolVersion::V5);
        loop {
            {
                let mut shared = self.link.shared();
                // QoS 0 messages have places of their own, for a full Receive Maximum must hold back nothing else
                // [MQTT-4.9.0-3].
                let acknowledged = shared.window.unacknowledged();
                let others = shared.window.len() - acknowledged;
                let full = acknowledged >= limit || others >= self.window() || shared.replies.len() >= MAX_REPLIES;
                if !full && shared.close.is_none() {
                    return;
                }
                shared.reader_waits = true;
            }
            self.link.room.notified().await;
        }
    }

    fn window(&self) -> usize {
        self.hub.options.receive_window.into()
    }

    async fn handle(&self, packet: Packet, input: &mut Input) -> Result<(), End> {
        let version = self.hello.peer.version;
        match packet {
            Packet::Publish(packet) => self.on_publish(packet, input).await?,
            Packet::PubAck(packet) => self.with_session(|session| session.outbox.on_puback(packet.packet_id))?,
            Packet::PubRec(packet) => {
                let (id, failed) = (packet.packet_id, packet.reason_code.is_error());
                let known = self.with_session(|session| session.outbox.on_pubrec(id, failed))?;
                if !failed {
                    let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
                    self.link.reply(|out| encode::ack(out, version, PacketType::PubRel, id, reason as u8, ""));
                }
            }
            Packet::PubRel(packet) => {
                let id = packet.packet_id;
                let reason = match self.with_session(|session| session.on_pubrel(id)) {
                    Release::Known => ReasonCode::Success,
                    Release::Unknown => ReasonCode::PacketIdentifierNotFound,
                    Release::TooEarly => {
                        return Err(Violation::protocol(format!("PUBREL for {id} before its PUBREC")).into());
                    }
                };
                self.link.reply(|out| encode::ack(out, version, PacketType::PubComp, id, reason as u8, ""));
            }
            Packet::PubComp(packet) => self.with_session(|session| session.outbox.on_pubcomp(packet.packet_id)),
            Packet::Subscribe(packet) => self.on_subscribe(packet)?,
            Packet::Unsubscribe(packet) => self.on_unsubscribe(packet)?,
            Packet::PingReq => self.link.reply(|out| out.extend_from_slice(&[(PacketType::PingResp as u8) << 4, 0])),
            Packet::Disconnect(packet) => return Err(self.on_disconnect(&packet)),
            Packet::Connect(_) => return Err(Violation::protocol("a second CONNECT [MQTT-3.1.0-2]").into()),
            // Refused when they were decoded.
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp | Packet::Auth(_) => {
                return Err(Violation::protocol(format!("a client may not send {}", packet.packet_type_name())).into());
            }
        }
        Ok(())
    }

    /// Changes the session; then there may be something to send.
    fn with_session<R>(&self, change: impl FnOnce(&mut crate::session::Session) -> R) -> R {
        let changed = change(&mut self.seat.place().session);
        self.link.wake.notify_one();
        changed
    }

    async fn on_publish(&self, mut packet: PublishPacket, input: &mut Input) -> Result<(), End> {
        let topic = input.topic(&mut packet)?;
        let packet_id = packet.packet_id.unwrap_or(0);
        match self.arrival(&packet, packet_id)? {
            Arrival::New => {}
            Arrival::Waiting => return Ok(()),
            Arrival::Committed => {
                let version = self.hello.peer.version;
                self.link.reply(|out| encode::ack(out, version, PacketType::PubRec, packet_id, 0, ""));
                return Ok(());
            }
        }
        let message = Message::from_publish(&packet, topic.clone(), self.seat.id, Instant::now().into_std());
        let current = self.ingest.generation();
        let (sequence, generation) = {
            let mut shared = self.link.shared();
            if shared.window.unacknowledged() == 0 {
                shared.generation = current;
            }
            (shared.window.push(packet_id, message), shared.generation)
        };
        let ack = Ack::new(self.link.clone(), sequence);
        if !self.seat.rights.may_publish(&topic) {
            self.hub.counters.denied.add(1);
            if !std::mem::replace(&mut input.denied, true) {
                let client = &self.seat.client_id;
                tracing::warn!(%client, topic = beginning(&topic), "publishes are refused: no access rule allows them");
            }
            // In its turn, as every other verdict.
            ack.refuse(Refusal::new(
                RefusalCode::NotAuthorized,
                "no access rule lets this client publish to the topic",
            ));
            return Ok(());
        }
        self.hub.counters.publishes_in.add(1);
        let user_properties =
            if packet.properties.is_empty() { Vec::new() } else { user_properties(&packet.properties) };
        self.ingest
            .submit(Inbound {
                client: self.hello.identity.clone(),
                topic,
                payload: packet.payload,
                qos: packet.qos,
                retain: packet.retain,
                duplicate: packet.dup,
                user_properties,
                generation: (packet.qos != QoS::AtMostOnce).then_some(generation),
                ack,
            })
            .await;
        Ok(())
    }

    /// Whether the application has to see a PUBLISH.
    fn arrival(&self, packet: &PublishPacket, packet_id: u16) -> Result<Arrival, Violation> {
        let mut place = self.seat.place();
        let shared = self.link.shared();
        match packet.qos {
            QoS::AtMostOnce => return Ok(Arrival::New),
            // Sent again on the same connection while the first one waits: one acknowledgement answers both.
            QoS::AtLeastOnce if packet.dup && shared.window.awaits(packet_id) => return Ok(Arrival::Waiting),
            QoS::AtLeastOnce => {}
            QoS::ExactlyOnce => match place.session.on_publish(packet_id, self.link.id) {
                Arrival::New => {}
                known => return Ok(known),
            },
        }
        if self.hello.peer.version == ProtocolVersion::V5 {
            // It was told how many may be unacknowledged; QoS 2 messages are so until PUBCOMP [MQTT-3.3.4-7].
            let open = shared.window.unacknowledged() + place.session.unreleased() + 1;
            if open > self.window() {
                let cause = format!("{open} unacknowledged publishes; the Receive Maximum is {}", self.window());
                return Err(Violation::new(ReasonCode::ReceiveMaximumExceeded, cause));
            }
        }
        if packet.qos == QoS::ExactlyOnce {
            place.session.begin(packet_id, self.link.id);
        }
        Ok(Arrival::New)
    }

    fn on_disconnect(&self, packet: &DisconnectPacket) -> End {
        let expiry = packet.properties.get_session_expiry_interval();
        if expiry.is_some_and(|seconds| seconds > 0) && !self.hello.asked_for_expiry {
            return Violation::protocol("DISCONNECT gives a session an expiry that had none (section 3.14.2.2.2)")
                .into();
        }
        End::Disconnected {
            // Only a normal disconnection takes the will back [MQTT-3.14.4-3].
            with_will: packet.reason_code != ReasonCode::Success,
            expiry: expiry.map(|s| Duration::from_secs(s.into()).min(self.hub.options.max_session_expiry)),
        }
    }
}

/// Returns once nothing was heard for as long as `patience` allows.
async fn silence(heard: &mut Instant, patience: Option<Duration>, mut alarm: std::pin::Pin<&mut tokio::time::Sleep>) {
    let Some(patience) = patience else { return pending().await };
    loop {
        alarm.as_mut().await;
        if Instant::now() >= *heard + patience {
            return;
        }
        alarm.as_mut().reset(*heard + patience);
    }
}
