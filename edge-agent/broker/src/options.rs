//! What an operator may set, what it is when nothing is said, and why.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::rules::Rule;

/// Settings of a [`Broker`](crate::Broker). Every limit has a default; none is unlimited.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port to listen on. Default `127.0.0.1:1883`: a broker that anybody may use is not put on a network
    /// by accident. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections at one time. Default 10,000: each costs a file descriptor and a few KiB. One more is closed at once.
    pub max_connections: usize,
    /// Largest packet taken from a client, in bytes with its header. Default 1 MiB: a sensor needs some hundred bytes, a
    /// picture of a camera fits. It also bounds what one connection can make the broker hold while a packet is read.
    pub max_packet_bytes: u32,
    /// Publishes of one connection that may wait for their commit at one time. Default 1,024: with a commit of 10 ms one
    /// connection reaches 100,000 messages/s. MQTT 5 clients are told so (Receive Maximum) and closed when they exceed it;
    /// MQTT 3.1.1 knows no such limit, so the broker stops reading until a place is free. QoS 0 messages have as many
    /// places of their own.
    pub receive_window: u16,
    /// QoS 1 and 2 messages sent to one subscriber and not acknowledged by it yet. Default 256: enough to keep a link of
    /// 100 ms round-trip time busy at 2,500 messages/s. An MQTT 5 client may ask for less (its Receive Maximum).
    pub send_window: u16,
    /// Messages that wait for one slow or absent subscriber; further ones are dropped and counted. Default 10,000: what a
    /// commit makes ready at once, ten full receive windows, must fit even if the subscriber has read everything so far.
    pub session_queue: usize,
    /// Payload bytes that wait for one slow or absent subscriber. Default 4 MiB: 10,000 messages of some 400 bytes.
    pub session_queue_bytes: usize,
    /// Sessions, connected or kept for an absent client. Default 10,000, as connections. When it is reached, a client
    /// with no session yet is refused.
    pub max_sessions: usize,
    /// Subscriptions of one session. Default 1,000; further ones are refused in the SUBACK.
    pub max_subscriptions: usize,
    /// Retained messages. Default 10,000; a further topic is not retained, which is counted as dropped.
    pub max_retained: usize,
    /// Payload bytes of all retained messages together. Default 64 MiB, a quarter of a small gateway's memory.
    pub max_retained_bytes: usize,
    /// How long the session of an absent client is kept at most. Default 7 days: longer than a long weekend without power.
    /// MQTT 5 clients may ask for less; MQTT 3.1.1 clients that do not ask for a clean session get this.
    pub max_session_expiry: Duration,
    /// Longest keep-alive. Default 10 minutes: a dead device is noticed after 15. MQTT 5 clients that ask for more, or for
    /// none, are told to use this; the standard gives no way to tell an MQTT 3.1.1 client, so these are left alone.
    pub max_keep_alive: Duration,
    /// Time from the TCP connection to a complete CONNECT. Default 10 s: a slow radio link fits, idle sockets do not pile up.
    pub connect_timeout: Duration,
    /// Time that a shutdown waits for acknowledgements that are still to come. Default 5 s: half of what service managers
    /// leave before they kill.
    pub shutdown_timeout: Duration,
    /// Who may connect. Default [`Access::Anonymous`].
    pub access: Access,
    /// What clients may publish and subscribe to. Default none: everything is allowed. What is published from inside, with
    /// [`Handle::publish`](crate::Handle::publish), is not asked about.
    pub rules: Vec<Rule>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            max_connections: 10_000,
            max_packet_bytes: 1 << 20,
            receive_window: 1_024,
            send_window: 256,
            session_queue: 10_000,
            session_queue_bytes: 4 << 20,
            max_sessions: 10_000,
            max_subscriptions: 1_000,
            max_retained: 10_000,
            max_retained_bytes: 64 << 20,
            max_session_expiry: Duration::from_secs(7 * 24 * 60 * 60),
            max_keep_alive: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(5),
            access: Access::Anonymous,
            rules: Vec::new(),
        }
    }
}

/// What [`Options::max_packet_bytes`] may be: any smaller and an ordinary CONNECT does not fit; with the properties that
/// the broker adds, the largest stays below the 256 MiB that a remaining length can express (section 2.2.3).
const PACKET_BYTES: std::ops::RangeInclusive<u32> = 128..=128 << 20;

impl Options {
    /// Names the first setting with which the broker could not do its work.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        let refuse = |name, value: String, allowed| Err(BrokerError::Option { name, value, allowed });
        if !PACKET_BYTES.contains(&self.max_packet_bytes) {
            return refuse("max_packet_bytes", self.max_packet_bytes.to_string(), "128 bytes to 128 MiB");
        }
        if self.receive_window == 0 {
            // A Receive Maximum of 0 is a protocol error [MQTT 5, 3.2.2.3.3].
            return refuse("receive_window", self.receive_window.to_string(), "at least 1 message");
        }
        if self.send_window == 0 {
            return refuse("send_window", self.send_window.to_string(), "at least 1 message");
        }
        if self.max_keep_alive < Duration::from_secs(1) {
            return refuse("max_keep_alive", format!("{:?}", self.max_keep_alive), "at least 1 s");
        }
        if self.max_session_expiry > Duration::from_secs(u32::MAX.into()) {
            // The longest that MQTT 5 can express (section 3.1.2.11.2).
            return refuse("max_session_expiry", format!("{:?}", self.max_session_expiry), "at most 4,294,967,295 s");
        }
        for rule in &self.rules {
            if let Some(user) = rule.user.as_deref().filter(|user| !self.access.knows(user)) {
                return refuse("rules", format!("about the user {user:?}"), "a user of access");
            }
            if let Some(pattern) = rule.deny.iter().find(|pattern| pattern.has_placeholder()) {
                // A client whose name does not fit into it would slip through.
                return refuse("rules", format!("to deny {pattern:?}"), "a topic filter without %u and %c");
            }
        }
        Ok(())
    }
}

/// Who may connect.
#[derive(Clone)]
pub enum Access {
    /// Everybody. A user name that a client sends proves nothing and is ignored.
    Anonymous,
    /// Clients that send one of these user names (key) with its password (value).
    Passwords(HashMap<String, String>),
}

impl fmt::Debug for Access {
    /// Shows the user names and never a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Passwords(users) => f.debug_tuple("Passwords").field(&users.keys()).finish(),
        }
    }
}

impl Access {
    /// Whether a client can be authenticated as this user.
    fn knows(&self, user: &str) -> bool {
        matches!(self, Self::Passwords(users) if users.contains_key(user))
    }

    /// The authenticated identity, if there is one; `Err` when the client may not connect.
    pub(crate) fn authenticate<'a>(&self, user: Option<&'a str>, password: &[u8]) -> Result<Option<&'a str>, ()> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Passwords(users) => {
                let user = user.ok_or(())?;
                let known = users.get(user);
                // An unknown user costs the same comparison, so that names cannot be found by the clock.
                let equal = same(password, known.map_or(b"", |expected| expected.as_bytes()));
                if equal && known.is_some() { Ok(Some(user)) } else { Err(()) }
            }
        }
    }
}

/// Compares in a time that depends on `given` alone, which its sender knows.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let mut difference = given.len() ^ expected.len();
    for (index, byte) in given.iter().enumerate() {
        difference |= usize::from(byte ^ expected.get(index).copied().unwrap_or(0));
    }
    std::hint::black_box(difference) == 0
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}; is another broker running there?")]
    Bind {
        /// The address of [`Options::listen`].
        listen: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A setting makes no sense.
    #[error("option {name} is {value}; allowed is {allowed}")]
    Option {
        /// Field of [`Options`].
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Pattern;

    #[test]
    fn only_the_right_password_of_a_known_user_is_accepted() {
        let access = Access::Passwords(HashMap::from([("sensor".to_owned(), "secret".to_owned())]));
        assert_eq!(access.authenticate(Some("sensor"), b"secret"), Ok(Some("sensor")));
        for (user, password) in [
            (Some("sensor"), &b"secre"[..]),
            (Some("sensor"), b"secret2"),
            (Some("sensor"), b"Secret"),
            (Some("sensor"), b""),
            (Some("other"), b"secret"),
            (Some("other"), b""),
            (None, b"secret"),
        ] {
            assert_eq!(access.authenticate(user, password), Err(()), "{user:?} {password:?}");
        }
        assert!(!format!("{access:?}").contains("secret"));
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_named() {
        let error = Options { receive_window: 0, ..Options::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "option receive_window is 0; allowed is at least 1 message");
        assert!(Options::default().check().is_ok());
        let rule = Rule { user: Some("ada".to_owned()), ..Rule::default() };
        let mut options = Options { rules: vec![rule], ..Options::default() };
        let error = options.check().unwrap_err();
        assert_eq!(error.to_string(), "option rules is about the user \"ada\"; allowed is a user of access");
        options.access = Access::Passwords(HashMap::from([("ada".to_owned(), String::new())]));
        assert!(options.check().is_ok());
        options.rules[0].deny.push(Pattern::parse("a/%c").unwrap());
        assert!(options.check().unwrap_err().to_string().ends_with("allowed is a topic filter without %u and %c"));
    }
}
