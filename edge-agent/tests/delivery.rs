//! What is delivered next, from a real store to a control plane that answers as it should.

use std::path::Path;
use std::time::Duration;

use agent_core::effect::{Effect, Priority};
use agent_core::event::{Event, EventKind};
use agent_core::retention::Refused;
use agent_core::uplink::Turns;
use agent_store::{FunctionId, Outcome, OutcomeResult, Store, Write};
use edge_agent::uplink::delivery::{Allowed, Delivery, Sending, Step};
use sync_protocol::records::{Class, Entry, MAX_ENTRIES, Reason, Reply, Stamp};

fn emit(function: FunctionId, priority: Priority) -> Write {
    Write::Outcome(Outcome {
        function,
        function_name: "f".into(),
        partition: "p".into(),
        seen: None,
        uses: agent_store::Uses::Nothing,
        blobs: Vec::new(),
        event: Event::new(EventKind::Mqtt, "d", "t", [], 0),
        stamp: Stamp { wall_us: 0, monotonic_us: 0, boot: 0, synchronised: false },
        usage: Default::default(),
        result: OutcomeResult::Effects(vec![Effect::Emit { stream: "s".into(), body: b"1".to_vec(), priority }]),
    })
}

struct Gateway {
    store: Store,
    function: FunctionId,
    reader: agent_store::Reader,
    delivery: Delivery,
}

impl Gateway {
    fn new(dir: &Path) -> Self {
        let mut store = Store::open(dir).unwrap();
        let (function, reader) = (store.function("f").unwrap(), store.reader().unwrap());
        let delivery = Delivery::new(store.epoch(), None);
        Self { store, function, reader, delivery }
    }

    fn emit(&mut self, count: usize, priority: Priority) {
        let writes = vec![emit(self.function, priority); count];
        self.store.commit(&writes).unwrap();
    }

    fn next(&mut self) -> Option<Sending> {
        match self.delivery.next(&mut self.reader, Allowed::All).unwrap() {
            Step::Send(sending) => Some(*sending),
            Step::Idle | Step::Wait => None,
            step => panic!("{step:?}"),
        }
    }

    /// The control plane has everything up to what was sent; how many records that were.
    fn answered(&mut self, sending: Sending) -> u64 {
        self.answered_after(sending, Duration::from_millis(1))
    }

    fn answered_after(&mut self, sending: Sending, took: Duration) -> u64 {
        let high_water = sending.request.ranges.last().and_then(sync_protocol::records::Range::last).unwrap();
        self.confirmed(sending, took, high_water)
    }

    fn confirmed(&mut self, sending: Sending, took: Duration, high_water: u64) -> u64 {
        let (epoch, class, checksum) = (sending.request.epoch, sending.request.class, sending.request.checksum);
        let reply = Reply { epoch, class, checksum, high_water };
        let confirmed = self.delivery.answered(sending.flight, &reply, 0, took, 100).unwrap();
        for write in confirmed.writes {
            self.store.commit(&[write]).unwrap();
        }
        confirmed.records
    }
}

#[test]
fn records_leave_also_while_others_are_refused_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(10, Priority::Normal);
    gateway.store.refuse(Refused::All);
    gateway.emit(1, Priority::Normal);
    let mut delivered = 0;
    for _ in 0..4 {
        let sending = gateway.next().unwrap();
        // So the run that was sent is never the one that is there when the answer comes.
        gateway.emit(1, Priority::Normal);
        delivered += gateway.answered(sending);
    }
    assert_eq!(delivered, 10);
    // It comes to rest when they do.
    gateway.store.refuse(Refused::None);
    while let Some(sending) = gateway.next() {
        gateway.answered(sending);
    }
    assert_eq!(gateway.reader.outbox().unwrap().class(Class::Normal).first, 16);
}

#[test]
fn what_is_gone_goes_first_then_what_is_urgent_then_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(3, Priority::Normal);
    gateway.store.refuse(Refused::All);
    gateway.emit(2, Priority::Normal);
    gateway.store.refuse(Refused::None);
    gateway.emit(1, Priority::High);
    let mut order = Vec::new();
    while let Some(sending) = gateway.next() {
        let entries = sending.request.ranges.iter().flat_map(|range| &range.entries);
        let gone = entries.clone().filter(|entry| matches!(entry, Entry::Gone(_))).count();
        order.push((sending.request.class, gone, entries.count() - gone));
        gateway.answered(sending);
    }
    assert_eq!(order, [(Class::Normal, 1, 0), (Class::High, 0, 1), (Class::Normal, 0, 3)]);
}

#[test]
fn what_lies_between_others_that_are_gone_does_not_take_a_request_each() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(1_000, Priority::Normal);
    let sequences = (1..=1_000).step_by(2).collect();
    gateway.store.commit(&[Write::Dropped { class: Class::Normal, sequences, reason: Reason::Thinned }]).unwrap();
    let (mut requests, mut delivered) = (0, 0);
    while let Some(sending) = gateway.next() {
        delivered += gateway.answered(sending);
        requests += 1;
    }
    assert_eq!((delivered, requests), (500, 2));
}

#[test]
fn a_backlog_drains_also_when_nothing_is_left_of_what_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(Turns::BACKLOG as usize + 1, Priority::Normal);
    // It is noticed now.
    let first = gateway.next().unwrap();
    gateway.emit(2, Priority::Normal);
    let mut delivered = gateway.answered(first);
    let sequences = vec![Turns::BACKLOG + 2, Turns::BACKLOG + 3];
    gateway.store.commit(&[Write::Dropped { class: Class::Normal, sequences, reason: Reason::Expired }]).unwrap();
    while let Some(sending) = gateway.next() {
        delivered += gateway.answered(sending);
    }
    assert_eq!(delivered, Turns::BACKLOG + 1);
}

#[test]
fn one_request_follows_another_that_is_on_its_way_if_both_are_full_and_the_link_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(5 * MAX_ENTRIES, Priority::Normal);
    let first = |sending: &Sending| sending.request.ranges[0].first;
    // Nothing is known of the link yet.
    let one = gateway.next().unwrap();
    assert!(gateway.next().is_none());
    gateway.answered(one);
    let (two, three) = (gateway.next().unwrap(), gateway.next().unwrap());
    assert!(gateway.next().is_none());
    assert_eq!((first(&two), first(&three)), (1 + MAX_ENTRIES as u64, 1 + 2 * MAX_ENTRIES as u64));
    // The second one may be answered first. What is urgent is next, when all that is on its way has arrived.
    gateway.answered(three);
    gateway.emit(1, Priority::High);
    assert!(gateway.next().is_none());
    gateway.answered(two);
    let urgent = gateway.next().unwrap();
    assert_eq!(urgent.request.class, Class::High);
    assert!(gateway.next().is_none());
    gateway.answered(urgent);
    // A slow link has one at a time.
    let four = gateway.next().unwrap();
    assert_eq!(first(&four), 1 + 3 * MAX_ENTRIES as u64);
    gateway.answered_after(four, Duration::from_secs(2));
    let five = gateway.next().unwrap();
    assert!(gateway.next().is_none());
    gateway.answered(five);
    assert!(gateway.next().is_none());
    assert_eq!(gateway.reader.outbox().unwrap().class(Class::Normal).first, 1 + 5 * MAX_ENTRIES as u64);
}

#[test]
fn what_was_on_its_way_when_it_was_given_up_goes_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(3 * MAX_ENTRIES, Priority::Normal);
    let one = gateway.next().unwrap();
    gateway.answered(one);
    let (two, three) = (gateway.next().unwrap(), gateway.next().unwrap());
    gateway.answered(three);
    gateway.delivery.failed();
    gateway.delivery.gave_up();
    let again = gateway.next().unwrap();
    assert_eq!(again.request.ranges[0].first, two.request.ranges[0].first);
    assert!(gateway.next().is_none());
    gateway.answered(again);
    let mut entries = 0;
    while let Some(sending) = gateway.next() {
        entries += sending.request.ranges.iter().map(|range| range.entries.len()).sum::<usize>();
        gateway.answered(sending);
    }
    assert!(entries < MAX_ENTRIES, "{entries} entries went once more");
    assert_eq!(gateway.reader.outbox().unwrap().class(Class::Normal).first, 1 + 3 * MAX_ENTRIES as u64);
}

#[test]
fn an_answer_may_know_of_a_request_that_was_sent_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::new(dir.path());
    gateway.emit(1, Priority::Normal);
    let one = gateway.next().unwrap();
    gateway.answered(one);
    gateway.emit(MAX_ENTRIES, Priority::Normal);
    let two = gateway.next().unwrap();
    // When the second one was sent, these were not there.
    gateway.emit(MAX_ENTRIES, Priority::Normal);
    let three = gateway.next().unwrap();
    let all = 1 + 2 * MAX_ENTRIES as u64;
    assert_eq!(three.request.ranges[0].last(), Some(all));
    // It arrived before the second one.
    gateway.confirmed(two, Duration::from_millis(1), all);
    gateway.answered(three);
    assert!(gateway.next().is_none());
    assert_eq!(gateway.reader.outbox().unwrap().class(Class::Normal).first, 1 + all);
}
