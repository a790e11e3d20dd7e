//! Sets of sequences, as the spans that they consist of.

/// Sequences from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The lowest.
    pub first: u64,
    /// The highest; not below `first`.
    pub last: u64,
}

impl Span {
    /// `None` if it would be empty.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// One sequence.
    pub const fn one(sequence: u64) -> Self {
        Self { first: sequence, last: sequence }
    }

    /// How many sequences it holds; all of 64 bits count as one less than they are.
    pub fn count(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// What both hold.
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

/// A set of sequences: spans in order, none of which touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// No sequence.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// From `first` to `last`; nothing if `last` is below `first`.
    pub fn between(first: u64, last: u64) -> Self {
        Self(Span::new(first, last).into_iter().collect())
    }

    /// Adds a span. Cheap behind all others, linear before some.
    pub fn insert(&mut self, span: Span) {
        // Those that touch it become one with it.
        let from = self.0.partition_point(|own| own.last.saturating_add(1) < span.first);
        let to = self.0.partition_point(|own| own.first <= span.last.saturating_add(1));
        let touched = self.0.get(from..to).and_then(|touched| Some((touched.first()?, touched.last()?)));
        let whole = touched
            .map_or(span, |(low, high)| Span { first: low.first.min(span.first), last: high.last.max(span.last) });
        self.0.splice(from..to.max(from), [whole]);
    }

    /// What either holds.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<Span> = self.iter().chain(other.iter()).collect();
        // The stable one merges what is sorted in two parts.
        all.sort_by_key(|span| span.first);
        all.into_iter().collect()
    }

    /// What both hold.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        // Spans of one set do not touch, so pieces of them do not either.
        Self(self.iter().flat_map(|span| other.within(span).0).collect())
    }

    /// What it holds of this span. Cheap where little of it lies in the span.
    #[must_use]
    pub fn within(&self, span: Span) -> Self {
        let from = self.0.partition_point(|own| own.last < span.first);
        let near = self.0.iter().skip(from).take_while(|own| own.first <= span.last);
        Self(near.filter_map(|own| own.intersect(span)).collect())
    }

    /// What this holds and the other does not.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let (mut others, mut left) = (other.iter().peekable(), Vec::new());
        for span in self.iter() {
            let mut rest = Some(span);
            while let (Some(now), Some(hole)) = (rest, others.peek().copied()) {
                if hole.first > now.last {
                    break;
                }
                left.extend(hole.first.checked_sub(1).and_then(|last| Span::new(now.first, last)));
                rest = hole.last.checked_add(1).and_then(|first| Span::new(first.max(now.first), now.last));
                if rest.is_some() {
                    others.next();
                }
            }
            left.extend(rest);
        }
        Self(left)
    }

    /// The span that begins with `first`, if that is where the set begins, and the others.
    pub fn split_at_first(mut self, first: u64) -> (Option<Span>, Self) {
        if self.first().is_some_and(|span| span.first == first) { (Some(self.0.remove(0)), self) } else { (None, self) }
    }

    /// Whether it holds this sequence.
    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.0.partition_point(|span| span.last < sequence);
        self.0.get(at).is_some_and(|span| span.first <= sequence)
    }

    /// Whether this is one of its spans, as it is.
    pub fn has(&self, span: Span) -> bool {
        self.0.binary_search_by_key(&span.first, |own| own.first).is_ok_and(|at| self.0[at] == span)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spans, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// The first span.
    pub fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    /// The last span.
    pub fn last(&self) -> Option<Span> {
        self.0.last().copied()
    }

    /// How many sequences it holds, at most `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.iter().fold(0, |sum: u64, span| sum.saturating_add(span.count()))
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut set = Self::new();
        set.extend(spans);
        set
    }
}

impl Extend<Span> for Spans {
    fn extend<I: IntoIterator<Item = Span>>(&mut self, spans: I) {
        spans.into_iter().for_each(|span| self.insert(span));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sequences(spans: &Spans) -> BTreeSet<u64> {
        spans.iter().flat_map(|span| span.first..=span.last).collect()
    }

    fn assert_is(spans: &Spans, expected: &BTreeSet<u64>) {
        assert_eq!(&sequences(spans), expected);
        assert_eq!(spans.count(), expected.len() as u64);
        assert_eq!(spans.is_empty(), expected.is_empty());
        let list: Vec<Span> = spans.iter().collect();
        assert!(list.iter().all(|span| span.first <= span.last));
        assert!(list.windows(2).all(|pair| pair[0].last + 1 < pair[1].first), "{list:?} touch");
    }

    fn spans() -> impl Strategy<Value = Vec<Span>> {
        let span = (0..60_u64, 0..6_u64).prop_map(|(first, more)| Span { first, last: first + more });
        prop::collection::vec(span, 0..12)
    }

    proptest! {
        #[test]
        fn they_are_what_sets_are(a in spans(), b in spans()) {
            let (one, other): (Spans, Spans) = (a.iter().copied().collect(), b.into_iter().collect());
            let expected = a.iter().flat_map(|span| span.first..=span.last).collect();
            assert_is(&one, &expected);
            let second = sequences(&other);
            assert_is(&one.union(&other), &(&expected | &second));
            assert_is(&one.intersect(&other), &(&expected & &second));
            assert_is(&one.subtract(&other), &(&expected - &second));
            for sequence in 0..70 {
                prop_assert_eq!(one.contains(sequence), expected.contains(&sequence));
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let all = Spans::between(0, u64::MAX);
        assert_eq!(all.count(), u64::MAX);
        assert!(all.subtract(&all).is_empty());
        assert_eq!(all.intersect(&all), all);
        let ends: Spans = [Span::one(u64::MAX), Span::one(0)].into_iter().collect();
        assert_eq!(all.subtract(&ends), Spans::between(1, u64::MAX - 1));
        assert_eq!(all.subtract(&ends).union(&ends), all);
        assert!(Spans::between(2, 1).is_empty());
    }
}
