//! The door between the broker and the application: what devices publish goes out, a verdict comes back.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use mqtt5_protocol::QoS;

use crate::inflight::Outcome;
use crate::link::Link;

/// What the application does with what devices publish.
pub trait Ingest: Send + Sync + 'static {
    /// Takes one message. It should await only when the application's own bound is reached: the connection is not read
    /// meanwhile, but its acknowledgements still go out. The messages of one connection arrive one after the other, in
    /// the order in which they were sent.
    ///
    /// The future is dropped when the connection ends meanwhile; the message then counts as not taken.
    fn submit(&self, inbound: Inbound) -> impl Future<Output = ()> + Send;

    /// A client (as [`Inbound::client`]) connected, or is gone. Nothing of a connection is read before the first of these
    /// returns, and all that came from it was submitted before the second one. A client that connects once more while
    /// it is connected, and one whose connection the broker ended to have everything sent again, is not gone.
    ///
    /// The first future is dropped when the connection ends meanwhile.
    fn presence(&self, client: &Arc<str>, presence: Presence) -> impl Future<Output = ()> + Send {
        let _ = (client, presence);
        std::future::ready(())
    }

    /// Another number after the application has let go of messages without a verdict, for [`Inbound::generation`]. An
    /// application for which the order of what comes again does not matter has always the same.
    fn generation(&self) -> u64 {
        0
    }
}

/// What happened to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It connected.
    Connected,
    /// Its connection ended.
    Disconnected,
}

/// A message that a device published, or the will of a device that is gone.
#[derive(Debug)]
pub struct Inbound {
    /// The authenticated user name, or the client identifier where nobody is authenticated.
    pub client: Arc<str>,
    /// Topic name; never empty and without wildcards.
    pub topic: Arc<str>,
    /// Up to [`Options::max_packet_bytes`](crate::Options::max_packet_bytes). It shares the buffer that was read from the
    /// socket (up to 64 KiB): copy it to keep it for long.
    pub payload: Bytes,
    /// Quality of service with which the device published.
    pub qos: QoS,
    /// The device asked for the message to be retained.
    pub retain: bool,
    /// The device says that it may have sent this before (DUP). It is a hint only: the standard does not promise it.
    pub duplicate: bool,
    /// User properties (MQTT 5), in the order sent. Empty for MQTT 3.1.1.
    pub user_properties: Vec<(String, String)>,
    /// What [`Ingest::generation`] was when nothing of the connection waited for a verdict last. If it is another one by now,
    /// messages before this one may have been let go of and come again after it; the application that lets go of this one
    /// too has all of them come again in order. `None` for what would not come again: QoS 0, and wills.
    pub generation: Option<u64>,
    /// The verdict that the device waits for.
    pub ack: Ack,
}

/// The verdict on one message. One of [`accept`](Ack::accept) and [`refuse`](Ack::refuse) should be called, from any
/// thread, in any order among messages; acknowledgements leave in the order of the messages.
///
/// Dropped without either, the message is not acknowledged, and a device that waits for an acknowledgement (QoS 1 or 2)
/// is disconnected so that it sends again.
pub struct Ack {
    /// The connection and the place of the message in its window; `None` once a verdict was given.
    pending: Option<(Arc<Link>, u64)>,
}

impl Ack {
    pub(crate) fn new(link: Arc<Link>, sequence: u64) -> Self {
        Self { pending: Some((link, sequence)) }
    }

    /// The message is durable: it goes to its subscribers, and is acknowledged.
    pub fn accept(mut self) {
        self.give(Outcome::Accepted);
    }

    /// The message will never be taken: it goes to nobody. MQTT 5 devices get the reason in the acknowledgement.
    /// MQTT 3.1.1 knows no negative acknowledgement (the server must acknowledge or close, section 3.3.5), so such a
    /// device is disconnected. A QoS 0 message is thrown away in both versions.
    pub fn refuse(mut self, reason: Refusal) {
        self.give(Outcome::Refused(reason));
    }

    fn give(&mut self, outcome: Outcome) {
        if let Some((link, sequence)) = self.pending.take() {
            link.resolve(sequence, outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.give(Outcome::Dropped);
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ack").field(&self.pending.as_ref().map(|(_, sequence)| sequence)).finish()
    }
}

/// Why a message is refused, as MQTT 5 tells it to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason code of the PUBACK or PUBREC.
    pub code: RefusalCode,
    /// The reason string, for a person to read. It is left out if the device asked for none or it does not fit.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a text for the person who looks after the device.
    pub fn new(code: RefusalCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The reason codes with which MQTT 5 lets a server refuse a PUBLISH (sections 3.4.2.1 and 3.5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RefusalCode {
    /// None of the others.
    Unspecified = 0x80,
    /// Valid, but not taken by this receiver.
    ImplementationSpecific = 0x83,
    /// The device may not publish this.
    NotAuthorized = 0x87,
    /// The topic is well formed, but not taken here.
    TopicNameInvalid = 0x90,
    /// A limit of the application is reached.
    QuotaExceeded = 0x97,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
}
