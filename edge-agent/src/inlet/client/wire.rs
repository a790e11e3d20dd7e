//! Packets of MQTT 3.1.1 on a socket, in rumqttc's encoding: read and written in bulk.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::{ConnectReturnCode, Login, Packet, mqttbytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::config::Connect;

/// What the broker is told (MQTT 3.1.1, section 3.1.2.10): if it hears nothing for one and a half times this, the client is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How often the broker is asked for an answer.
pub(super) const PING_EVERY: Duration = Duration::from_secs(20);

/// A broker that says nothing for so long, though it is asked, is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// How long it may take until the broker accepts a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// Room that is made for what comes next. Packets of a reading take some 100 bytes, so this is a hundred of them at a time.
const READ_BYTES: usize = 16 << 10;

/// Why a connection to a broker ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The socket's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It does not let the agent in.
    #[error("it refuses the agent: {0}")]
    Refused(&'static str),
    /// The connection's end, at the broker's wish.
    #[error(
        "it closed the connection; does another client have the same client_id, or does it not take packets of this size?"
    )]
    Closed,
    /// Nothing came.
    #[error("it sent nothing for {0:?}, though it was asked for an answer")]
    Silent(Duration),
    /// What came is no packet, or one larger than `max_packet_bytes`.
    #[error("what it sent cannot be read: {0}")]
    Malformed(mqttbytes::Error),
    /// What is to be sent fits into no packet.
    #[error("the packet for it cannot be made: {0}")]
    TooLarge(mqttbytes::Error),
    /// What came is no packet that a broker sends then.
    #[error("it sent a packet that has no place here: {0}")]
    Unexpected(&'static str),
    /// An event was not kept. The broker sends it again on the next connection, and on this one it never would.
    #[error("an event could not be kept, and the broker is to send it again")]
    NotKept,
}

/// Reads packets.
#[derive(Debug)]
pub(super) struct Packets<R> {
    stream: R,
    buffer: BytesMut,
    max_packet_bytes: usize,
    silence: Duration,
}

impl<R: AsyncRead + Unpin> Packets<R> {
    /// Packets of at most so many bytes, from this stream, which is given up when nothing comes for so long.
    pub(super) fn new(stream: R, max_packet_bytes: u32, silence: Duration) -> Self {
        Self { stream, buffer: BytesMut::new(), max_packet_bytes: max_packet_bytes as usize, silence }
    }

    /// The next packet. Nothing is lost when this is dropped while it waits.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(super) async fn next(&mut self) -> Result<Packet, WireError> {
        loop {
            match Packet::read(&mut self.buffer, self.max_packet_bytes) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(lacking)) => self.buffer.reserve(lacking.max(READ_BYTES)),
                Err(error) => return Err(WireError::Malformed(error)),
            }
            match timeout(self.silence, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(WireError::Closed),
                Ok(read) => _ = read?,
                Err(_) => return Err(WireError::Silent(self.silence)),
            }
        }
    }
}

/// A connection that the broker has accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    /// What comes.
    pub(super) packets: Packets<OwnedReadHalf>,
    /// The way to the broker.
    pub(super) write: OwnedWriteHalf,
    /// Whether it still had the session.
    pub(super) session_present: bool,
}

/// Connects with a session that outlives the connection.
///
/// # Errors
/// There is no way to the broker, or it does not let the agent in.
pub(super) async fn connect(to: &Connect) -> Result<Accepted, WireError> {
    let connecting = async {
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
        // Everything that is to be sent together is written at one go.
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let mut packets = Packets::new(read, to.max_packet_bytes, SILENCE);
        let mut hello = rumqttc::Connect::new(&to.client_id);
        hello.keep_alive = KEEP_ALIVE.as_secs() as u16;
        // The broker keeps what comes while the agent is away.
        hello.clean_session = false;
        hello.login = to.login.as_ref().map(|(user, password)| Login::new(user, &password.0));
        let mut bytes = BytesMut::new();
        written(hello.write(&mut bytes))?;
        write.write_all(&bytes).await?;
        match packets.next().await? {
            Packet::ConnAck(ack) => match refusal(ack.code) {
                None => Ok(Accepted { packets, write, session_present: ack.session_present }),
                Some(why) => Err(WireError::Refused(why)),
            },
            _ => Err(WireError::Unexpected("the first is to be a CONNACK")),
        }
    };
    timeout(CONNECT_WAIT, connecting).await.unwrap_or(Err(WireError::Silent(CONNECT_WAIT)))
}

/// What came of writing a packet.
///
/// # Errors
/// It is larger than a packet may be, 256 MB (MQTT 3.1.1, section 2.2.3).
pub(super) fn written(bytes: Result<usize, mqttbytes::Error>) -> Result<(), WireError> {
    bytes.map(drop).map_err(WireError::TooLarge)
}

// MQTT 3.1.1, table 3.1.
fn refusal(code: ConnectReturnCode) -> Option<&'static str> {
    match code {
        ConnectReturnCode::Success => None,
        ConnectReturnCode::RefusedProtocolVersion => Some("it does not speak MQTT 3.1.1"),
        ConnectReturnCode::BadClientId => Some("it does not take this client_id"),
        ConnectReturnCode::ServiceUnavailable => Some("it is not ready"),
        ConnectReturnCode::BadUserNamePassword => Some("user or password is wrong; see [mqtt.connect]"),
        ConnectReturnCode::NotAuthorized => {
            Some("this user may not connect; see [mqtt.connect] and the broker's own rules")
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::{Publish, QoS};
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    fn publish(packet: u16, payload: &[u8]) -> Publish {
        let mut publish = Publish::new("a/b", QoS::AtLeastOnce, payload);
        publish.pkid = packet;
        publish
    }

    #[tokio::test]
    async fn packets_are_read_however_they_are_divided() {
        let sent: Vec<Publish> = (1..=50).map(|n| publish(n, &vec![n as u8; usize::from(n) * 700])).collect();
        let mut bytes = BytesMut::new();
        for publish in &sent {
            publish.write(&mut bytes).unwrap();
        }
        for at_once in [1, 7, 1_000, bytes.len()] {
            let (mut far, near) = duplex(1 << 20);
            let mut packets = Packets::new(near, 40_000, SILENCE);
            let bytes = bytes.clone();
            let writing = tokio::spawn(async move {
                for chunk in bytes.chunks(at_once) {
                    far.write_all(chunk).await.unwrap();
                }
            });
            for publish in &sent {
                assert_eq!(packets.next().await.unwrap(), Packet::Publish(publish.clone()));
            }
            writing.await.unwrap();
            assert!(matches!(packets.next().await, Err(WireError::Closed)));
        }
    }

    #[tokio::test]
    async fn a_packet_beyond_the_bound_ends_the_connection_before_it_is_read() {
        let (mut far, near) = duplex(1 << 10);
        let mut bytes = BytesMut::new();
        publish(1, &[0; 2_000]).write(&mut bytes).unwrap();
        far.write_all(&bytes[..10]).await.unwrap();
        let error = Packets::new(near, 1_000, SILENCE).next().await.unwrap_err();
        assert!(matches!(error, WireError::Malformed(_)), "{error}");
    }

    #[tokio::test]
    async fn a_broker_that_says_nothing_is_gone() {
        let (_far, near) = duplex(1 << 10);
        let silence = Duration::from_millis(1);
        let error = Packets::new(near, 1_000, silence).next().await.unwrap_err();
        assert!(matches!(error, WireError::Silent(after) if after == silence), "{error}");
    }
}
