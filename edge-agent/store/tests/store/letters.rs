//! What becomes of dead letters when the control plane asks for it, and what it is told.

use agent_core::retention::Refused;
use agent_store::{Message, OutcomeResult, Write, inspect};
use sync_protocol::dead::{Action, Command, INLET, Note, Resolved, STREAM, What};
use sync_protocol::records::{Class, Entry, StoreEpoch};

use crate::fixture::{Fixture, dead, event, outcome, stamp, told};

/// With so many letters, from 1 on.
fn with_letters(count: usize) -> Fixture {
    let mut it = Fixture::new();
    let letters = vec![outcome(it.function, OutcomeResult::Dead(dead())); count];
    it.store.commit(&letters).unwrap();
    it
}

fn command(it: &Fixture, number: u64, action: Action, letters: &[u64]) -> Write {
    let command = Command { number, action, epoch: it.store.epoch(), letters: letters.to_vec() };
    Write::Command { command, stamp: stamp() }
}

/// The numbers of the letters that are there, and the messages that they became.
fn left(it: &mut Fixture) -> (Vec<u64>, Vec<Message>) {
    let letters: Vec<u64> = it.reader.dead_letters(0, 100).unwrap().iter().map(|letter| letter.id).collect();
    assert_eq!(it.reader.dead_letter_count().unwrap(), letters.len() as u64);
    let messages = it.reader.messages("@retry/mean", 0, 100).unwrap().0;
    assert_eq!(it.reader.message_count().unwrap(), messages.len() as u64);
    (letters, messages)
}

/// What the control plane is told of ends, in order.
fn ends(it: &mut Fixture) -> Vec<(u64, Resolved)> {
    let notes = it.bodies(Class::High, 0).into_iter().map(|body| serde_json::from_slice::<Note>(&body).unwrap());
    let end = |note: Note| match note.what {
        What::Resolved(resolved) => Some((note.letter, resolved)),
        What::Dead(_) => None,
    };
    notes.filter_map(end).collect()
}

#[test]
fn the_control_plane_is_told_of_a_letter_in_the_commit_that_stores_it() {
    let mut it = with_letters(2);
    let epoch = it.store.epoch();
    assert_eq!(it.bodies(Class::High, 0), [told(epoch, 1), told(epoch, 2)]);
    let range = it.reader.range(Class::High, 0, 1, usize::MAX).unwrap();
    let [Entry::Record(record)] = &range.entries[..] else { panic!("{range:?}") };
    assert_eq!((&*record.stream, &*record.function, &*record.origin.device), (STREAM, "mean", "pump-7"));
    // Where its records are refused, the letter stays.
    it.store.refuse(Refused::Streams(vec![STREAM.into()]));
    let committed = it.store.commit(&[outcome(it.function, OutcomeResult::Dead(dead()))]).unwrap();
    assert_eq!((committed.dead_letters, committed.records), (3, [0, 3]));
    assert_eq!(it.bodies(Class::High, 0).len(), 2);
}

#[test]
fn a_command_is_carried_out_once() {
    let mut it = with_letters(3);
    let retry = command(&it, 7, Action::Retry, &[1, 3, 9]);
    // Twice in one group, and again after a restart, as it comes if the answer got lost.
    let committed = it.store.commit(&[retry.clone(), retry.clone()]).unwrap();
    assert_eq!((committed.dead_letters, committed.messages), (1, 2));
    let mut it = it.reopen();
    assert_eq!(it.reader.commands_done().unwrap(), 7);
    it.store.commit(&[retry]).unwrap();
    let (letters, messages) = left(&mut it);
    assert_eq!((letters, messages.len()), (vec![2], 2));
    assert_eq!((&messages[0].event, messages[0].attempts), (&event(), 0));
    assert_eq!(ends(&mut it), [(1, Resolved::Retried), (3, Resolved::Retried), (9, Resolved::Gone)]);

    let drop = command(&it, 8, Action::Drop, &[2, 3]);
    assert_eq!(it.store.commit(&[drop]).unwrap().dead_letters, 0);
    assert_eq!(ends(&mut it)[3..], [(2, Resolved::Dropped), (3, Resolved::Gone)]);
    assert_eq!((it.reader.commands_done().unwrap(), left(&mut it).0), (8, vec![]));
    assert!(inspect(it.dir.path(), |_| true).unwrap().is_whole());
    // A number is not given twice.
    it.store.commit(&[outcome(it.function, OutcomeResult::Dead(dead()))]).unwrap();
    assert_eq!(left(&mut it).0, [4]);
}

#[test]
fn letters_of_another_life_of_the_store_are_gone() {
    let mut it = with_letters(1);
    let Write::Command { command, stamp } = command(&it, 1, Action::Drop, &[1]) else { unreachable!("it is one") };
    let other = Command { epoch: StoreEpoch(command.epoch.0 - 1), ..command };
    it.store.commit(&[Write::Command { command: other.clone(), stamp }]).unwrap();
    assert_eq!((left(&mut it).0, ends(&mut it)), (vec![1], vec![(1, Resolved::Gone)]));
    let note: Note = serde_json::from_slice(&it.bodies(Class::High, 1)[0]).unwrap();
    assert_eq!(note.epoch(), Some(other.epoch));
}

#[test]
fn what_never_reached_a_function_is_dropped_and_not_retried() {
    let mut it = Fixture::new();
    let mut write = outcome(it.function, OutcomeResult::Dead(dead()));
    if let Write::Outcome(outcome) = &mut write {
        outcome.function_name = INLET.into();
    }
    it.store.commit(&[write]).unwrap();
    it.store.commit(&[command(&it, 1, Action::Retry, &[1])]).unwrap();
    assert_eq!((left(&mut it).0, ends(&mut it)), (vec![1], vec![]));
    it.store.commit(&[command(&it, 2, Action::Drop, &[1])]).unwrap();
    assert_eq!((left(&mut it).0, ends(&mut it)), (vec![], vec![(1, Resolved::Dropped)]));
}

/// Or the commit would fail each time that the command comes, and the store be given up for one row.
#[test]
fn a_damaged_letter_does_not_stand_in_the_way() {
    let mut it = with_letters(2);
    it.raw().execute_batch("UPDATE dead_letters SET body = zeroblob(length(body)) WHERE id = 1").unwrap();
    it.store.commit(&[command(&it, 1, Action::Retry, &[1, 2])]).unwrap();
    assert_eq!(ends(&mut it), [(1, Resolved::Damaged), (2, Resolved::Retried)]);
    assert!(left(&mut it).0.is_empty());
}
