//! What is known of a partition's state beside the answers of the run at hand.
//!
//! A version that is not the recorded one asks for what the recording does not answer, and writes what the recorded one
//! did not write. What it reads is then what it would have read had it handled all of the recording's events: what it
//! wrote itself, and below that the state as it was before the first event, as far as the recorded version asked for it.
//! What nobody knows is not guessed. Whether a value from before had a time to live nobody can know: it is there until the
//! recorded version is told that it is not. Against the quota counts what the
//! recorded version was told last, or nothing if it never was: the function itself does not see that figure.

use std::collections::BTreeMap;
use std::ops::Bound;

use agent_core::state::expiry_us;
use agent_core::{Effect, StateValue};

use super::{Answers, Question};

/// What is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The state as it was when the recording began, or went on after a gap.
    base: BTreeMap<Vec<u8>, Base>,
    /// Ranges of keys, from (inclusive) and to (exclusive; none: no end), in which all keys that there were are in `base`.
    scanned: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the version that is played wrote; `None`: it deleted it.
    pub(super) own: BTreeMap<Vec<u8>, Option<StateValue>>,
    /// What the recorded version wrote.
    recorded: BTreeMap<Vec<u8>, Option<StateValue>>,
    /// What all of the function's state took, as it was said last; 0 if it never was.
    state_bytes: u64,
    /// Whether the two are not the same any more, so that the recording's answers are not those that it would get.
    pub(super) diverged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Base {
    Absent,
    Value(Vec<u8>),
    /// There is a value, and nobody read it.
    Present,
    /// It was written before anybody asked what it was.
    Unknown,
}

impl Known {
    /// The recorded version was told all this.
    pub(super) fn learn(&mut self, answers: &Answers) {
        for question in answers.questions() {
            match question {
                Question::State(key) => {
                    if let Some(value) = answers.get::<Option<Vec<u8>>>(question) {
                        self.learn_value(key, value.as_deref());
                    }
                }
                Question::StateBytes => self.state_bytes = answers.get(question).unwrap_or(self.state_bytes),
                // Blobs are nobody's state: what was answered stands in the recording, and nothing follows from it.
                Question::BlobSize(_) | Question::BlobPiece { .. } => {}
                Question::NextKey { prefix, after } => {
                    if let Some(found) = answers.get::<Option<Vec<u8>>>(question) {
                        self.learn_next(prefix, after, found.as_deref());
                    }
                }
            }
        }
    }

    fn learn_value(&mut self, key: &[u8], value: Option<&[u8]>) {
        if !self.recorded.contains_key(key) {
            let base = value.map_or(Base::Absent, |value| Base::Value(value.to_vec()));
            self.base.insert(key.to_vec(), base);
        }
    }

    fn learn_next(&mut self, prefix: &[u8], after: &[u8], found: Option<&[u8]>) {
        let from = first(prefix, after);
        let to = match found {
            Some(found) => {
                if !self.recorded.contains_key(found) {
                    let base = self.base.entry(found.to_vec()).or_insert(Base::Present);
                    if *base == Base::Absent {
                        *base = Base::Present;
                    }
                }
                Some(successor(found))
            }
            None => end(prefix),
        };
        if to.as_ref().is_none_or(|to| *to > from) {
            self.scan(from, to);
        }
    }

    /// One more range is known, and is joined with those that it touches.
    fn scan(&mut self, mut from: Vec<u8>, mut to: Option<Vec<u8>>) {
        let touches = |begin: &Vec<u8>, to: &Option<Vec<u8>>| to.as_ref().is_none_or(|to| begin <= to);
        if let Some((begin, until)) =
            self.scanned.range::<[u8], _>((Bound::Unbounded, Bound::Included(&*from))).next_back()
            && until.as_ref().is_none_or(|until| *until >= from)
        {
            (from, to) = (begin.clone(), later(to, until.clone()));
        }
        while let Some((begin, until)) =
            self.scanned.range::<[u8], _>((Bound::Included(&*from), Bound::Unbounded)).next()
            && touches(begin, &to)
        {
            let begin = begin.clone();
            to = later(to, until.clone());
            self.scanned.remove(&begin);
        }
        self.scanned.insert(from, to);
    }

    /// The recorded version has ended a run with these effects, on an event of this time.
    pub(super) fn apply_recorded(&mut self, effects: &[Effect], time_us: u64) {
        for (key, value) in writes(effects, time_us) {
            if !self.base.contains_key(key) && self.covering(key).is_none() {
                self.base.insert(key.to_vec(), Base::Unknown);
            }
            self.recorded.insert(key.to_vec(), value);
        }
    }

    /// The version that is played has.
    pub(super) fn apply_own(&mut self, effects: &[Effect], time_us: u64) {
        for (key, value) in writes(effects, time_us) {
            self.own.insert(key.to_vec(), value);
        }
    }

    /// What the version that is played did is not known: from here on it goes on from what the recorded one left.
    pub(super) fn rejoin(&mut self) {
        self.own = self.recorded.clone();
        self.diverged = false;
    }

    /// What all of the function's state takes.
    pub(super) fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// The value of a key for an event of this time; the outer `None`: nobody knows.
    pub(super) fn value(&self, key: &[u8], time_us: u64) -> Option<Option<Vec<u8>>> {
        if let Some(own) = self.own.get(key) {
            return Some(there(own.as_ref(), time_us).map(|value| value.bytes.to_vec()));
        }
        match self.base.get(key) {
            Some(Base::Absent) => Some(None),
            Some(Base::Value(value)) => Some(Some(value.clone())),
            Some(Base::Present | Base::Unknown) => None,
            None => self.covering(key).map(|_| None),
        }
    }

    /// The next key for an event of this time; the outer `None`: nobody knows.
    pub(super) fn next(&self, prefix: &[u8], after: &[u8], time_us: u64) -> Option<Option<Vec<u8>>> {
        let (mut at, end) = (first(prefix, after), end(prefix));
        loop {
            let until = self.covering(&at)?;
            let within = |key: &[u8]| until.is_none_or(|until| key < until);
            let keys = |from: &[u8]| (Bound::Included(from.to_vec()), Bound::<Vec<u8>>::Unbounded);
            let own = self.own.range(keys(&at)).find(|(_, value)| there(value.as_ref(), time_us).is_some());
            let own = own.map(|(key, _)| key);
            let base = self
                .base
                .range(keys(&at))
                .filter(|(key, base)| **base != Base::Absent && !self.own.contains_key(*key))
                .map(|(key, base)| (key, *base == Base::Unknown))
                .next();
            let found = match (own, base) {
                (Some(own), Some((base, _))) if own < base => Some((own, false)),
                (_, Some(base)) => Some(base),
                (Some(own), None) => Some((own, false)),
                (None, None) => None,
            };
            match found.filter(|(key, _)| within(key)) {
                Some((key, _)) if !key.starts_with(prefix) => return Some(None),
                Some((_, true)) => return None,
                Some((key, false)) => return Some(Some(key.clone())),
                None => match until {
                    None => return Some(None),
                    Some(until) if end.as_deref().is_some_and(|end| until >= end) => return Some(None),
                    Some(until) => at = until.to_vec(),
                },
            }
        }
    }

    /// To where all keys are known from this one on; the outer `None`: it is in no such range; the inner one: to the end.
    #[expect(clippy::option_option, reason = "said above")]
    fn covering(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let (_, until) = self.scanned.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        until.as_ref().is_none_or(|until| key < until.as_slice()).then_some(until.as_deref())
    }
}

fn there(value: Option<&StateValue>, time_us: u64) -> Option<&StateValue> {
    value.filter(|value| value.is_there(time_us))
}

fn writes(effects: &[Effect], time_us: u64) -> impl Iterator<Item = (&[u8], Option<StateValue>)> {
    effects.iter().filter_map(move |effect| match effect {
        Effect::StatePut { key, value, ttl_s } => {
            let value = StateValue { bytes: value.as_slice().into(), expires_us: expiry_us(time_us, *ttl_s) };
            Some((key.as_slice(), Some(value)))
        }
        Effect::StateDelete { key } => Some((key.as_slice(), None)),
        _ => None,
    })
}

/// Whether two runs leave the same state.
pub(super) fn same_writes(one: &[Effect], other: &[Effect]) -> bool {
    writes(one, 0).eq(writes(other, 0))
}

fn later(one: Option<Vec<u8>>, other: Option<Vec<u8>>) -> Option<Vec<u8>> {
    Some(one?.max(other?))
}

/// The first key that may be an answer.
fn first(prefix: &[u8], after: &[u8]) -> Vec<u8> {
    if after < prefix { prefix.to_vec() } else { successor(after) }
}

/// The key right behind a key.
fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The first key behind all that begin with this; none: there is no such key.
fn end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], ttl_s: Option<u32>) -> Vec<Effect> {
        vec![Effect::StatePut { key: key.into(), value: b"v".into(), ttl_s }]
    }

    #[test]
    fn what_a_version_put_ends_when_its_time_is_over() {
        let mut known = Known::default();
        known.learn_next(b"k", b"", None);
        known.apply_own(&put(b"k1", Some(2)), 1_000_000);
        known.apply_own(&put(b"k2", None), 1_000_000);
        let value = |time_us| known.value(b"k1", time_us).unwrap();
        assert_eq!((value(2_999_999), value(3_000_000)), (Some(b"v".to_vec()), None));
        let next = |time_us| known.next(b"k", b"", time_us).unwrap().unwrap();
        assert_eq!((next(2_999_999), next(3_000_000)), (b"k1".to_vec(), b"k2".to_vec()));
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let mut known = Known::default();
        known.learn_next(b"", b"a", Some(b"c"));
        assert_eq!(known.next(b"", b"a", 0), Some(Some(b"c".to_vec())));
        assert_eq!(known.next(b"", b"c", 0), None);
        known.learn_next(b"", b"e", Some(b"g"));
        known.learn_next(b"", b"c", Some(b"e"));
        assert_eq!(known.scanned.len(), 1);
        assert_eq!(known.next(b"", b"c", 0), Some(Some(b"e".to_vec())));
        assert_eq!(known.next(b"d", b"", 0), Some(None));
        assert_eq!(known.value(b"f", 0), Some(None));
        // Written before anybody asked what it was.
        known.apply_recorded(&put(b"x", None), 0);
        known.learn_next(b"", b"g", None);
        assert_eq!(known.next(b"", b"g", 0), None);
        known.apply_own(&put(b"x", None), 0);
        assert_eq!(known.next(b"", b"g", 0), Some(Some(b"x".to_vec())));
        assert_eq!((known.scanned.len(), known.next(b"x", b"x", 0)), (1, Some(None)));
    }
}
