//! A broker in the test's own process, and a client that does exactly what a test says.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_broker::{Broker, Handle, Inbound, Ingest, Options, QoS};
use bytes::{Buf, BytesMut};
use mqtt5_protocol::packet::MqttPacket;
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::{SubscribePacket, TopicFilter};
use mqtt5_protocol::{ConnectOptions, FixedHeader, Packet, PacketType, Properties, ReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Nothing in these tests takes this long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// The value, or a failed test.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// An application that leaves the verdict to the test, and when it lets go of everything.
struct Held {
    inbox: mpsc::UnboundedSender<Inbound>,
    generation: Arc<AtomicU64>,
}

impl Ingest for Held {
    async fn submit(&self, inbound: Inbound) {
        // The test may have ended already; then nobody gives a verdict.
        let _ = self.inbox.send(inbound);
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

/// An application that takes everything at once.
struct TakeAll;

impl Ingest for TakeAll {
    async fn submit(&self, inbound: Inbound) {
        inbound.ack.accept();
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    /// That of an application that was started with `held()`.
    pub(crate) generation: Arc<AtomicU64>,
    inbox: Option<mpsc::UnboundedReceiver<Inbound>>,
    stop: oneshot::Sender<()>,
    run: JoinHandle<()>,
}

impl Server {
    /// Messages wait for the test's verdict.
    pub(crate) async fn held(options: Options) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let generation = Arc::default();
        let held = Held { inbox: sender, generation: Arc::clone(&generation) };
        Self { inbox: Some(inbox), generation, ..Self::start(options, held).await }
    }

    /// Messages are accepted at once.
    pub(crate) async fn open(options: Options) -> Self {
        Self::start(options, TakeAll).await
    }

    pub(crate) async fn start(options: Options, ingest: impl Ingest) -> Self {
        let broker =
            Broker::bind(Options { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..options }).await.expect("a free port");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        Self {
            address: broker.local_addr(),
            handle: broker.handle(),
            generation: Arc::default(),
            inbox: None,
            stop,
            run: tokio::spawn(broker.run(Arc::new(ingest), shutdown)),
        }
    }

    /// The next message that the application got.
    pub(crate) async fn inbound(&mut self) -> Inbound {
        let inbox = self.inbox.as_mut().expect("started with held()");
        soon("a message to the application", inbox.recv()).await.expect("the broker runs")
    }

    /// Whether the application has got nothing (more).
    pub(crate) fn nothing_inbound(&mut self) -> bool {
        self.inbox.as_mut().expect("started with held()").is_empty()
    }

    /// Asks the broker to stop; the future waits until it has.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        drop(self.stop);
        self.run
    }
}

/// One raw connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    pub(crate) version: u8,
}

pub(crate) fn connect_packet(version: u8, id: &str) -> ConnectPacket {
    let mut packet = ConnectPacket::new(ConnectOptions::new(id));
    packet.protocol_version = version;
    packet
}

impl Client {
    pub(crate) async fn raw(address: SocketAddr, version: u8) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.expect("the broker listens");
        Self { stream, buffer: BytesMut::new(), version }
    }

    /// Connects with a clean start.
    pub(crate) async fn connect(address: SocketAddr, version: u8, id: &str) -> Self {
        let (client, answer) = Self::with(address, connect_packet(version, id)).await;
        assert_eq!(answer.reason_code, ReasonCode::Success);
        client
    }

    pub(crate) async fn with(address: SocketAddr, packet: ConnectPacket) -> (Self, ConnAckPacket) {
        let mut client = Self::raw(address, packet.protocol_version).await;
        client.send(&packet).await;
        match client.next().await {
            Some(Packet::ConnAck(answer)) => (client, answer),
            other => panic!("expected a CONNACK, got {other:?}"),
        }
    }

    /// Connects and keeps the session for an hour.
    pub(crate) async fn persistent(address: SocketAddr, version: u8, id: &str, clean: bool) -> (Self, bool) {
        let mut packet = connect_packet(version, id);
        // For MQTT 3.1.1 a clean session would also end with the connection.
        packet.clean_start = clean && version == 5;
        if version == 5 {
            packet.properties.set_session_expiry_interval(3_600);
        }
        let (client, answer) = Self::with(address, packet).await;
        (client, answer.session_present)
    }

    pub(crate) async fn send(&mut self, packet: &impl MqttPacket) {
        let mut out = BytesMut::new();
        packet.encode(&mut out).expect("a packet that the codec can write");
        self.bytes(&out).await;
    }

    /// Sends to a broker that may have closed the connection meanwhile.
    pub(crate) async fn try_send(&mut self, packet: &impl MqttPacket) {
        let mut out = BytesMut::new();
        packet.encode(&mut out).expect("a packet that the codec can write");
        let _ = soon("the socket", self.stream.write_all(&out)).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        soon("the socket", self.stream.write_all(bytes)).await.expect("the broker reads");
    }

    /// The next packet, or `None` once the broker has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        soon("a packet", async {
            loop {
                let mut rest = &self.buffer[..];
                if let Ok(header) = FixedHeader::decode(&mut rest)
                    && rest.len() >= header.remaining_length as usize
                {
                    let consumed = self.buffer.len() - rest.len();
                    self.buffer.advance(consumed);
                    let mut body = self.buffer.split_to(header.remaining_length as usize).freeze();
                    let kind = header.packet_type;
                    if kind == PacketType::ConnAck {
                        return Some(Packet::decode_from_body(kind, &header, &mut body).expect("a valid CONNACK"));
                    }
                    let packet = Packet::decode_from_body_with_version(kind, &header, &mut body, self.version);
                    return Some(packet.expect("a valid packet from the broker"));
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// All bytes until the broker has closed the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut all = self.buffer.split().to_vec();
        // A reset is an end, too.
        let _ = soon("the end of the connection", self.stream.read_to_end(&mut all)).await;
        all
    }

    pub(crate) async fn message(&mut self) -> PublishPacket {
        match self.next().await {
            Some(Packet::Publish(packet)) => packet,
            other => panic!("expected a PUBLISH, got {other:?}"),
        }
    }

    /// The packet identifier of a PUBACK that says yes.
    pub(crate) async fn puback(&mut self) -> u16 {
        match self.next().await {
            Some(Packet::PubAck(ack)) if ack.reason_code == ReasonCode::Success => ack.packet_id,
            other => panic!("expected a PUBACK, got {other:?}"),
        }
    }

    /// The reason of the DISCONNECT, after which the connection must be closed.
    pub(crate) async fn disconnected(&mut self) -> ReasonCode {
        match self.next().await {
            Some(Packet::Disconnect(packet)) => {
                assert!(self.next().await.is_none(), "closed after a DISCONNECT");
                packet.reason_code
            }
            other => panic!("expected a DISCONNECT, got {other:?}"),
        }
    }

    /// Everything sent so far was handled, and nothing is on its way: the answer to a PINGREQ is the next packet.
    pub(crate) async fn quiet(&mut self) {
        self.bytes(&[0xc0, 0]).await;
        match self.next().await {
            Some(Packet::PingResp) => {}
            other => panic!("expected nothing but a PINGRESP, got {other:?}"),
        }
    }

    pub(crate) async fn publish(&mut self, packet: PublishPacket) {
        let packet = PublishPacket { protocol_version: self.version, ..packet };
        self.send(&packet).await;
    }

    pub(crate) async fn subscribe(&mut self, filters: &[TopicFilter], properties: Properties) -> Vec<u8> {
        let packet =
            SubscribePacket { packet_id: 1, filters: filters.to_vec(), properties, protocol_version: self.version };
        self.send(&packet).await;
        match self.next().await {
            Some(Packet::SubAck(ack)) => ack.reason_codes.into_iter().map(|code| code as u8).collect(),
            other => panic!("expected a SUBACK, got {other:?}"),
        }
    }

    /// Subscribes to one filter and is granted what it asks for.
    pub(crate) async fn wants(&mut self, filter: &str, qos: QoS) {
        let granted = self.subscribe(&[TopicFilter::new(filter, qos)], Properties::new()).await;
        assert_eq!(granted, [qos as u8]);
    }

    /// Ends with a DISCONNECT, after which the broker closes.
    pub(crate) async fn leave(mut self) {
        self.bytes(&[0xe0, 0]).await;
        assert!(self.next().await.is_none());
    }
}

pub(crate) fn qos_1(topic: &str, id: u16, payload: &str) -> PublishPacket {
    PublishPacket::new(topic, payload.to_owned(), QoS::AtLeastOnce).with_packet_id(id)
}

pub(crate) fn qos_2(topic: &str, id: u16, payload: &str) -> PublishPacket {
    PublishPacket::new(topic, payload.to_owned(), QoS::ExactlyOnce).with_packet_id(id)
}

pub(crate) fn qos_0(topic: &str, payload: &str) -> PublishPacket {
    PublishPacket::new(topic, payload.to_owned(), QoS::AtMostOnce)
}
