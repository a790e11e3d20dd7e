//! Messages and schedules: what waits for a function, and is used up with what the function does about it.

use agent_core::Event;
use agent_core::effect::{Effect, Request};
use agent_core::event::EventKind;
use agent_store::{Damage, Message, OutcomeResult, Scheduled, Store, Uses, Write, inspect};
use sync_protocol::records::Class;

use crate::fixture::{Fixture, dead, emit, event, outcome, put, stamp};

fn enqueue(queue: &str, body: &[u8], delay_ms: u32) -> Effect {
    Effect::Enqueue { queue: queue.into(), body: body.into(), delay_ms }
}

fn using(uses: Uses, mut write: Write) -> Write {
    if let Write::Outcome(outcome) = &mut write {
        outcome.uses = uses;
    }
    write
}

/// When everything that waits is due.
const LATE: u64 = u64::MAX;

fn messages(it: &mut Fixture, queue: &str) -> Vec<Message> {
    it.reader.messages(queue, LATE, 100).unwrap().0
}

#[test]
fn a_message_waits_for_its_time_and_comes_in_the_order_of_it() {
    let mut it = Fixture::new();
    let effects = vec![enqueue("q", b"late", 5_000), enqueue("q", b"now", 0), enqueue("other", b"x", 0)];
    let committed = it.store.commit(&[it.effects(effects)]).unwrap();
    assert_eq!(committed.messages, 3);
    let mut it = it.reopen();
    let now = stamp().wall_us;
    let (due, next) = it.reader.messages("q", now, 100).unwrap();
    assert_eq!((due.len(), next), (1, Some(now + 5_000_000)));
    let Message { event: found, attempts: 0, .. } = &due[0] else { panic!("{due:?}") };
    assert_eq!((found.kind, &*found.topic, &*found.payload), (EventKind::Queue, "q", &b"now"[..]));
    assert_eq!((&found.device, found.time_us), (&event().device, now));
    let bodies: Vec<_> = messages(&mut it, "q").into_iter().map(|message| message.event.payload.to_vec()).collect();
    assert_eq!(bodies, [b"now".to_vec(), b"late".to_vec()]);
    assert_eq!(it.reader.messages("q", LATE, 1).unwrap().0.len(), 1);
    assert!(it.reader.messages("q", 0, 100).unwrap().0.is_empty());
}

#[test]
fn a_message_is_used_up_with_its_outcome_and_never_twice() {
    let mut it = Fixture::new();
    it.store.commit(&[it.effects(vec![enqueue("q", b"1", 0)])]).unwrap();
    let id = messages(&mut it, "q")[0].id;
    let handled = using(Uses::Message(id), it.effects(vec![emit(Class::Normal, b"done"), put(b"k", b"v")]));
    // Twice in one group, and once more after that.
    let committed = it.store.commit(&[handled.clone(), handled.clone()]).unwrap();
    assert_eq!((committed.messages, committed.records[0]), (0, 1));
    assert_eq!(it.store.commit(&[handled]).unwrap().records[0], 1);
    let mut it = it.reopen();
    assert_eq!((it.bodies(Class::Normal, 0).len(), it.reader.message_count().unwrap()), (1, 0));
    // A number is not given twice.
    it.store.commit(&[it.effects(vec![enqueue("q", b"2", 0)])]).unwrap();
    assert_ne!(messages(&mut it, "q")[0].id, id);
}

#[test]
fn an_event_that_is_tried_again_keeps_all_it_was_and_its_number() {
    let mut it = Fixture::new();
    let mut write = outcome(it.function, OutcomeResult::Retry { due_us: 7, attempts: 1 });
    if let Write::Outcome(outcome) = &mut write {
        outcome.event.attributes = vec![("a".into(), "b".into())];
        outcome.seen = Some(("pump-7".into(), vec![1]));
    }
    it.store.commit(&[write]).unwrap();
    assert_eq!(it.reader.seen(it.function, "pump-7", "pump-7").unwrap(), Some(vec![1]));
    let [first] = &messages(&mut it, "@retry/mean")[..] else { panic!("one message") };
    assert_eq!((first.due_us, first.attempts), (7, 1));
    assert_eq!(first.event.attributes, [("a".to_owned(), "b".to_owned())]);
    assert_eq!((&first.event.identity, &first.event.payload), (&event().identity, &event().payload));

    let again = outcome(it.function, OutcomeResult::Retry { due_us: 9, attempts: 2 });
    let committed = it.store.commit(&[using(Uses::Message(first.id), again)]).unwrap();
    assert_eq!(committed.messages, 1);
    let [second] = &messages(&mut it, "@retry/mean")[..] else { panic!("one message") };
    assert_eq!((second.id, second.due_us, second.attempts), (first.id, 9, 2));

    let given_up = outcome(it.function, OutcomeResult::Dead(dead()));
    let committed = it.store.commit(&[using(Uses::Message(first.id), given_up)]).unwrap();
    assert_eq!((committed.messages, committed.dead_letters), (0, 1));
}

fn requesting(it: &Fixture, url: &str) -> Write {
    let request = Request {
        url: url.into(),
        method: "POST".into(),
        headers: vec![("x".into(), "y".into())],
        body: b"body".to_vec(),
        to: "other".into(),
        timeout_ms: 1_000,
        tries: 3,
        tag: None,
    };
    it.effects(vec![Effect::Request(request)])
}

/// The requests that wait, due or not.
fn requests(it: &mut Fixture) -> Vec<Message> {
    let queues = it.reader.request_queues().unwrap();
    queues.into_iter().flat_map(|queue| messages(it, &queue)).collect()
}

#[test]
fn a_request_waits_with_the_effects_of_its_run_and_is_replaced_by_its_answer_once() {
    let mut it = Fixture::new();
    let writes =
        [requesting(&it, "http://a/1"), requesting(&it, "http://a/2"), it.effects(vec![enqueue("q", b"x", 0)])];
    assert_eq!(it.store.commit(&writes).unwrap().messages, 3);
    let mut it = it.reopen();
    assert_eq!(it.reader.request_queues().unwrap(), ["@request/mean"]);
    assert_eq!([9, 1].map(|max| it.reader.request_count(max).unwrap()), [2, 1]);
    let [first, second] = &requests(&mut it)[..] else { panic!("two requests") };
    let wanted = Request::of(&first.event).unwrap();
    assert_eq!((wanted.url.as_str(), wanted.to.as_str(), &wanted.body[..]), ("http://a/1", "other", &b"body"[..]));
    assert_eq!(first.event.device, event().device);

    // Put off, it keeps its number, and all that it is.
    it.store.commit(&[Write::Requested { id: first.id, due_us: 9, attempts: 1 }]).unwrap();
    let later = requests(&mut it).into_iter().find(|message| message.id == first.id).unwrap();
    assert_eq!((later.due_us, later.attempts, &later.event), (9, 1, &first.event));

    let answer = |body: &[u8]| Event { payload: body.into(), kind: EventKind::Answer, ..event() };
    let answered = |body| Write::Answered { id: first.id, to: "other".into(), event: answer(body) };
    // Twice in one group, and once more after that.
    assert_eq!(it.store.commit(&[answered(b"one"), answered(b"two")]).unwrap().messages, 3);
    let put_off = Write::Requested { id: first.id, due_us: 1, attempts: 2 };
    assert_eq!(it.store.commit(&[answered(b"three"), put_off]).unwrap().messages, 3);
    let mut it = it.reopen();
    let [waits] = &messages(&mut it, "@retry/other")[..] else { panic!("one answer") };
    assert_eq!((waits.attempts, &waits.event), (0, &answer(b"one")));
    assert_ne!(waits.id, first.id);
    assert_eq!(requests(&mut it).iter().map(|message| message.id).collect::<Vec<_>>(), [second.id]);
    assert!(inspect(it.dir.path(), |_| true).unwrap().is_whole());
}

#[test]
fn a_moment_is_served_once() {
    let mut it = Fixture::new();
    let moment = |up_to_us| Scheduled { function: "mean".into(), schedule: "hourly".into(), up_to_us };
    let served = |it: &Fixture, at| using(Uses::Moment(moment(at)), it.emit(Class::Normal, b"tick"));
    let writes = [served(&it, 10), served(&it, 10), served(&it, 9), served(&it, 11)];
    assert_eq!(it.store.commit(&writes).unwrap().records[0], 2);
    assert_eq!(it.reader.schedules().unwrap(), [moment(11)]);
    // A clock that was wrong is set back by hand.
    it.store.commit(&[Write::Scheduled(moment(3)), served(&it, 4)]).unwrap();
    let mut it = it.reopen();
    assert_eq!((it.reader.schedules().unwrap(), it.bodies(Class::Normal, 0).len()), (vec![moment(4)], 3));
}

#[test]
fn a_damaged_message_is_named_and_given_up_alone() {
    let mut it = Fixture::new();
    it.store.commit(&[it.effects(vec![enqueue("q", b"1", 0), enqueue("q", b"2", 0)])]).unwrap();
    it.raw().execute_batch("UPDATE messages SET due_us = due_us - 1 WHERE id = 1").unwrap();
    let error = it.reader.messages("q", LATE, 100).unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Message { id: 1, .. })), "{error}");
    let survey = inspect(it.dir.path(), |_| true).unwrap();
    assert!(survey.damage.iter().any(|line| line.starts_with("message 1: ")), "{:?}", survey.damage);
    it.store.commit(&[Write::MessageLost { id: 1 }, Write::MessageLost { id: 1 }]).unwrap();
    assert_eq!((messages(&mut it, "q").len(), it.reader.message_count().unwrap()), (1, 1));
    assert!(inspect(it.dir.path(), |_| true).unwrap().is_whole());
}

#[test]
fn messages_and_schedules_are_carried_over_into_a_fresh_store() {
    let mut it = Fixture::new();
    let moment = Scheduled { function: "mean".into(), schedule: "hourly".into(), up_to_us: 5 };
    let effects = it.effects(vec![enqueue("q", b"1", 0), enqueue("r", b"2", 1)]);
    it.store.commit(&[effects, Write::Scheduled(moment.clone())]).unwrap();
    let before = [messages(&mut it, "q"), messages(&mut it, "r")].concat();
    let Fixture { dir, store, reader, .. } = it;
    drop(reader);
    store.condemn("the test says so", &[]).unwrap();
    let (store, recovery) = Store::open_or_recover(dir.path()).unwrap();
    assert!(recovery.is_some());
    let mut reader = store.reader().unwrap();
    let after: Vec<_> = ["q", "r"].into_iter().flat_map(|queue| reader.messages(queue, LATE, 9).unwrap().0).collect();
    assert_eq!(after, before);
    assert_eq!((reader.message_count().unwrap(), reader.schedules().unwrap()), (2, vec![moment]));
}
