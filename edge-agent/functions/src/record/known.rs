//! What is known of a partition's state beside the answers of the run at hand.
//!
//! A version that is not the recorded one asks for what the recording does not answer, and writes what the recorded one
//! did not write. What it reads is then what it would have read had it handled all of the recording's events: what it
//! wrote itself, and below that the state as it was before the first event, as far as the recorded version asked for it.
//! What nobody knows is not guessed.

use std::collections::BTreeMap;
use std::ops::Bound;

use agent_core::Effect;

use super::{Answers, Question};

/// What is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The state as it was when the recording began, or went on after a gap.
    base: BTreeMap<Vec<u8>, Base>,
    /// Ranges of keys, from (inclusive) and to (exclusive; none: no end), in which all keys that there were are in `base`.
    scanned: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the version that is played wrote; `None`: it deleted it.
    pub(super) own: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// What the recorded version wrote.
    recorded: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
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

    /// The recorded version has ended a run with these effects.
    pub(super) fn apply_recorded(&mut self, effects: &[Effect]) {
        for (key, value) in writes(effects) {
            if !self.base.contains_key(key) && self.covering(key).is_none() {
                self.base.insert(key.to_vec(), Base::Unknown);
            }
            self.recorded.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
    }

    /// The version that is played has.
    pub(super) fn apply_own(&mut self, effects: &[Effect]) {
        for (key, value) in writes(effects) {
            self.own.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
    }

    /// What the version that is played did is not known: from here on it goes on from what the recorded one left.
    pub(super) fn rejoin(&mut self) {
        self.own = self.recorded.clone();
        self.diverged = false;
    }

    /// The value of a key; the outer `None`: nobody knows.
    pub(super) fn value(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        if let Some(own) = self.own.get(key) {
            return Some(own.clone());
        }
        match self.base.get(key) {
            Some(Base::Absent) => Some(None),
            Some(Base::Value(value)) => Some(Some(value.clone())),
            Some(Base::Present | Base::Unknown) => None,
            None => self.covering(key).map(|_| None),
        }
    }

    /// The next key; the outer `None`: nobody knows.
    pub(super) fn next(&self, prefix: &[u8], after: &[u8]) -> Option<Option<Vec<u8>>> {
        let (mut at, end) = (first(prefix, after), end(prefix));
        loop {
            let until = self.covering(&at)?;
            let within = |key: &[u8]| until.is_none_or(|until| key < until);
            let keys = |from: &[u8]| (Bound::Included(from.to_vec()), Bound::<Vec<u8>>::Unbounded);
            let own = self.own.range(keys(&at)).find(|(_, value)| value.is_some()).map(|(key, _)| key);
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

fn writes(effects: &[Effect]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    effects.iter().filter_map(|effect| match effect {
        Effect::StatePut { key, value, .. } => Some((key.as_slice(), Some(value.as_slice()))),
        Effect::StateDelete { key } => Some((key.as_slice(), None)),
        _ => None,
    })
}

/// Whether two runs leave the same state.
pub(super) fn same_writes(one: &[Effect], other: &[Effect]) -> bool {
    writes(one).eq(writes(other))
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
