//! What the broker remembers of one client between two connections (section 4.1), without sockets and clocks.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use mqtt5_protocol::QoS;

use crate::outbox::{Bounds, Delivery, Offered, Outbox};

/// How far an incoming QoS 2 message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// With the application; the PUBREC is owed. `again`: the client came back meanwhile and sent it once more, so the
    /// PUBREC goes to its new connection.
    Pending { connection: u64, again: bool },
    /// PUBREC sent; the identifier is taken until PUBREL.
    Done,
}

/// What to do with a QoS 2 PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Not seen before: give it to the application.
    New,
    /// With the application already; its PUBREC will come.
    Waiting,
    /// Committed already: only the PUBREC was lost.
    Committed,
}

/// What a PUBREL meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Known,
    Unknown,
    /// It was sent before the PUBREC, against section 4.3.3.
    TooEarly,
}

#[derive(Debug)]
pub(crate) struct Session {
    /// How long it is kept after the connection.
    pub(crate) expiry: Duration,
    /// When an absent client's session ends; `None` while it is connected.
    pub(crate) ends: Option<Instant>,
    /// The filters it is subscribed to, as it wrote them.
    pub(crate) filters: HashSet<Box<str>>,
    pub(crate) outbox: Outbox,
    received: HashMap<u16, Received>,
    /// How many of `received` are [`Received::Done`].
    unreleased: usize,
}

impl Session {
    pub(crate) fn new(expiry: Duration) -> Self {
        Self {
            expiry,
            ends: None,
            filters: HashSet::new(),
            outbox: Outbox::default(),
            received: HashMap::new(),
            unreleased: 0,
        }
    }

    /// The client is connected (again).
    pub(crate) fn resume(&mut self, expiry: Duration) {
        self.expiry = expiry;
        self.ends = None;
        self.outbox.restart();
    }

    /// The client is gone.
    pub(crate) fn suspend(&mut self, now: Instant) {
        self.ends = Some(now + self.expiry);
        self.outbox.suspend();
    }

    pub(crate) fn offer(&mut self, delivery: Delivery, bounds: Bounds) -> Offered {
        // The standard leaves it open whether QoS 0 messages are kept for absent clients (section 4.1); they are not.
        if self.ends.is_some() && delivery.qos == QoS::AtMostOnce {
            return Offered::Absent;
        }
        self.outbox.offer(delivery, bounds)
    }

    /// A QoS 2 PUBLISH came on `connection`. A new one is to be [begun](Session::begin).
    pub(crate) fn on_publish(&mut self, packet_id: u16, connection: u64) -> Arrival {
        match self.received.get_mut(&packet_id) {
            None => Arrival::New,
            Some(Received::Done) => Arrival::Committed,
            Some(Received::Pending { connection: first, again }) => {
                *again |= *first != connection;
                Arrival::Waiting
            }
        }
    }

    /// A new QoS 2 message goes to the application and will get its verdict.
    pub(crate) fn begin(&mut self, packet_id: u16, connection: u64) {
        self.received.insert(packet_id, Received::Pending { connection, again: false });
    }

    /// The verdict on a QoS 2 message that came on `connection`. True when the client waits for it on a newer one.
    pub(crate) fn on_verdict(&mut self, packet_id: u16, connection: u64, committed: bool) -> bool {
        let Some(Received::Pending { connection: first, again }) = self.received.get(&packet_id).copied() else {
            return false;
        };
        if first != connection {
            return false;
        }
        if committed {
            self.received.insert(packet_id, Received::Done);
            self.unreleased += 1;
        } else {
            self.received.remove(&packet_id);
        }
        again
    }

    pub(crate) fn on_pubrel(&mut self, packet_id: u16) -> Release {
        match self.received.get(&packet_id) {
            None => Release::Unknown,
            Some(Received::Pending { .. }) => Release::TooEarly,
            Some(Received::Done) => {
                self.received.remove(&packet_id);
                self.unreleased -= 1;
                Release::Known
            }
        }
    }

    /// QoS 2 messages that are committed and wait for PUBREL; they count against the Receive Maximum (section 4.9).
    pub(crate) fn unreleased(&self) -> usize {
        self.unreleased
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::message::Message;

    #[test]
    fn a_qos_2_message_is_new_once() {
        let mut session = Session::new(Duration::ZERO);
        assert_eq!(session.on_publish(5, 1), Arrival::New);
        session.begin(5, 1);
        assert_eq!(session.on_publish(5, 1), Arrival::Waiting);
        assert_eq!(session.on_pubrel(5), Release::TooEarly);
        assert!(!session.on_verdict(5, 1, true));
        assert_eq!(session.on_publish(5, 1), Arrival::Committed);
        assert_eq!(session.unreleased(), 1);
        assert_eq!(session.on_pubrel(5), Release::Known);
        assert_eq!(session.on_pubrel(5), Release::Unknown);
        assert_eq!(session.on_publish(5, 1), Arrival::New);
    }

    #[test]
    fn a_verdict_on_an_old_connection_reaches_the_new_one() {
        let mut session = Session::new(Duration::from_secs(9));
        session.begin(5, 1);
        assert_eq!(session.on_publish(5, 2), Arrival::Waiting);
        assert!(session.on_verdict(5, 1, true));
        assert_eq!(session.on_publish(5, 2), Arrival::Committed);
        session.on_pubrel(5);
        session.begin(5, 2);
        assert!(!session.on_verdict(5, 2, false));
        assert_eq!(session.on_publish(5, 2), Arrival::New, "a message without a verdict may be sent again");
    }

    #[test]
    fn an_absent_client_is_kept_only_what_is_acknowledged() {
        let now = Instant::now();
        let mut session = Session::new(Duration::from_secs(9));
        let bounds = Bounds { messages: 9, bytes: 9 };
        let delivery = |qos| Delivery {
            message: Arc::new(Message::new("t".into(), Bytes::new(), qos, false)),
            qos,
            retain: false,
            identifiers: Vec::new(),
        };
        assert_eq!(session.offer(delivery(QoS::AtMostOnce), bounds), Offered::Queued);
        session.suspend(now);
        assert_eq!(session.ends, Some(now + Duration::from_secs(9)));
        assert_eq!(session.offer(delivery(QoS::AtMostOnce), bounds), Offered::Absent);
        assert_eq!(session.offer(delivery(QoS::AtLeastOnce), bounds), Offered::Queued);
        session.resume(Duration::ZERO);
        assert_eq!(session.offer(delivery(QoS::AtMostOnce), bounds), Offered::Queued);
    }
}
