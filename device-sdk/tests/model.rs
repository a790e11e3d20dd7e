//! Random lives of a session against a model that remembers everything.

use std::collections::{BTreeMap, BTreeSet};

use device_sdk::{Action, Outgoing, PublishError, Session, Settings, Token, WhenFull};
use proptest::collection::vec;
use proptest::prelude::*;

const EVENTS: usize = 12;
const TOPIC: &str = "t";

#[derive(Debug, Clone)]
enum Step {
    Publish,
    /// Poll once and, if asked to connect, leave the answer open.
    Poll,
    Connected {
        session_present: bool,
    },
    Disconnected,
    /// Acknowledge one of the outstanding events; which one, modulo how many there are.
    Acknowledge(usize),
    /// Acknowledge once more what was acknowledged before.
    AcknowledgeAgain(usize),
    Pass {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Publish),
        10 => Just(Step::Poll),
        3 => any::<bool>().prop_map(|session_present| Step::Connected { session_present }),
        1 => Just(Step::Disconnected),
        4 => prop_oneof![Just(0), any::<usize>()].prop_map(Step::Acknowledge),
        1 => any::<usize>().prop_map(Step::AcknowledgeAgain),
        2 => (0..400u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

#[derive(PartialEq)]
enum Link {
    Down,
    Connecting,
    Up { session_present: bool },
}

/// What must be true, reckoned without any of the session's own bookkeeping.
struct Model {
    session: Session<'static, EVENTS, 8>,
    settings: Settings,
    now: u64,
    link: Link,
    accepted: u64,
    tokens: BTreeMap<u64, Token>,
    sent: BTreeSet<u64>,
    sent_on_this_connection: Vec<u64>,
    acknowledged: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    /// When the connection is to be given up, if nothing comes.
    deadline: Option<u64>,
    not_before: u64,
    resent: u64,
}

impl Model {
    fn new(settings: Settings) -> Self {
        Self {
            session: Session::new("device", 1, settings).unwrap(),
            settings,
            now: 0,
            link: Link::Down,
            accepted: 0,
            tokens: BTreeMap::new(),
            sent: BTreeSet::new(),
            sent_on_this_connection: Vec::new(),
            acknowledged: BTreeSet::new(),
            dropped: BTreeSet::new(),
            deadline: None,
            not_before: 0,
            resent: 0,
        }
    }

    fn pending(&self) -> Vec<u64> {
        (1..=self.accepted).filter(|s| !self.acknowledged.contains(s) && !self.dropped.contains(s)).collect()
    }

    fn outstanding(&self) -> Vec<u64> {
        self.pending().into_iter().filter(|s| self.sent.contains(s)).collect()
    }

    fn timeout(&self) -> u64 {
        u64::from(self.settings.progress_timeout_ms)
    }

    fn link_lost(&mut self) {
        self.link = Link::Down;
        self.deadline = None;
        self.sent_on_this_connection.clear();
        self.not_before = self.now + u64::from(self.settings.backoff_min_ms).div_ceil(2);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Publish => self.publish(),
            Step::Poll => {
                self.poll();
            }
            Step::Connected { session_present } => {
                self.session.connected(self.now, session_present);
                if self.link == Link::Connecting {
                    self.link = Link::Up { session_present };
                    self.deadline = None;
                }
            }
            Step::Disconnected => {
                self.session.disconnected(self.now);
                if self.link != Link::Down {
                    self.link_lost();
                }
            }
            Step::Acknowledge(which) => {
                let outstanding = self.outstanding();
                if !outstanding.is_empty() {
                    self.acknowledge(outstanding[which % outstanding.len()]);
                }
            }
            Step::AcknowledgeAgain(which) => {
                if let Some(sequence) = self.acknowledged.iter().nth(which % self.acknowledged.len().max(1)) {
                    assert!(!self.session.acknowledged(self.now, self.tokens[sequence]));
                }
            }
            Step::Pass { ms } => self.now += ms,
        }
        self.check();
    }

    fn publish(&mut self) {
        let pending = self.pending();
        let victim = pending.iter().find(|s| !self.sent.contains(s)).copied();
        let sequence = self.accepted + 1;
        let result = self.session.publish(TOPIC, &sequence.to_le_bytes());
        if pending.len() < EVENTS {
            assert_eq!(result, Ok(sequence));
        } else if let (WhenFull::DropOldestUnsent, Some(victim)) = (self.settings.when_full, victim) {
            assert_eq!(result, Ok(sequence));
            self.dropped.insert(victim);
        } else {
            assert_eq!(result, Err(PublishError::Full { pending: EVENTS }));
            return;
        }
        self.accepted = sequence;
    }

    fn acknowledge(&mut self, sequence: u64) {
        assert!(self.session.acknowledged(self.now, self.tokens[&sequence]));
        self.acknowledged.insert(sequence);
        self.sent_on_this_connection.retain(|&s| s != sequence);
        if let Link::Up { .. } = self.link {
            let waiting = !self.sent_on_this_connection.is_empty();
            self.deadline = waiting.then_some(self.now + self.timeout());
        }
    }

    /// Polls once; returns whether there was something to do.
    fn poll(&mut self) -> bool {
        let next = self.next_to_send();
        let timed_out = self.deadline.is_some_and(|deadline| self.now >= deadline);
        match self.session.poll(self.now) {
            Action::Connect => {
                assert!(self.link == Link::Down && self.now >= self.not_before);
                self.link = Link::Connecting;
                self.deadline = Some(self.now + self.timeout());
            }
            Action::Disconnect => {
                assert!(timed_out, "a connection was given up before its time");
                self.link_lost();
            }
            Action::Send(out) => {
                assert!(!timed_out);
                let Outgoing { token, topic, envelope, duplicate } = out;
                let sequence = envelope.sequence;
                assert_eq!(Some(sequence), next, "each is sent in its turn");
                assert_eq!((topic, envelope.device, envelope.boot), (TOPIC, "device", 1));
                assert_eq!(envelope.payload, sequence.to_le_bytes());
                let known = *self.tokens.entry(sequence).or_insert(token);
                assert_eq!(known, token, "a token names its event for ever");
                let again = !self.sent.insert(sequence);
                assert_eq!(duplicate, again && self.link == Link::Up { session_present: true });
                self.resent += u64::from(again);
                self.sent_on_this_connection.push(sequence);
                self.deadline.get_or_insert(self.now + u64::from(self.settings.progress_timeout_ms));
            }
            Action::Wait { until } => {
                assert!(!timed_out && next.is_none(), "it waits although there is something to do");
                match self.link {
                    Link::Down => assert!(until.is_some_and(|until| until > self.now && until >= self.not_before)),
                    Link::Connecting | Link::Up { .. } => assert_eq!(until, self.deadline),
                }
                return false;
            }
        }
        true
    }

    /// The oldest pending event that was not sent on this connection, if the window lets it out.
    fn next_to_send(&self) -> Option<u64> {
        let Link::Up { .. } = self.link else { return None };
        let pending = self.pending();
        let next = *pending.iter().find(|s| !self.sent_on_this_connection.contains(s))?;
        (next - pending[0] < self.settings.window as u64).then_some(next)
    }

    fn check(&self) {
        let pending = self.pending();
        let outstanding = self.outstanding();
        assert_eq!(self.session.pending(), pending.len());
        assert_eq!(self.session.outstanding(), outstanding.len());
        if let (Some(first), Some(last)) = (pending.first(), outstanding.last()) {
            assert!(last - first < self.settings.window as u64, "{first} to {last} are out");
        }
        assert!(self.dropped.is_disjoint(&self.sent));
        let counters = self.session.counters();
        assert_eq!(counters.accepted, self.accepted);
        assert_eq!(counters.acknowledged, self.acknowledged.len() as u64);
        assert_eq!(counters.dropped, self.dropped.len() as u64);
        assert_eq!(counters.resent, self.resent);
    }

    /// A good network at last: everything that was accepted and not dropped must come through.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            while self.poll() {
                self.check();
            }
            match self.link {
                Link::Connecting => self.take(&Step::Connected { session_present: false }),
                Link::Down => self.now += 1_000,
                Link::Up { .. } => match self.sent_on_this_connection.first() {
                    Some(&oldest) => self.acknowledge(oldest),
                    None => break,
                },
            }
        }
        assert_eq!(self.pending(), [], "lost");
        let expected: BTreeSet<u64> = (1..=self.accepted).filter(|s| !self.dropped.contains(s)).collect();
        assert_eq!(self.sent, expected);
        assert_eq!(self.acknowledged, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn nothing_is_lost_and_all_is_in_order(
        steps in vec(step(), 0..300),
        window in 1..=16usize,
        drop_oldest: bool,
        seed: u64,
    ) {
        let settings = Settings {
            window,
            when_full: if drop_oldest { WhenFull::DropOldestUnsent } else { WhenFull::Refuse },
            progress_timeout_ms: 500,
            backoff_min_ms: 50,
            backoff_max_ms: 400,
            seed,
        };
        let mut model = Model::new(settings);
        for step in &steps {
            model.take(step);
        }
        model.drain();
    }
}
