//! What all connections share: sessions, subscriptions, retained messages, and the way of a message to its subscribers.
//!
//! Locks are taken in this order: `seats`, `topics`, a seat's `place`, a link's `shared`; `links` and
//! `next_end` last. None is held across an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use mqtt5_protocol::{QoS, ReasonCode};
use tokio::sync::{Notify, watch};

use crate::link::{Close, Link};
use crate::message::Message;
use crate::options::Options;
use crate::outbox::{Bounds, Delivery, Offered};
use crate::retained::Retained;
use crate::rules::Rights;
use crate::session::Session;
use crate::stats::{Counters, Stats};
use crate::subscriptions::{Filter, Hit, Subscriptions};
use crate::wire::Violation;

/// A session and the connection that has it now.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) client_id: Arc<str>,
    /// Whose session it is: another user cannot take it over by using the same client identifier.
    user: Option<Arc<str>>,
    pub(crate) rights: Arc<Rights>,
    place: Mutex<Place>,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) session: Session,
    pub(crate) link: Option<Arc<Link>>,
    /// The ended connection whose will waits out its delay.
    will: Option<Arc<Link>>,
}

impl Seat {
    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether `link` is the connection that has the session, and not one that was taken over.
    pub(crate) fn belongs_to(&self, link: &Link) -> bool {
        self.link.as_ref().is_some_and(|owner| owner.id == link.id)
    }
}

#[derive(Debug)]
pub(crate) struct Topics {
    pub(crate) subscriptions: Subscriptions<Arc<Seat>>,
    pub(crate) retained: Retained,
}

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) options: Options,
    pub(crate) counters: Counters,
    pub(crate) topics: RwLock<Topics>,
    seats: Mutex<HashMap<Arc<str>, Arc<Seat>>>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    last_id: AtomicU64,
    /// True once the broker shuts down.
    pub(crate) closing: watch::Sender<bool>,
    /// When the next session of an absent client ends, as [`Hub::expire`] knows.
    next_end: Mutex<Option<Instant>>,
    /// It has become earlier.
    pub(crate) earlier: Notify,
}

/// Who connects.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) client_id: Arc<str>,
    pub(crate) user: Option<Arc<str>>,
    /// They follow from the two above, so they are the same whenever the client comes back.
    pub(crate) rights: Arc<Rights>,
    pub(crate) clean_start: bool,
    pub(crate) expiry: Duration,
}

impl Hub {
    pub(crate) fn new(options: Options) -> Self {
        let retained = Retained::new(options.max_retained, options.max_retained_bytes);
        Self {
            counters: Counters::default(),
            topics: RwLock::new(Topics { subscriptions: Subscriptions::default(), retained }),
            seats: Mutex::default(),
            links: Mutex::default(),
            last_id: AtomicU64::new(0),
            closing: watch::Sender::new(false),
            next_end: Mutex::new(None),
            earlier: Notify::new(),
            options,
        }
    }

    /// A number for a connection or a session, never 0 and never used again.
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection its session, new or resumed, and closes the connection that had it. True when it is resumed
    /// (session present).
    pub(crate) fn attach(&self, claim: &Claim, link: &Arc<Link>, now: Instant) -> Result<(Arc<Seat>, bool), Violation> {
        let mut seats = self.seats();
        let known = seats.get(&claim.client_id).cloned();
        if let Some(seat) = &known {
            if seat.user != claim.user {
                let cause = "the client identifier belongs to another user's session";
                return Err(Violation::new(ReasonCode::NotAuthorized, cause));
            }
            let mut place = seat.place();
            let ended = place.session.ends.is_some_and(|ends| ends <= now);
            let resumed = !claim.clean_start && !ended;
            for other in place.link.take().into_iter().chain(place.will.take()) {
                other.close(Close::TakenOver { resumed });
            }
            if resumed {
                place.session.resume(claim.expiry);
                place.link = Some(link.clone());
                drop(place);
                self.register(link);
                return Ok((seat.clone(), true));
            }
        }
        if let Some(seat) = known {
            self.remove(&mut seats, &seat);
        }
        if seats.len() >= self.options.max_sessions {
            let cause = format!("there are {} sessions already (max_sessions)", self.options.max_sessions);
            return Err(Violation::new(ReasonCode::QuotaExceeded, cause));
        }
        self.register(link);
        let place = Place { session: Session::new(claim.expiry), link: Some(link.clone()), will: None };
        let seat = Arc::new(Seat {
            id: self.next_id(),
            client_id: claim.client_id.clone(),
            user: claim.user.clone(),
            rights: claim.rights.clone(),
            place: Mutex::new(place),
        });
        seats.insert(claim.client_id.clone(), seat.clone());
        Ok((seat, false))
    }

    /// Makes the connection known to [`Hub::close_all`]; one that comes too late for that is told at once.
    fn register(&self, link: &Arc<Link>) {
        self.links().insert(link.id, link.clone());
        if *self.closing.borrow() {
            link.close(Close::Drain);
        }
    }

    /// The connection is over; whether the client is gone with it, and not on a later one. `expiry` replaces the session's
    /// when the client said so in its DISCONNECT; with `will` the next connection of the client tells `link` that it is
    /// there.
    pub(crate) fn detach(
        &self,
        seat: &Arc<Seat>,
        link: &Arc<Link>,
        expiry: Option<Duration>,
        will: bool,
        now: Instant,
    ) -> bool {
        self.links().remove(&link.id);
        let mut seats = self.seats();
        let mut place = seat.place();
        if !place.belongs_to(link) {
            return false;
        }
        place.link = None;
        place.will = will.then(|| link.clone());
        if let Some(expiry) = expiry {
            place.session.expiry = expiry;
        }
        place.session.suspend(now);
        let (over, ends) = (place.session.expiry.is_zero(), place.session.ends);
        drop(place);
        if over {
            self.remove(&mut seats, seat);
            return true;
        }
        let mut next = self.next_end.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ends) = ends.filter(|ends| next.is_none_or(|next| *ends < next)) {
            *next = Some(ends);
            self.earlier.notify_one();
        }
        true
    }

    /// Ends the sessions whose time is over and says when the next one ends.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut seats = self.seats();
        let mut next: Option<Instant> = None;
        let mut over = Vec::new();
        for seat in seats.values() {
            match seat.place().session.ends {
                Some(ends) if ends <= now => over.push(seat.clone()),
                Some(ends) => next = Some(next.map_or(ends, |next| next.min(ends))),
                None => {}
            }
        }
        for seat in over {
            tracing::debug!(client = %seat.client_id, "the session has expired");
            self.remove(&mut seats, &seat);
        }
        // Still under the lock of `seats`, so that nobody leaves between the look and the note.
        *self.next_end.lock().unwrap_or_else(PoisonError::into_inner) = next;
        next
    }

    fn remove(&self, seats: &mut HashMap<Arc<str>, Arc<Seat>>, seat: &Arc<Seat>) {
        if seats.get(&seat.client_id).is_some_and(|known| known.id == seat.id) {
            seats.remove(&seat.client_id);
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let filters = std::mem::take(&mut seat.place().session.filters);
        for filter in filters.iter().filter_map(|filter| Filter::parse(filter)) {
            topics.subscriptions.remove(filter, seat.id);
        }
    }

    /// Hands a message to every session that wants it, and keeps it if it is to be retained. Returns how many sessions
    /// took it.
    pub(crate) fn route(&self, mut message: Message, now: Instant) -> usize {
        if message.retain {
            message.unshare();
            let message = Arc::new(message);
            // Both under one lock: a new subscriber gets the message once, retained or live.
            let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
            if !topics.retained.set(&message, now) {
                self.counters.dropped.add(1);
                tracing::warn!(topic = %message.topic, "no room for one more retained message (max_retained)");
            }
            return self.distribute(&topics.subscriptions, &message);
        }
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if topics.subscriptions.is_empty() {
            return 0;
        }
        message.unshare();
        self.distribute(&topics.subscriptions, &Arc::new(message))
    }

    fn distribute(&self, subscriptions: &Subscriptions<Arc<Seat>>, message: &Arc<Message>) -> usize {
        let mut taken = 0;
        let allowed = |seat: &Arc<Seat>| seat.rights.may_receive(&message.topic);
        let ready = |seat: &Arc<Seat>| seat.place().link.is_some();
        subscriptions.matching(&message.topic, message.origin, allowed, ready, |hit: Hit<'_, Arc<Seat>>| {
            let delivery = Delivery {
                message: message.clone(),
                qos: lower(message.qos, hit.qos),
                retain: message.retain && hit.retain_as_published,
                identifiers: hit.identifiers,
            };
            taken += usize::from(self.offer(hit.subscriber, delivery, self.bounds()));
        });
        taken
    }

    fn bounds(&self) -> Bounds {
        Bounds { messages: self.options.session_queue, bytes: self.options.session_queue_bytes }
    }

    /// What waits for one subscriber while it subscribes: the retained messages, which are held anyway, do not count
    /// against what it may be behind.
    pub(crate) fn retained_bounds(&self) -> Bounds {
        Bounds {
            messages: self.options.session_queue + self.options.max_retained,
            bytes: self.options.session_queue_bytes + self.options.max_retained_bytes,
        }
    }

    /// True when the session took it.
    pub(crate) fn offer(&self, seat: &Seat, delivery: Delivery, bounds: Bounds) -> bool {
        let mut place = seat.place();
        match place.session.offer(delivery, bounds) {
            Offered::Queued => {
                if let Some(link) = &place.link {
                    link.wake.notify_one();
                }
                true
            }
            Offered::Dropped => {
                self.counters.dropped.add(1);
                tracing::debug!(client = %seat.client_id, "a message is dropped: the session's queue is full");
                false
            }
            Offered::Absent => false,
        }
    }

    /// Says the same to every connection.
    pub(crate) fn close_all(&self, close: Close) {
        let links: Vec<_> = self.links().values().cloned().collect();
        for link in links {
            link.close(close);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        // One lock after the other, never two at a time.
        let retained = self.topics.read().unwrap_or_else(PoisonError::into_inner).retained.len();
        let sessions = self.seats().len();
        let connections = self.links().len();
        Stats {
            connections: connections as u64,
            sessions: sessions as u64,
            retained: retained as u64,
            publishes_in: self.counters.publishes_in.get(),
            acks_out: self.counters.acks_out.get(),
            delivered: self.counters.delivered.get(),
            dropped: self.counters.dropped.get(),
            refused: self.counters.refused.get(),
            denied: self.counters.denied.get(),
            turned_away: self.counters.turned_away.get(),
        }
    }
}

/// What is delivered has the lower of both qualities (section 4.3).
pub(crate) fn lower(left: QoS, right: QoS) -> QoS {
    if (left as u8) < right as u8 { left } else { right }
}
