//! Records that go, or are delivered, in another order than they came in.

use agent_core::pace::Metered;
use agent_core::retention::Refused;
use agent_store::{Boot, Damage, ErrorKind, MAX_BOOTS, Write, inspect};
use sync_protocol::records::{Class, Entry, Gone, MAX_TALLY, Range, Reason, Tally};

use crate::fixture::{Fixture, delivered, emit_to};

const CLASS: Class = Class::Normal;

fn fill(it: &mut Fixture, count: u8) {
    let writes: Vec<_> = (1..=count).map(|number| it.emit(CLASS, &[number; 10])).collect();
    it.store.commit(&writes).unwrap();
}

fn ahead(ranges: &[(u64, u64)]) -> Write {
    Write::Delivered { class: CLASS, ranges: ranges.to_vec() }
}

fn dropped(sequences: &[u64], reason: Reason) -> Write {
    Write::Dropped { class: CLASS, sequences: sequences.to_vec(), reason }
}

fn tally(stream: &str, reason: Reason, count: u64) -> Tally {
    Tally { stream: stream.into(), reason, count }
}

fn gone(first: u64, tally: &[Tally]) -> Range {
    Range { first, entries: vec![Entry::Gone(Gone { tally: tally.to_vec() })] }
}

/// What a range says in short: its first sequence, and of each entry the first byte or how many are gone.
fn short(range: &Range) -> (u64, Vec<String>) {
    let entries = range.entries.iter().map(|entry| match entry {
        Entry::Record(record) => record.body[0].to_string(),
        Entry::Gone(gone) => format!("-{}", gone.count().unwrap()),
    });
    (range.first, entries.collect())
}

fn range(it: &mut Fixture, after: u64) -> (u64, Vec<String>) {
    short(&it.reader.range(CLASS, after, 100, usize::MAX).unwrap())
}

fn rows(it: &Fixture) -> i64 {
    it.raw().query_row("SELECT count(*) FROM outbox_normal", [], |row| row.get(0)).unwrap()
}

fn waiting(it: &Fixture) -> (u64, u64) {
    let usage = it.store.usage();
    (usage.iter().map(|stream| stream.records).sum(), usage.iter().map(|stream| stream.bytes).sum())
}

fn strings(of: &[&str]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_delivered_ahead_is_deleted_and_passed_over() {
    let mut it = Fixture::new();
    fill(&mut it, 10);
    it.store.commit(&[ahead(&[(5, 6)])]).unwrap();
    it.store.commit(&[ahead(&[(7, 8)])]).unwrap();
    let mut it = it.reopen();
    assert_eq!((rows(&it), waiting(&it).0), (7, 6), "two runs that touch are one");
    assert_eq!(range(&mut it, 0), (1, strings(&["1", "2", "3", "4"])));
    for after in [4, 5, 7, 8] {
        assert_eq!(range(&mut it, after), (9, strings(&["9", "10"])), "after {after}");
    }
    // The mark takes in what lies ahead of it.
    it.store.commit(&[ahead(&[(1, 4)])]).unwrap();
    assert_eq!(it.reader.outbox().unwrap().class(CLASS).first, 9);
    assert_eq!((rows(&it), waiting(&it).0), (2, 2));
    let it = it.reopen();
    assert!(inspect(it.dir.path(), |_| true).unwrap().is_whole());
}

#[test]
fn what_lies_between_runs_that_are_settled_comes_together() {
    let mut it = Fixture::new();
    fill(&mut it, 9);
    it.store.commit(&[ahead(&[(2, 2), (5, 6), (8, 8)])]).unwrap();
    let size = it.store.usage()[1].bytes / 5;
    let mut ranges = |max_ranges, max_entries, max_bytes| {
        let ranges = it.reader.ranges(CLASS, 0, max_ranges, max_entries, max_bytes).unwrap();
        ranges.iter().map(|range| (range.first, range.entries.len())).collect::<Vec<_>>()
    };
    assert_eq!(ranges(10, 100, usize::MAX), [(1, 1), (3, 2), (7, 1), (9, 1)]);
    assert_eq!(ranges(2, 100, usize::MAX), [(1, 1), (3, 2)]);
    assert_eq!(ranges(10, 2, usize::MAX), [(1, 1), (3, 1)]);
    assert_eq!(ranges(10, 100, 4 * size as usize), [(1, 1), (3, 2), (7, 1)]);
    assert_eq!(ranges(10, 100, 4 * size as usize + 1), [(1, 1), (3, 2), (7, 1)], "what does not fit stays whole");
    assert_eq!(ranges(10, 100, 1), [(1, 1)], "one at least");
    assert_eq!(it.reader.ranges(CLASS, 9, 10, 100, usize::MAX).unwrap(), []);
}

#[test]
fn everything_may_be_delivered_ahead_and_the_next_number_is_still_new() {
    let mut it = Fixture::new();
    fill(&mut it, 4);
    it.store.commit(&[ahead(&[(2, 4)])]).unwrap();
    let mut it = it.reopen();
    fill(&mut it, 1);
    let outbox = it.reader.outbox().unwrap().class(CLASS);
    assert_eq!((outbox.first, outbox.next, range(&mut it, 4)), (1, 6, (5, strings(&["1"]))));
}

#[test]
fn what_is_dropped_is_told_by_stream_and_reason() {
    let mut it = Fixture::new();
    for number in 1..=9u8 {
        let stream = if number % 2 == 0 { "even" } else { "odd" };
        it.store.commit(&[it.effects(vec![emit_to(stream, CLASS, &[number; 10])])]).unwrap();
    }
    it.store.commit(&[dropped(&[2, 3, 4, 7], Reason::Oldest)]).unwrap();
    // A later one joins what it touches; what is no record that waits is passed over.
    it.store.commit(&[dropped(&[1, 2, 5, 7, 100], Reason::Expired), delivered(CLASS, 0)]).unwrap();
    let mut it = it.reopen();
    let first =
        gone(1, &[tally("odd", Reason::Expired, 2), tally("even", Reason::Oldest, 2), tally("odd", Reason::Oldest, 1)]);
    assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap(), [first, gone(7, &[tally("odd", Reason::Oldest, 1)])]);
    assert_eq!(range(&mut it, 0), (1, strings(&["-5", "6", "-1", "8", "9"])));
    assert_eq!(range(&mut it, 3), (6, strings(&["6", "-1", "8", "9"])), "not from the middle of a run");
    let usage: Vec<_> = it.reader.usage().unwrap().into_iter().map(|of| (of.name.to_string(), of.records)).collect();
    assert_eq!(usage, [(String::new(), 0), ("odd".into(), 1), ("even".into(), 2)]);

    // Told, but not delivered: they do not come again, and what lies below still does.
    it.store.commit(&[ahead(&[(7, 7)])]).unwrap();
    assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap().len(), 1);
    it.store.commit(&[ahead(&[(1, 5)])]).unwrap();
    assert_eq!((it.reader.gone(CLASS, 0, 10).unwrap(), range(&mut it, 0)), (vec![], (6, strings(&["6"]))));
    it.store.commit(&[ahead(&[(6, 6)])]).unwrap();
    assert_eq!(range(&mut it, 0), (8, strings(&["8", "9"])));
}

/// An answer is about what was sent, so it cannot settle what came to it later.
#[test]
fn a_run_that_has_grown_since_it_was_sent_is_told_again() {
    let mut it = Fixture::new();
    fill(&mut it, 9);
    it.store.commit(&[dropped(&[3, 4], Reason::Oldest)]).unwrap();
    it.store.commit(&[dropped(&[5], Reason::Oldest)]).unwrap();
    it.store.commit(&[ahead(&[(3, 4)])]).unwrap();
    assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap(), [gone(3, &[tally("means", Reason::Oldest, 3)])]);
    // It also sticks out of what was sent as records; those are settled up to it.
    it.store.commit(&[ahead(&[(1, 3)])]).unwrap();
    assert_eq!(range(&mut it, 0), (3, strings(&["-3", "6", "7", "8", "9"])));
    it.store.commit(&[ahead(&[(5, 7)])]).unwrap();
    assert_eq!(range(&mut it, 0), (3, strings(&["-3"])));
    assert_eq!(range(&mut it, 5), (8, strings(&["8", "9"])));
    // What was sent as records, and dropped while it was on its way, arrived.
    it.store.commit(&[dropped(&[8], Reason::Oldest), ahead(&[(8, 9)])]).unwrap();
    it.store.commit(&[ahead(&[(3, 5)])]).unwrap();
    assert_eq!((it.reader.outbox().unwrap().class(CLASS).first, rows(&it)), (10, 0));
}

#[test]
fn refused_records_keep_their_numbers_and_nothing_else() {
    let mut it = Fixture::new();
    fill(&mut it, 2);
    it.store.refuse(Refused::Streams(vec!["a".into()]));
    let emits = |it: &Fixture| {
        let emit = |stream| emit_to(stream, CLASS, b"x");
        it.effects(vec![emit("a"), emit("a"), emit("b"), emit("a")])
    };
    it.store.commit(&[emits(&it)]).unwrap();
    let committed = it.store.commit(&[emits(&it)]).unwrap();
    let stored: u64 = it.reader.usage().unwrap().iter().map(|stream| stream.bytes).sum();
    assert_eq!((committed.records[0], stored), (10, waiting(&it).1));
    let refused = |count| tally("a", Reason::Refused, count);
    // Those of the second commit joined that of the first.
    let runs = [gone(3, &[refused(2)]), gone(6, &[refused(3)]), gone(10, &[refused(1)])];
    assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap(), runs);
    assert_eq!((waiting(&it).0, it.store.refused()), (4, &Refused::Streams(vec!["a".into()])));
    it.store.refuse(Refused::All);
    it.store.commit(&[it.emit(Class::High, b"x")]).unwrap();
    assert_eq!(it.reader.gone(Class::High, 0, 10).unwrap(), [gone(1, &[tally("means", Reason::Refused, 1)])]);
    assert_eq!(it.reopen().store.refused(), &Refused::None);
}

#[test]
fn a_tally_never_gets_longer_than_a_request_takes() {
    let mut it = Fixture::new();
    let streams = MAX_TALLY as u64 + 10;
    it.store.refuse(Refused::All);
    let effects = (0..streams).map(|stream| emit_to(&stream.to_string(), CLASS, b"")).collect();
    it.store.commit(&[it.effects(effects)]).unwrap();
    let counts: Vec<_> = it.reader.gone(CLASS, 0, 10).unwrap().iter().map(|run| (run.first, run.last())).collect();
    assert_eq!(counts, [(1, Some(64)), (65, Some(streams))]);
}

#[test]
fn what_is_lost_is_told_like_all_that_is_gone_and_remembered() {
    let mut it = Fixture::new();
    fill(&mut it, 9);
    it.store.commit(&[Write::Lost { class: CLASS, first: 4, last: 5, reason: "a bad sector".into() }]).unwrap();
    assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap(), [gone(4, &[tally("", Reason::Damaged, 2)])]);
    assert_eq!(range(&mut it, 0), (1, strings(&["1", "2", "3", "-2", "6", "7", "8", "9"])));
    assert_eq!(waiting(&it).0, 7);
    assert_eq!(it.reader.missing(0, 10).unwrap()[0].1.reason, "a bad sector");
    // That of this very store is told as gone.
    assert_eq!(it.reader.untold().unwrap(), None);
}

#[test]
fn a_commit_that_fails_changes_no_count() {
    let mut it = Fixture::new();
    fill(&mut it, 3);
    let before = (waiting(&it), it.store.usage().to_vec());
    let group = [
        it.effects(vec![emit_to("new", CLASS, b"x")]),
        dropped(&[1], Reason::Oldest),
        ahead(&[(2, 2)]),
        ahead(&[(1, 9)]),
    ];
    let error = it.store.commit(&group).unwrap_err();
    assert_eq!((error.kind(), error.write()), (ErrorKind::Other, Some(3)));
    assert_eq!((waiting(&it), it.store.usage().to_vec()), before);
    it.store.commit(&group[..3]).unwrap();
    assert_eq!((waiting(&it).0, it.store.usage()[2].name.as_ref()), (2, "new"));
}

#[test]
fn heads_tell_a_streams_records_and_how_far_they_were_looked_for() {
    let mut it = Fixture::new();
    let emit = |stream, size: usize| emit_to(stream, CLASS, &vec![1; size]);
    it.store.commit(&[it.effects(vec![emit("a", 10), emit("b", 20), emit("a", 30), emit("a", 40)])]).unwrap();
    it.store.commit(&[dropped(&[3], Reason::Oldest)]).unwrap();
    let mut sequences = |stream, after, max| {
        let heads = it.reader.heads(CLASS, after, stream, max).unwrap();
        (heads.heads.iter().map(|head| head.sequence).collect::<Vec<_>>(), heads.seen_to)
    };
    assert_eq!(sequences(None, 0, 10), (vec![1, 2, 4], 4));
    assert_eq!(sequences(Some("a"), 0, 10), (vec![1, 4], 4));
    assert_eq!(sequences(Some("a"), 1, 2), (vec![], 3));
    assert_eq!(sequences(Some("a"), 3, 2), (vec![4], 4));
    assert_eq!(sequences(Some("nobody's"), 0, 10), (vec![], 4));
    assert_eq!(sequences(None, 4, 10), (vec![], 4));
    let sum: u64 = it.reader.heads(CLASS, 0, None, 10).unwrap().heads.iter().map(|head| head.bytes).sum();
    assert_eq!(sum, waiting(&it).1);
}

#[test]
fn powered_time_adds_up_over_boots() {
    let mut it = Fixture::new();
    let powered = |boot, monotonic_us| Write::Powered { boot, monotonic_us };
    it.store.commit(&[powered(7, 100), powered(7, 50), powered(3, 10)]).unwrap();
    let mut it = it.reopen();
    it.store.commit(&[powered(3, 30), powered(9, 1)]).unwrap();
    let boot = |boot, base_us, last_us| Boot { boot, base_us, last_us };
    assert_eq!(it.reader.boots().unwrap(), [boot(7, 0, 100), boot(3, 100, 30), boot(9, 130, 1)]);
    // The oldest are forgotten, and one that is damaged is left out.
    for number in 0..MAX_BOOTS as u64 - 1 {
        it.store.commit(&[powered(100 + number, 1)]).unwrap();
    }
    let boots = it.reader.boots().unwrap();
    assert_eq!((boots.len(), boots[0]), (MAX_BOOTS, boot(9, 130, 1)));
    it.raw().execute_batch("UPDATE boots SET base_us = 0 WHERE boot = 9").unwrap();
    assert_eq!(it.reader.boots().unwrap().len(), MAX_BOOTS - 1);
}

#[test]
fn what_was_metered_is_remembered() {
    let mut it = Fixture::new();
    assert_eq!(it.reader.metered().unwrap(), Metered::default());
    let metered = Metered { month: 681, bytes: u64::MAX };
    it.store.commit(&[Write::Metered(metered)]).unwrap();
    assert_eq!(it.reopen().reader.metered().unwrap(), metered);
}

/// Nobody can tell from a damaged run how far it went.
#[test]
fn a_damaged_run_is_named_up_to_the_next_row() {
    for (set, at) in [("last = last + 1", 3), ("checksum = 0", 3), ("kind = 2", 3), ("body = x'00'", 3)] {
        let mut it = Fixture::new();
        fill(&mut it, 9);
        it.store.commit(&[dropped(&[3, 4, 5], Reason::Oldest)]).unwrap();
        it.raw().execute_batch(&format!("UPDATE outbox_normal SET {set} WHERE id = {at}")).unwrap();
        assert_eq!(range(&mut it, 0), (1, strings(&["1", "2"])), "{set}");
        let error = it.reader.range(CLASS, 2, 10, usize::MAX).unwrap_err();
        let Some(Damage::Run { class: CLASS, first: 3, last: 5, .. }) = error.damage() else {
            panic!("{set}: {error}")
        };
        assert!(error.to_string().contains("what became of the records 3 to 5"), "{error}");
        it.store.commit(&[Write::Lost { class: CLASS, first: 3, last: 5, reason: error.to_string() }]).unwrap();
        assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap(), [gone(3, &[tally("", Reason::Damaged, 3)])]);
    }
    // The last row says which number comes next.
    let mut it = Fixture::new();
    fill(&mut it, 9);
    it.store.commit(&[dropped(&[8, 9], Reason::Oldest)]).unwrap();
    it.raw().execute_batch("UPDATE outbox_normal SET last = 10 WHERE id = 8").unwrap();
    assert_eq!(it.reader.gone(CLASS, 0, 10).unwrap_err().kind(), ErrorKind::Corrupt);
    let Fixture { dir, store, reader, .. } = it;
    drop((store, reader));
    assert_eq!(agent_store::Store::open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
}
