//! CONNECT: who comes, with which version, and what was agreed on. Pure; the connection sends the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::{Packet, PacketType, Properties, PropertyId, PropertyValue, ProtocolVersion, QoS, ReasonCode};

use crate::encode;
use crate::hub::Claim;
use crate::message::Message;
use crate::options::Options;
use crate::outbox::Peer;
use crate::rules::Rights;
use crate::wire::{Frame, Violation, beginning};

/// Topics that a client may give an alias on one connection. Enough for what one device publishes; each costs its name.
pub(crate) const TOPIC_ALIASES: u16 = 32;

/// Bytes of a client identifier. The standard asks for 23 at least; longer than this is a mistake.
const MAX_CLIENT_ID: usize = 256;

/// A client that may connect.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) claim: Claim,
    /// How the application knows it: the user name if one was authenticated.
    pub(crate) identity: Arc<str>,
    pub(crate) peer: Peer,
    /// `None` when the client asked for none and cannot be told otherwise.
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) will: Option<Will>,
    /// Whether it asked for a session that outlives the connection, which says nothing about what it got.
    pub(crate) asked_for_expiry: bool,
    /// Properties of the CONNACK.
    answer: Properties,
}

/// The message to publish when the client is gone without a word.
#[derive(Debug)]
pub(crate) struct Will {
    topic: Arc<str>,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    pub(crate) properties: Properties,
    pub(crate) delay: Duration,
}

impl Will {
    /// Its expiry interval begins now.
    pub(crate) fn message(&self, origin: u64, now: Instant) -> Message {
        Message::new(self.topic.clone(), self.payload.clone(), self.qos, self.retain).with_properties(
            &self.properties,
            origin,
            now,
        )
    }
}

/// A client that may not connect.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) cause: Violation,
    /// The CONNACK to send before the connection is closed; empty where the standard wants silence.
    pub(crate) answer: BytesMut,
}

impl Rejection {
    fn silent(cause: Violation) -> Self {
        Self { cause, answer: BytesMut::new() }
    }

    /// `most` bounds the answer, in bytes: a reason string that does not fit is left out [MQTT-3.2.2-19], and so is the
    /// whole answer.
    pub(crate) fn answered(version: ProtocolVersion, cause: Violation, most: usize) -> Self {
        let mut answer = BytesMut::new();
        match version {
            ProtocolVersion::V311 => encode::packet(&mut answer, &ConnAckPacket::new_v311(false, cause.reason)),
            ProtocolVersion::V5 => {
                let terse = ConnAckPacket::new(false, cause.reason);
                encode::packet(&mut answer, &terse.clone().with_reason_string(cause.cause.clone().into_owned()));
                if answer.len() > most {
                    answer.clear();
                    encode::packet(&mut answer, &terse);
                }
                if answer.len() > most {
                    answer.clear();
                }
            }
        }
        Self { cause, answer }
    }
}

/// Judges the first packet of a connection. `fresh_id` is used when the client leaves its identifier to the broker.
pub(crate) fn greet(frame: Frame, options: &Options, fresh_id: u64) -> Result<Hello, Rejection> {
    let version = version(&frame)?;
    let packet = match frame.decode(version) {
        Ok(Packet::Connect(packet)) => *packet,
        Ok(_) => return Err(Rejection::silent(Violation::protocol("the first packet is no CONNECT [MQTT-3.1.0-1]"))),
        // For a malformed CONNECT, MQTT 3.1.1 knows no return code: the connection is closed [MQTT-3.1.4-1].
        Err(cause) if version == ProtocolVersion::V311 => return Err(Rejection::silent(cause)),
        Err(cause) => return Err(Rejection::answered(version, cause, usize::MAX)),
    };
    let most = max_packet(&packet.properties);
    admit(packet, version, options, fresh_id)
        .and_then(|hello| hello.fits(most))
        .map_err(|cause| Rejection::answered(version, cause, most))
}

/// Reads the version before anything else is decoded, since all else depends on it.
fn version(frame: &Frame) -> Result<ProtocolVersion, Rejection> {
    if frame.header.packet_type != PacketType::Connect {
        return Err(Rejection::silent(Violation::protocol("the first packet is no CONNECT [MQTT-3.1.0-1]")));
    }
    match &frame.body[..] {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Ok(ProtocolVersion::V311),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Ok(ProtocolVersion::V5),
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => {
            // In the form of MQTT 3.1.1, which every version can read [MQTT-3.1.2-2].
            let cause = format!("protocol level {level}; 4 (MQTT 3.1.1) and 5 (MQTT 5) are spoken here");
            let cause = Violation::new(ReasonCode::UnsupportedProtocolVersion, cause);
            Err(Rejection::answered(ProtocolVersion::V311, cause, usize::MAX))
        }
        _ => Err(Rejection::silent(Violation::protocol("the protocol name is not MQTT [MQTT-3.1.2-1]"))),
    }
}

fn admit(
    packet: ConnectPacket,
    version: ProtocolVersion,
    options: &Options,
    fresh_id: u64,
) -> Result<Hello, Violation> {
    if packet.properties.contains(PropertyId::AuthenticationMethod) {
        let cause = "extended authentication is not offered";
        return Err(Violation::new(ReasonCode::BadAuthenticationMethod, cause));
    }
    let user = options
        .access
        .authenticate(packet.username.as_deref(), packet.password.as_deref().unwrap_or_default())
        .map_err(|()| {
            let cause = format!(
                "user name {:?} and password are not known",
                beginning(packet.username.as_deref().unwrap_or_default())
            );
            Violation::new(ReasonCode::BadUsernameOrPassword, cause)
        })?
        .map(Arc::<str>::from);
    let mut answer = Properties::new();
    let client_id = client_id(&packet.client_id, packet.clean_start, version, fresh_id, &mut answer)?;
    let terms = match version {
        ProtocolVersion::V311 => Terms::of_v311(packet.clean_start, packet.keep_alive, options),
        ProtocolVersion::V5 => Terms::of_v5(&packet.properties, packet.keep_alive, options, &mut answer),
    };
    let rights = Rights::of(&options.rules, user.as_deref(), &client_id);
    if let Some(will) = packet.will.as_ref().filter(|will| !rights.may_publish(&will.topic)) {
        // Said now, for nobody can be told when the will is due.
        let cause = format!("no access rule lets this client publish its will to {:?}", beginning(&will.topic));
        return Err(Violation::new(ReasonCode::NotAuthorized, cause));
    }
    let asked_for_expiry = packet.properties.get_session_expiry_interval().is_some_and(|seconds| seconds > 0);
    let will = packet.will.map(|will| Will {
        topic: will.topic.into(),
        payload: will.payload.into(),
        qos: will.qos,
        retain: will.retain,
        delay: Duration::from_secs(number(&packet.will_properties, PropertyId::WillDelayInterval).unwrap_or(0).into()),
        properties: packet.will_properties,
    });
    Ok(Hello {
        identity: user.clone().unwrap_or_else(|| client_id.clone()),
        claim: Claim {
            client_id,
            user,
            rights: Arc::new(rights),
            clean_start: packet.clean_start,
            expiry: terms.expiry,
        },
        peer: Peer { version, ..terms.peer },
        keep_alive: terms.keep_alive,
        will,
        asked_for_expiry,
        answer,
    })
}

fn client_id(
    asked: &str,
    clean_start: bool,
    version: ProtocolVersion,
    fresh_id: u64,
    answer: &mut Properties,
) -> Result<Arc<str>, Violation> {
    if asked.len() > MAX_CLIENT_ID {
        let cause = format!("a client identifier of {} bytes; {MAX_CLIENT_ID} are allowed", asked.len());
        return Err(Violation::new(ReasonCode::ClientIdentifierNotValid, cause));
    }
    if !asked.is_empty() {
        return Ok(asked.into());
    }
    if version == ProtocolVersion::V311 && !clean_start {
        // The client could never find its session again [MQTT-3.1.3-8].
        let cause = "an empty client identifier without a clean session";
        return Err(Violation::new(ReasonCode::ClientIdentifierNotValid, cause));
    }
    let id = format!("unnamed-{fresh_id}");
    answer.set_assigned_client_identifier(id.clone());
    Ok(id.into())
}

/// What was agreed on beside the name.
struct Terms {
    expiry: Duration,
    keep_alive: Option<Duration>,
    peer: Peer,
}

impl Terms {
    fn of_v311(clean_session: bool, keep_alive: u16, options: &Options) -> Self {
        Self {
            // Without a clean session the standard sets no end; the bound is ours (section 3.1.2.4).
            expiry: if clean_session { Duration::ZERO } else { options.max_session_expiry },
            keep_alive: (keep_alive > 0).then(|| Duration::from_secs(keep_alive.into())),
            peer: Peer {
                version: ProtocolVersion::V311,
                window: options.send_window.into(),
                max_packet: usize::MAX,
                aliases: 0,
                reasons: false,
            },
        }
    }

    /// Notes in `answer` where the client does not get what it asked for.
    fn of_v5(properties: &Properties, keep_alive: u16, options: &Options, answer: &mut Properties) -> Self {
        let asked = Duration::from_secs(properties.get_session_expiry_interval().unwrap_or(0).into());
        let expiry = asked.min(options.max_session_expiry);
        if expiry < asked {
            answer.set_session_expiry_interval(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
        }
        let most = u16::try_from(options.max_keep_alive.as_secs()).unwrap_or(u16::MAX);
        let keep = if keep_alive == 0 { most } else { keep_alive.min(most) };
        if keep != keep_alive {
            answer.set_server_keep_alive(keep);
        }
        answer.set_receive_maximum(options.receive_window);
        answer.set_maximum_packet_size(options.max_packet_bytes);
        answer.set_topic_alias_maximum(TOPIC_ALIASES);
        let window = properties.get_receive_maximum().unwrap_or(u16::MAX).min(options.send_window);
        Self {
            expiry,
            keep_alive: Some(Duration::from_secs(keep.into())),
            peer: Peer {
                version: ProtocolVersion::V5,
                window: window.into(),
                max_packet: max_packet(properties),
                aliases: properties.get_topic_alias_maximum().unwrap_or(0).min(TOPIC_ALIASES),
                reasons: properties.get_request_problem_information().unwrap_or(true),
            },
        }
    }
}

/// The largest packet that a client takes, in bytes. MQTT 3.1.1 has no such property.
fn max_packet(properties: &Properties) -> usize {
    properties.get_maximum_packet_size().map_or(usize::MAX, |size| size as usize)
}

impl Hello {
    /// Refuses a client that could not take the answer, which names what it must know [MQTT-3.1.2-24].
    fn fits(self, most: usize) -> Result<Self, Violation> {
        let mut answer = BytesMut::new();
        encode::packet(&mut answer, &self.connack(false));
        if answer.len() <= most {
            return Ok(self);
        }
        let cause = format!("the CONNACK is {} bytes, and the client's Maximum Packet Size {most}", answer.len());
        Err(Violation::new(ReasonCode::PacketTooLarge, cause))
    }

    /// The answer that says yes.
    pub(crate) fn connack(&self, session_present: bool) -> ConnAckPacket {
        match self.peer.version {
            ProtocolVersion::V311 => ConnAckPacket::new_v311(session_present, ReasonCode::Success),
            ProtocolVersion::V5 => {
                let mut packet = ConnAckPacket::new(session_present, ReasonCode::Success);
                packet.properties = self.answer.clone();
                packet
            }
        }
    }
}

fn number(properties: &Properties, id: PropertyId) -> Option<u32> {
    match properties.get(id) {
        Some(PropertyValue::FourByteInteger(value)) => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use mqtt5_protocol::ConnectOptions;
    use mqtt5_protocol::packet::MqttPacket;

    use super::*;
    use crate::options::Access;
    use crate::wire::next_frame;

    fn frame(bytes: &[u8]) -> Frame {
        next_frame(&mut BytesMut::from(bytes), u32::MAX).unwrap().unwrap()
    }

    fn connect(version: u8, id: &str, change: impl FnOnce(&mut ConnectPacket)) -> Frame {
        let mut packet = ConnectPacket::new(ConnectOptions::new(id));
        packet.protocol_version = version;
        change(&mut packet);
        let mut out = BytesMut::new();
        packet.encode(&mut out).unwrap();
        frame(&out)
    }

    #[test]
    fn versions_and_names_that_are_not_spoken() {
        let answer = |bytes: &[u8]| greet(frame(bytes), &Options::default(), 1).unwrap_err().answer;
        assert_eq!(answer(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0"), &[0x20, 2, 0, 1][..]);
        assert_eq!(answer(b"\x10\x0c\0\x04MQTT\x06\x02\0\x3c\0\0"), &[0x20, 2, 0, 1][..]);
        assert_eq!(answer(b"\x10\x0a\0\x02hj\x04\x02\0\x3c\0\0"), &[][..]);
        assert_eq!(answer(b"\xc0\0"), &[][..]);
        assert_eq!(answer(b"\x10\x0c\0\x04MQTT\x04\x03\0\x3c\0\0"), &[][..], "reserved flag, 3.1.1");
        assert_eq!(answer(b"\x10\x0d\0\x04MQTT\x05\x03\0\x3c\0\0\0")[3], 0x81, "reserved flag, 5");
    }

    #[test]
    fn a_client_without_a_name_gets_one_where_the_standard_allows() {
        let options = Options::default();
        let refused = greet(connect(4, "", |c| c.clean_start = false), &options, 7).unwrap_err();
        assert_eq!(refused.answer, &[0x20, 2, 0, 2][..]);
        let hello = greet(connect(5, "", |c| c.clean_start = false), &options, 7).unwrap();
        assert_eq!(&*hello.claim.client_id, "unnamed-7");
        assert!(hello.connack(false).properties.contains(PropertyId::AssignedClientIdentifier));
    }

    #[test]
    fn terms_are_bounded_and_an_mqtt_5_client_is_told() {
        let options = Options { max_session_expiry: Duration::from_secs(50), ..Options::default() };
        let hello = greet(
            connect(5, "a", |c| {
                c.keep_alive = 0;
                c.properties.set_session_expiry_interval(u32::MAX);
                c.properties.set_receive_maximum(3);
            }),
            &options,
            1,
        )
        .unwrap();
        assert_eq!((hello.claim.expiry, hello.peer.window), (Duration::from_secs(50), 3));
        let told = hello.connack(false).properties;
        assert_eq!(told.get_server_keep_alive(), Some(600));
        assert_eq!(told.get_session_expiry_interval(), Some(50));
        let old = greet(connect(4, "a", |c| c.keep_alive = 0), &options, 1).unwrap();
        assert_eq!(old.keep_alive, None);
    }

    #[test]
    fn no_answer_is_larger_than_the_client_takes() {
        let options = Options::default();
        let with = |size: u32, id: &str| {
            let frame = connect(5, id, |c| {
                c.keep_alive = 0;
                c.properties.set_maximum_packet_size(size);
            });
            greet(frame, &options, 1)
        };
        let mut needed = BytesMut::new();
        encode::packet(&mut needed, &with(100, "a").unwrap().connack(false));
        assert!(with(needed.len() as u32, "a").is_ok());
        for size in [5, needed.len() as u32 - 1] {
            assert_eq!(with(size, "a").unwrap_err().answer, &[0x20, 3, 0, 0x95, 0][..]);
        }
        assert_eq!(with(4, "a").unwrap_err().answer, &[][..]);
        let long = "x".repeat(MAX_CLIENT_ID + 1);
        assert_eq!(with(20, &long).unwrap_err().answer, &[0x20, 3, 0, 0x85, 0][..]);
        assert!(with(100, &long).unwrap_err().answer.len() > 5, "there is room for the reason");
    }

    #[test]
    fn the_identity_is_the_authenticated_user() {
        let users = HashMap::from([("user".to_owned(), "secret".to_owned())]);
        let options = Options { access: Access::Passwords(users), ..Options::default() };
        let with = |user: &str, password: &str, version| {
            connect(version, "id", |c| {
                c.username = Some(user.to_owned());
                c.password = Some(password.into());
            })
        };
        assert_eq!(&*greet(with("user", "secret", 5), &options, 1).unwrap().identity, "user");
        assert_eq!(&*greet(with("user", "secret", 5), &Options::default(), 1).unwrap().identity, "id");
        assert_eq!(greet(with("user", "wrong", 4), &options, 1).unwrap_err().answer, &[0x20, 2, 0, 4][..]);
        assert_eq!(greet(with("user", "wrong", 5), &options, 1).unwrap_err().answer[3], 0x86);
        let method = connect(5, "id", |c| c.properties.set_authentication_method("x".to_owned()));
        assert_eq!(greet(method, &options, 1).unwrap_err().answer[3], 0x8c);
    }
}
