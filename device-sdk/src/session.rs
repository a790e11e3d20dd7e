use core::fmt;

use device_wire::{Envelope, check_device};
use serde::Serialize;

use crate::backoff::Backoff;
use crate::error::check_topic;
use crate::queue::Queue;
use crate::{PublishError, Settings, StartError, WhenFull};

/// Decides what a device sends and when: it keeps each accepted event until its acknowledgement, whatever
/// happens to the connection. It does no I/O and has no clock; a driver brings both.
///
/// `EVENTS` is how many events wait at most (1 to 65,535), `PAYLOAD` how many bytes each has at most. All
/// memory is inside: `EVENTS * (PAYLOAD + 26) + 136` bytes on a 32-bit target if `PAYLOAD` is a multiple of 8. `'a` is how long the device's
/// name and the topics live; for firmware `'static`.
///
/// # Call protocol
///
/// The driver tells the session what happened, in any order and at any time:
///
/// - [`publish`](Self::publish), [`publish_postcard`](Self::publish_postcard),
///   [`publish_text`](Self::publish_text): here is a new event;
/// - [`connected`](Self::connected): the broker accepted the connection (CONNACK);
/// - [`acknowledged`](Self::acknowledged): the broker acknowledged what was sent as this token (PUBACK);
/// - [`disconnected`](Self::disconnected): the connection ended or could not be made.
///
/// After each of these, and when the time of the last [`Action::Wait`] has come, it calls
/// [`poll`](Self::poll) and does what it returns, until that is [`Action::Wait`].
///
/// Times are milliseconds of one steady clock that never goes back (since boot will do).
///
/// # What it guarantees
///
/// Sequences start at 1 and are gapless over accepted events. Events are first sent in that order. Every
/// accepted event is sent, and sent again, in order and before any new one, on each new connection until it is
/// acknowledged, whether or not the broker still had the MQTT session; only [`WhenFull::DropOldestUnsent`] drops
/// one, and counts it. Nothing is sent twice on one connection (\[MQTT-4.4.0-1\], MQTT 5.0 section 4.4):
/// a connection that stalls is given up instead.
///
/// What is in the queue does not survive a reset of the device.
pub struct Session<'a, const EVENTS: usize, const PAYLOAD: usize> {
    device: &'a str,
    boot: u32,
    window: usize,
    when_full: WhenFull,
    progress_timeout_ms: u32,
    queue: Queue<'a, EVENTS, PAYLOAD>,
    /// The first so many of the queue were sent at least once, on any connection. `current <= sent`.
    sent: usize,
    /// The first so many of the queue were sent on the current connection.
    current: usize,
    link: Link,
    backoff: Backoff,
    counters: Counters,
}

enum Link {
    Down { connect_at: u64 },
    Connecting { deadline: u64 },
    Up { since: u64, session_present: bool, deadline: Option<u64> },
}

/// What the driver should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'s> {
    /// Open a connection. Then report [`connected`](Session::connected) or
    /// [`disconnected`](Session::disconnected).
    Connect,
    /// Publish this with QoS 1 on the current connection.
    Send(Outgoing<'s>),
    /// Close the connection: it made no progress in time. The session already counts it as gone; there is no
    /// need to report it, and no harm.
    Disconnect,
    /// Nothing to do until something happens, or until this time if there is one.
    Wait {
        /// Call [`poll`](Session::poll) again at this time, in milliseconds.
        until: Option<u64>,
    },
}

/// One event to publish. The session counts it as sent: a driver that fails to send it must give up the
/// connection and report [`disconnected`](Session::disconnected), and will get it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'s> {
    /// What to report when it is acknowledged. The driver remembers it under the MQTT packet identifier.
    pub token: Token,
    /// The topic.
    pub topic: &'s str,
    /// The bytes to publish: [`Envelope::encode`] writes them, at most
    /// [`MAX_HEADER_BYTES`](crate::MAX_HEADER_BYTES) and the payload.
    pub envelope: Envelope<'s>,
    /// MQTT's DUP flag: the broker kept the session in which this was sent before. A driver that asks for
    /// persistent sessions must then use the same packet identifier as before (\[MQTT-4.4.0-1\]).
    pub duplicate: bool,
}

/// Names an event towards the driver. It stays the same when the event is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// What happened since the session began. `accepted = acknowledged + dropped +` [`Session::pending`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Events accepted: also the last sequence given.
    pub accepted: u64,
    /// Events acknowledged, each once.
    pub acknowledged: u64,
    /// Events dropped by [`WhenFull::DropOldestUnsent`].
    pub dropped: u64,
    /// Sends of events that had been sent before.
    pub resent: u64,
    /// Connections that the broker accepted.
    pub connections: u64,
}

impl<'a, const EVENTS: usize, const PAYLOAD: usize> Session<'a, EVENTS, PAYLOAD> {
    /// A session without a connection; the first [`poll`](Self::poll) asks for one. `boot` comes from a
    /// [`BootCounter`](crate::BootCounter), which says what it must be.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the device's name is not one or the settings are out of their range.
    pub fn new(device: &'a str, boot: u32, settings: Settings) -> Result<Self, StartError> {
        check_device(device)?;
        settings.check()?;
        Ok(Self {
            device,
            boot,
            window: settings.window,
            when_full: settings.when_full,
            progress_timeout_ms: settings.progress_timeout_ms,
            queue: Queue::new(),
            sent: 0,
            current: 0,
            link: Link::Down { connect_at: 0 },
            backoff: Backoff::new(settings.backoff_min_ms, settings.backoff_max_ms, settings.seed),
            counters: Counters::default(),
        })
    }

    /// Accepts an event with these bytes and returns its sequence.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if the queue is full (see [`WhenFull`]), the payload is longer than `PAYLOAD`, or the
    /// topic cannot be published to. The event then has no sequence and nothing has changed.
    pub fn publish(&mut self, topic: &'a str, payload: &[u8]) -> Result<u64, PublishError> {
        check_topic(topic)?;
        if payload.len() > PAYLOAD {
            return Err(PublishError::TooLarge { limit: PAYLOAD });
        }
        if self.queue.is_full() {
            let unsent = self.sent < self.queue.len();
            if self.when_full == WhenFull::Refuse || !unsent {
                return Err(PublishError::Full { pending: self.queue.len() });
            }
            self.queue.remove(self.sent);
            self.counters.dropped += 1;
        }
        self.counters.accepted += 1;
        let sequence = self.counters.accepted;
        self.queue.push(sequence, topic, payload);
        Ok(sequence)
    }

    /// Accepts an event whose payload is `value` in postcard's encoding. Uses `PAYLOAD` bytes of stack.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and [`PublishError::Postcard`] if the value cannot be written.
    pub fn publish_postcard<T>(&mut self, topic: &'a str, value: &T) -> Result<u64, PublishError>
    where
        T: Serialize + ?Sized,
    {
        let mut buffer = [0; PAYLOAD];
        let payload = postcard::to_slice(value, &mut buffer).map_err(|error| match error {
            postcard::Error::SerializeBufferFull => PublishError::TooLarge { limit: PAYLOAD },
            error => PublishError::Postcard(error),
        })?;
        self.publish(topic, payload)
    }

    /// Accepts an event whose payload is text, for instance a line of JSON:
    /// `session.publish_text(topic, format_args!("{{\"celsius\":{celsius:.1}}}"))`. Uses `PAYLOAD` bytes of
    /// stack.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_text(&mut self, topic: &'a str, text: fmt::Arguments<'_>) -> Result<u64, PublishError> {
        let mut payload = heapless::Vec::<u8, PAYLOAD>::new();
        fmt::write(&mut payload, text).map_err(|fmt::Error| PublishError::TooLarge { limit: PAYLOAD })?;
        self.publish(topic, &payload)
    }

    /// The broker accepted the connection. `session_present` is CONNACK's flag; it decides the DUP flag and
    /// nothing else. Ignored unless an [`Action::Connect`] is under way.
    pub fn connected(&mut self, now: u64, session_present: bool) {
        if let Link::Connecting { .. } = self.link {
            self.link = Link::Up { since: now, session_present, deadline: None };
            self.counters.connections += 1;
        }
    }

    /// The connection ended, or could not be made. Harmless when there was none.
    pub fn disconnected(&mut self, now: u64) {
        match self.link {
            Link::Down { .. } => return,
            // A connection that lasted is no failure, even if there was nothing to acknowledge on it.
            Link::Up { since, .. } if now.saturating_sub(since) >= u64::from(self.backoff.max_ms()) => {
                self.backoff.reset();
            }
            Link::Connecting { .. } | Link::Up { .. } => {}
        }
        self.current = 0;
        self.link = Link::Down { connect_at: now.saturating_add(self.backoff.next_pause()) };
    }

    /// What was sent as `token` is acknowledged. Returns whether it was waiting for that: `false` for a second
    /// acknowledgement, or one of something that was never sent. An acknowledgement of an earlier connection
    /// counts as well.
    pub fn acknowledged(&mut self, now: u64, token: Token) -> bool {
        let Some(position) = (0..self.sent).find(|&position| self.queue.get(position).sequence == token.0) else {
            return false;
        };
        self.queue.remove(position);
        self.sent -= 1;
        if position < self.current {
            self.current -= 1;
        }
        self.counters.acknowledged += 1;

        let next = self.progress_deadline(now);
        if let Link::Up { deadline, .. } = &mut self.link {
            *deadline = (self.current > 0).then_some(next);
            self.backoff.reset();
        }
        true
    }

    /// What to do at `now`. To be called until it returns [`Action::Wait`].
    pub fn poll(&mut self, now: u64) -> Action<'_> {
        match self.link {
            Link::Down { connect_at } if now < connect_at => Action::Wait { until: Some(connect_at) },
            Link::Down { .. } => {
                self.link = Link::Connecting { deadline: self.progress_deadline(now) };
                Action::Connect
            }
            Link::Connecting { deadline } | Link::Up { deadline: Some(deadline), .. } if now >= deadline => {
                self.disconnected(now);
                Action::Disconnect
            }
            Link::Connecting { deadline } => Action::Wait { until: Some(deadline) },
            Link::Up { deadline, .. } if !self.may_send() => Action::Wait { until: deadline },
            Link::Up { .. } => Action::Send(self.send(now)),
        }
    }

    /// Whether the next event may be sent: the window spans sequences, not just events, because the gateway's
    /// memory of what it has seen does (see [`WINDOW`](crate::WINDOW)).
    fn may_send(&self) -> bool {
        self.current < self.queue.len()
            && self.queue.get(self.current).sequence - self.queue.get(0).sequence < self.window as u64
    }

    fn send(&mut self, now: u64) -> Outgoing<'_> {
        let again = self.current < self.sent;
        let next = self.progress_deadline(now);
        let mut duplicate = false;
        if let Link::Up { session_present, deadline, .. } = &mut self.link {
            deadline.get_or_insert(next);
            duplicate = again && *session_present;
        }
        let position = self.current;
        self.current += 1;
        self.sent = self.sent.max(self.current);
        self.counters.resent += u64::from(again);

        let event = self.queue.get(position);
        Outgoing {
            token: Token(event.sequence),
            topic: event.topic,
            envelope: Envelope {
                device: self.device,
                boot: self.boot,
                sequence: event.sequence,
                payload: &event.payload,
            },
            duplicate,
        }
    }

    fn progress_deadline(&self, now: u64) -> u64 {
        now.saturating_add(u64::from(self.progress_timeout_ms))
    }

    /// How many accepted events are neither acknowledged nor dropped.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// How many of the [pending](Self::pending) events were sent at least once: never more than the window.
    pub fn outstanding(&self) -> usize {
        self.sent
    }

    /// Whether the next event finds room without anything being refused or dropped.
    pub fn has_room(&self) -> bool {
        !self.queue.is_full()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
