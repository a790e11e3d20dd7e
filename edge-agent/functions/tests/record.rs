//! Recordings: what is written is read, whatever is done to the file; and a run is made again, by its own version to the
//! bit, by another as far as anybody knows what it asks.

mod common;

use std::collections::BTreeMap;

use agent_core::{Effect, Event};
use agent_functions::record::file::{Damage, Frames, HEADER, MAX_FRAME_BYTES, first_frame, write};
use agent_functions::record::{Ended, Frame, NotRecorded, Player, Question, Recorded, RecordedRun, Recorder};
use agent_functions::{Function, Reads};
use common::{State, data, event, guest_with, load, record};
use proptest::prelude::*;

/// Reads `read`, and writes one byte more of it as the value of `write`; emits what it read.
fn counter(read: &str, write: &str) -> Function {
    let fields = [data(0, read.as_bytes()), data(16, write.as_bytes()), data(32, b"alerts")].concat();
    load(&guest_with(
        &fields,
        &format!(
            "(local $n i32)
             (local.set $n (call $state_get (i32.const 0) (i32.const {}) (i32.const 256) (i32.const 128)))
             (if (i32.lt_s (local.get $n) (i32.const 0)) (then (local.set $n (i32.const 0))))
             (call $emit (i32.const 32) (i32.const 6) (i32.const 256) (local.get $n) (i32.const 0))
             (call $state_put (i32.const 16) (i32.const {}) (i32.const 256)
                (i32.add (local.get $n) (i32.const 1)))",
            read.len(),
            write.len()
        ),
    ))
}

/// Finds the first key with the prefix `read` and emits it.
fn finder(prefix: &str) -> Function {
    let fields = [data(0, prefix.as_bytes()), data(32, b"alerts")].concat();
    load(&guest_with(
        &fields,
        &format!(
            "(local $n i32)
             (local.set $n (call $state_next (i32.const 0) (i32.const {}) (i32.const 0) (i32.const 0)
                (i32.const 256) (i32.const 128)))
             (if (i32.ge_s (local.get $n) (i32.const 0)) (then
                (call $emit (i32.const 32) (i32.const 6) (i32.const 256) (local.get $n) (i32.const 0))))",
            prefix.len()
        ),
    ))
}

fn state(pairs: &[(&str, &str)]) -> State {
    let values = pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().into())).collect();
    State { values, ..State::default() }
}

/// A recording of so many runs, each of which finds what the one before left.
fn runs(function: &Function, state: &mut State, count: usize) -> Vec<RecordedRun> {
    (0..count)
        .map(|_| {
            let run = record(function, &event(), state, 7);
            let Ended::Done(effects) = &run.result.ended else { panic!("{run:?}") };
            for effect in effects {
                if let Effect::StatePut { key, value, .. } = effect {
                    state.values.insert(key.clone(), value.as_slice().into());
                }
            }
            run
        })
        .collect()
}

fn emitted(player: &mut Player, function: &Function, run: &RecordedRun) -> Result<usize, NotRecorded> {
    let result = player.play(function, run)?.result;
    let Ended::Done(effects) = result.ended else { panic!("{result:?}") };
    let emitted = effects.iter().find_map(|effect| match effect {
        Effect::Emit { body, .. } => Some(body.len()),
        _ => None,
    });
    Ok(emitted.unwrap_or(usize::MAX))
}

#[test]
fn another_version_reads_what_it_wrote_itself() {
    // The recorded one counts in "n"; the other one in "m", which it finds absent only because that was asked.
    let (one, other) = (counter("n", "n"), counter("n", "m"));
    let recording = runs(&one, &mut state(&[("n", "xx")]), 3);
    let lengths = |function: &Function| {
        let mut player = Player::default();
        recording.iter().map(|run| emitted(&mut player, function, run).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&one), [2, 3, 4]);
    // Nobody writes "n" now, so it stays as it was before the recording began.
    assert_eq!(lengths(&other), [2, 2, 2]);
    let mut player = Player::default();
    for run in &recording {
        player.play(&other, run).unwrap();
    }
    let left: Vec<_> = player.state().map(|(partition, key, value)| (partition, key, value.map(<[u8]>::len))).collect();
    assert_eq!(left, [("sensor-1", &b"m"[..], Some(3))]);
}

#[test]
fn what_was_not_recorded_is_said_and_not_guessed() {
    let recording = runs(&counter("n", "n"), &mut state(&[("n", "x"), ("other", "yy")]), 3);
    let other = counter("other", "n");
    let mut player = Player::default();
    for run in &recording {
        let missing = player.play(&other, run).unwrap_err();
        assert_eq!(missing, NotRecorded(Question::State(b"other".to_vec())));
        assert_eq!(missing.to_string(), "not recorded: the value of \"other\"");
    }
    // Those after it go on from what the recorded version left.
    assert_eq!(emitted(&mut player, &counter("n", "n"), &recording[2]).unwrap(), 3);
    // The recorded version wrote "blind" before anybody asked what it was.
    let recording = runs(&counter("n", "blind"), &mut state(&[]), 2);
    let mut player = Player::default();
    assert!(player.play(&counter("blind", "n"), &recording[0]).is_err());
    assert_eq!(emitted(&mut player, &counter("blind", "n"), &recording[1]).unwrap(), 1);
}

#[test]
fn a_gap_makes_everything_unknown() {
    let recording = runs(&counter("n", "n"), &mut state(&[]), 2);
    let (mut player, reader) = (Player::default(), finder("n"));
    assert!(player.play(&reader, &recording[0]).is_err());
    player.play(&counter("n", "n"), &recording[0]).unwrap();
    player.gap();
    assert_eq!(player.state().count(), 0);
    assert_eq!(emitted(&mut player, &counter("n", "n"), &recording[1]).unwrap(), 1);
}

#[test]
fn keys_in_a_range_that_was_read_are_known() {
    let recording = runs(&finder("k"), &mut state(&[("j", ""), ("k3", ""), ("k7", "")]), 1);
    let mut player = Player::default();
    // From "k" to "k3" there is nothing, behind it nobody looked.
    assert_eq!(emitted(&mut player, &finder("k3"), &recording[0]).unwrap(), 2);
    assert_eq!(emitted(&mut player, &finder("k2"), &recording[0]).unwrap(), usize::MAX);
    assert!(emitted(&mut player, &finder("k4"), &recording[0]).is_err());
    assert!(emitted(&mut player, &finder("j"), &recording[0]).is_err());
    // That a key is there does not say what its value is.
    assert!(player.play(&counter("k3", "n"), &recording[0]).is_err());
    assert_eq!(emitted(&mut player, &counter("k1", "n"), &recording[0]).unwrap(), 0);
}

#[test]
fn the_bound_of_a_recorder_is_said() {
    let mut state = state(&[("a", "0123456789")]);
    let mut recorder = Recorder::new(&mut state, 100);
    assert_eq!(recorder.state(b"a").unwrap().as_deref(), Some(&b"0123456789"[..]));
    assert_eq!(recorder.state(b"a").unwrap().as_deref(), Some(&b"0123456789"[..]));
    assert_eq!(recorder.state(b"b").unwrap(), None);
    let (answers, complete) = recorder.finish();
    assert_eq!((answers.len(), complete), (1, false));
}

fn recording() -> (Vec<Frame>, Vec<u8>) {
    let config = BTreeMap::from([("limit".to_owned(), "28".to_owned())]);
    let version = Recorded { name: "f".into(), version: "1.0.0".into(), digest: [7; 32], config };
    let run = runs(&counter("n", "n"), &mut state(&[]), 1).remove(0);
    let mut frames = vec![Frame::Version(version), Frame::Run(Box::new(run))];
    frames.push(Frame::Gap { runs: 3, why: "too fast".into() });
    frames.push(Frame::End { why: "as many as were asked for".into() });
    let mut bytes = HEADER.to_vec();
    assert!(frames.iter().all(|frame| write(&mut bytes, frame)));
    (frames, bytes)
}

/// What can be read, and why not more; nothing that was not written.
fn read(bytes: &[u8], written: &[Frame]) -> (usize, Option<Damage>) {
    let mut frames = match Frames::new(bytes) {
        Ok(frames) => frames,
        Err(damage) => return (0, Some(damage)),
    };
    let (mut count, mut damage) = (0, None);
    for frame in &mut frames {
        assert!(damage.is_none(), "nothing comes after damage");
        match frame {
            Ok(frame) => {
                assert_eq!(frame, written[count]);
                count += 1;
            }
            Err(found) => damage = Some(found),
        }
    }
    (count, damage)
}

#[test]
fn a_file_that_was_cut_is_read_up_to_there() {
    let (frames, bytes) = recording();
    assert!(matches!(read(&bytes, &frames), (4, None)));
    for end in 0..bytes.len() {
        let (count, damage) = read(&bytes[..end], &frames);
        assert!(count < 4 && damage.is_some(), "cut at {end}");
    }
    let mut rest = &bytes[HEADER.len()..];
    while let Some(frame) = first_frame(rest) {
        rest = &rest[frame.len()..];
    }
    assert!(rest.is_empty());
}

#[test]
fn every_flipped_bit_is_seen() {
    let (frames, bytes) = recording();
    for at in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let (count, damage) = read(&bytes, &frames);
        assert!(count < 4 && damage.is_some(), "bit {at}");
    }
}

#[test]
fn what_is_too_large_is_not_written() {
    let mut run = runs(&counter("n", "n"), &mut state(&[]), 1).remove(0);
    run.event = Event { payload: vec![0; MAX_FRAME_BYTES].into(), ..run.event };
    let mut bytes = b"before".to_vec();
    assert!(!write(&mut bytes, &Frame::Run(Box::new(run))));
    assert_eq!(bytes, b"before");
    let mut bytes = HEADER.to_vec();
    bytes.extend([0xff; 64]);
    assert!(matches!(read(&bytes, &[]), (0, Some(Damage::Damaged(_)))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), sound: bool) {
        let mut file = HEADER.to_vec();
        if sound {
            file.extend((bytes.len() as u32).to_le_bytes());
            file.extend(crc32fast::hash(&bytes).to_le_bytes());
        }
        file.extend(&bytes);
        let frames: Vec<_> = Frames::new(&file[..]).unwrap().take(1_000).collect();
        prop_assert!(frames.len() < 1_000);
    }
}
