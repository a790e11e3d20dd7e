//! Blobs: names, the contents that they have, and what keeps a content.

use agent_core::event::EventKind;
use agent_store::{
    Blob, BlobWrite, ContentDigest, Damage, Item, Message, OutcomeResult, Store, Uses, WatchedFile, Write, inspect,
    salvage_copy,
};
use sync_protocol::dead::{Action, Command};

use crate::fixture::{Fixture, dead, outcome, stamp};

const ONE: ContentDigest = [1; 32];
const TWO: ContentDigest = [2; 32];

fn blob(digest: ContentDigest) -> Blob {
    Blob { digest, bytes: 10 + u64::from(digest[0]), content_type: "text/csv".into(), stored_us: 5 }
}

/// `mean` is to hear of it.
fn put(name: &str, digest: ContentDigest) -> Write {
    Write::Blob(BlobWrite::Put { name: name.into(), blob: blob(digest), wanted: vec!["mean".into()] })
}

fn delete(name: &str) -> Write {
    Write::Blob(BlobWrite::Delete { name: name.into() })
}

fn messages(it: &mut Fixture) -> Vec<Message> {
    it.reader.messages("@retry/mean", 0, 100).unwrap().0
}

fn unused(it: &mut Fixture) -> Vec<ContentDigest> {
    it.reader.unused_contents(100).unwrap()
}

/// What came of giving the first message to its function.
fn handled(it: &mut Fixture, result: OutcomeResult) -> Write {
    let Message { id, event, .. } = messages(it).remove(0);
    let mut write = outcome(it.function, result);
    if let Write::Outcome(outcome) = &mut write {
        (outcome.uses, outcome.event) = (Uses::Message(id), event);
    }
    write
}

#[test]
fn a_content_under_a_name_leads_to_one_event_for_each_function() {
    let mut it = Fixture::new();
    let committed = it.store.commit(&[put("in/a/b", ONE), put("in/a/b", ONE)]).unwrap();
    assert_eq!((committed.messages, committed.blobs, committed.blob_bytes), (1, 1, 11));
    let mut it = it.reopen();
    it.store.commit(&[put("in/a/b", ONE)]).unwrap();
    let found = messages(&mut it);
    let [Message { event, attempts: 0, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((event.kind, &*event.device, &*event.topic, event.time_us), (EventKind::Blob, "@blob", "in/a/b", 5));
    let attributes: Vec<(&str, &str)> =
        event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let digest = "01".repeat(32);
    assert_eq!(
        attributes,
        [("digest", digest.as_str()), ("size", "11"), ("type", "text/csv"), ("bucket", "in"), ("name", "a/b")]
    );
    assert_eq!(it.reader.blob("in/a/b").unwrap(), Some(blob(ONE)));
    assert_eq!(it.reader.blob("in/a").unwrap(), None);
    let committed = it.store.commit(&[put("in/a/b", TWO), put("in/a/b", ONE), delete("in/none")]).unwrap();
    assert_eq!((committed.messages, committed.blobs, committed.blob_bytes), (3, 1, 23));
}

#[test]
fn a_content_stays_for_names_messages_and_dead_letters() {
    let mut it = Fixture::new();
    it.store.commit(&[put("in/a", ONE), put("in/b", ONE)]).unwrap();
    it.store.commit(&[delete("in/a"), put("in/b", TWO)]).unwrap();
    assert!(unused(&mut it).is_empty(), "two messages are about it");
    let first = handled(&mut it, OutcomeResult::Effects(vec![]));
    it.store.commit(&[first]).unwrap();
    let again = handled(&mut it, OutcomeResult::Retry { due_us: 0, attempts: 1 });
    it.store.commit(&[again]).unwrap();
    assert!(unused(&mut it).is_empty());
    let died = handled(&mut it, OutcomeResult::Dead(dead()));
    it.store.commit(&[died]).unwrap();
    let mut it = it.reopen();
    assert!(unused(&mut it).is_empty() && it.reader.is_used(&ONE).unwrap());
    let epoch = it.store.epoch();
    let command = |number, action, letter| {
        let command = Command { number, action, epoch, letters: vec![letter] };
        Write::Command { command, stamp: stamp() }
    };
    it.store.commit(&[command(1, Action::Retry, 1)]).unwrap();
    assert!(unused(&mut it).is_empty() && messages(&mut it).iter().any(|message| &*message.event.topic == "in/b"));
    while !messages(&mut it).is_empty() {
        let last = handled(&mut it, OutcomeResult::Effects(vec![]));
        it.store.commit(&[last]).unwrap();
    }
    assert_eq!(unused(&mut it), [ONE]);
    // Its file goes, unless something refers to it again.
    let committed = it.store.commit(&[put("in/c", ONE), Write::ContentsGone(vec![ONE])]).unwrap();
    assert_eq!((committed.blob_bytes, unused(&mut it).len()), (23, 0));
    it.store.commit(&[delete("in/c")]).unwrap();
    let id = messages(&mut it)[0].id;
    it.store.commit(&[Write::MessageLost { id }]).unwrap();
    assert_eq!(unused(&mut it), [ONE]);
    let committed = it.store.commit(&[Write::ContentsGone(vec![ONE, TWO])]).unwrap();
    assert_eq!((committed.blob_bytes, it.reader.is_used(&TWO).unwrap()), (12, true));
}

#[test]
fn what_a_function_does_to_blobs_is_all_or_nothing_with_the_rest() {
    let mut it = Fixture::new();
    it.store.commit(&[put("in/a", ONE)]).unwrap();
    let mut write = handled(&mut it, OutcomeResult::Effects(vec![]));
    if let Write::Outcome(outcome) = &mut write {
        let out = BlobWrite::Put { name: "out/a".into(), blob: blob(TWO), wanted: vec!["other".into()] };
        outcome.blobs = vec![out, BlobWrite::Delete { name: "in/a".into() }];
    }
    // A message that was handled before does nothing a second time.
    let committed = it.store.commit(&[write.clone(), put("in/a", TWO), write]).unwrap();
    assert_eq!((committed.blobs, committed.messages), (2, 2));
    assert_eq!(it.reader.blob("out/a").unwrap(), Some(blob(TWO)));
    assert_eq!(unused(&mut it), [ONE]);
}

#[test]
fn damage_is_named_and_what_is_whole_is_salvaged() {
    let mut it = Fixture::new();
    let file = WatchedFile { bytes: 11, modified_ns: 7, digest: ONE };
    it.store.commit(&[put("in/a", ONE), put("in/b", TWO), Write::Watched("in/a".into(), Some(file.clone()))]).unwrap();
    // One content that only a message refers to, and one that only a dead letter does.
    it.store.commit(&[delete("in/a")]).unwrap();
    let died = handled(&mut it, OutcomeResult::Dead(dead()));
    it.store.commit(&[died, put("in/c", [3; 32]), put("in/c", TWO)]).unwrap();
    it.raw().execute("UPDATE blobs SET digest = ?1 WHERE name = 'in/b'", [[9; 32]]).unwrap();
    let error = it.reader.blob("in/b").unwrap_err();
    assert!(matches!(error.damage(), Some(Damage::Blob { name, .. }) if name == "in/b"), "{error}");
    let mut names = Vec::new();
    let survey = inspect(it.dir.path(), |item| {
        if let Item::Blob { name, .. } = item {
            names.push(name);
        }
        true
    })
    .unwrap();
    assert_eq!((names, survey.blobs, survey.contents), (vec!["in/c".to_owned()], 1, (3, 36)));
    assert!(survey.damage.iter().any(|damage| damage.starts_with("blob \"in/b\"")), "{:?}", survey.damage);

    let to = tempfile::tempdir().unwrap();
    salvage_copy(it.dir.path(), &to.path().join("fresh")).unwrap();
    let mut fresh = Store::open(&to.path().join("fresh")).unwrap();
    let mut reader = fresh.reader().unwrap();
    assert_eq!(reader.blob_usage().unwrap(), (1, 36));
    for digest in [ONE, TWO, [3; 32]] {
        assert!(reader.is_used(&digest).unwrap(), "{digest:?}");
    }
    assert_eq!(reader.watched().unwrap(), [("in/a".to_owned(), file)]);
    fresh.commit(&[Write::Watched("in/a".into(), None)]).unwrap();
    assert!(reader.watched().unwrap().is_empty());
    assert!(inspect(&to.path().join("fresh"), |_| true).unwrap().is_whole());
}
