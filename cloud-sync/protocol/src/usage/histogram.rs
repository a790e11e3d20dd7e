//! A distribution in buckets that are the same everywhere, so that any two can be added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Buckets between a number and its double.
const PER_OCTAVE: i16 = 8;

/// Upper bounds of the buckets from 1 to 2, without the last: 2^(k/8). Literals, so that no platform's rounding decides in which
/// bucket a value falls.
const BOUNDS: [f64; 8] = [
    1.0,
    1.090_507_732_665_257_7,
    1.189_207_115_002_721,
    1.296_839_554_651_009_6,
    std::f64::consts::SQRT_2,
    1.542_210_825_407_940_8,
    1.681_792_830_507_429,
    1.834_008_086_409_342_4,
];

/// What is not further than this from 0 counts as 0: 2^-32, some 2.3e-10.
const ZERO: f64 = 1.0 / (1u64 << 32) as f64;

/// Beyond this, 2^64, everything is in the last bucket.
const MOST: f64 = 18_446_744_073_709_551_616.0;

/// The first and the last bucket.
const FIRST: i16 = -32 * PER_OCTAVE;
const LAST: i16 = 64 * PER_OCTAVE - 1;

/// How far [`Histogram::quantile`] may be from the value that has this rank, as a part of it: 2^(1/16) - 1. Holds from 2^-32 to
/// 2^64, on both sides of 0.
pub const MAX_RELATIVE_ERROR: f64 = 0.044_273_782_427_413_84;

/// At least one value, as an exponential histogram of OpenTelemetry (metrics data model, "ExponentialHistogram") with the
/// scale 3: bucket `i` holds what is above 2^(i/8) and up to 2^((i+1)/8), and for negative values the same below 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Histogram {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    zero: u64,
    positive: BTreeMap<i16, u64>,
    negative: BTreeMap<i16, u64>,
}

/// Why something is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its numbers are not those of a histogram")]
pub struct NotAHistogram;

#[derive(Deserialize)]
struct Unchecked {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    zero: u64,
    positive: BTreeMap<i16, u64>,
    negative: BTreeMap<i16, u64>,
}

impl TryFrom<Unchecked> for Histogram {
    type Error = NotAHistogram;

    fn try_from(from: Unchecked) -> Result<Self, NotAHistogram> {
        let Unchecked { count, sum, min, max, zero, positive, negative } = from;
        let buckets = || positive.iter().chain(&negative);
        let added = buckets().try_fold(zero, |sum, (_, count)| sum.checked_add(*count));
        let sound = count > 0
            && added == Some(count)
            && buckets().all(|(index, count)| (FIRST..=LAST).contains(index) && *count > 0)
            && [sum, min, max].into_iter().all(f64::is_finite)
            && min <= max;
        if sound { Ok(Self { count, sum, min, max, zero, positive, negative }) } else { Err(NotAHistogram) }
    }
}

impl Histogram {
    /// Of one value; `None` if it is not finite.
    pub fn of(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        let (mut zero, mut positive, mut negative) = (0, BTreeMap::new(), BTreeMap::new());
        match bucket(value.abs()) {
            None => zero = 1,
            Some(index) if value > 0.0 => drop(positive.insert(index, 1)),
            Some(index) => drop(negative.insert(index, 1)),
        }
        Some(Self { count: 1, sum: value, min: value, max: value, zero, positive, negative })
    }

    /// Adds all values of another one. In which order many are added makes no difference but to the last digits of
    /// [`sum`](Self::sum).
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = (self.sum + other.sum).clamp(-f64::MAX, f64::MAX);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.zero = self.zero.saturating_add(other.zero);
        for (mine, others) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            for (index, count) in others {
                let sum = mine.entry(*index).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }

    /// How many buckets have values.
    pub fn buckets(&self) -> usize {
        self.positive.len() + self.negative.len()
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// About the value below or at which this part of all values lies, 0 to 1: within [`MAX_RELATIVE_ERROR`] of the value whose
    /// rank is `part` of all, rounded up.
    pub fn quantile(&self, part: f64) -> f64 {
        let rank = ((part * self.count as f64).ceil() as u64).clamp(1, self.count);
        let below = self.negative.iter().rev().map(|(index, count)| (-middle(*index), *count));
        let above = self.positive.iter().map(|(index, count)| (middle(*index), *count));
        let mut passed = 0u64;
        for (value, count) in below.chain([(0.0, self.zero)]).chain(above) {
            passed = passed.saturating_add(count);
            if passed >= rank {
                return value.clamp(self.min, self.max);
            }
        }
        self.max
    }

    /// How many values are at or below 2^k, with k from the first power that has any to the last: (2^k, how many). What is
    /// negative or counts as 0 is below all of them.
    pub fn octaves(&self) -> Vec<(f64, u64)> {
        let mut below = self.negative.values().fold(self.zero, |sum, count| sum.saturating_add(*count));
        let octave = |index: i16| index.div_euclid(PER_OCTAVE) + 1;
        let (Some(first), Some(last)) = (self.positive.keys().next(), self.positive.keys().next_back()) else {
            return vec![(ZERO, below)];
        };
        let mut octaves = Vec::new();
        for power in octave(*first)..=octave(*last) {
            let of = self.positive.range((power - 1) * PER_OCTAVE..power * PER_OCTAVE);
            below = of.fold(below, |sum, (_, count)| sum.saturating_add(*count));
            octaves.push((f64::from(power).exp2(), below));
        }
        octaves
    }
}

/// The bucket of a value that is not negative; `None`: it counts as 0.
fn bucket(value: f64) -> Option<i16> {
    if value <= ZERO {
        return None;
    }
    if value > MOST {
        return Some(LAST);
    }
    // It is no subnormal number (IEEE 754): exponent and fraction are what its bits say.
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i16 - 1_023;
    let fraction = f64::from_bits(bits & ((1 << 52) - 1) | 1_023 << 52);
    let bounds = BOUNDS.iter().filter(|bound| **bound < fraction).count() as i16;
    Some(exponent * PER_OCTAVE + bounds - 1)
}

/// The middle of a bucket: as far from its lower bound as from its upper one, as parts of the value.
fn middle(index: i16) -> f64 {
    ((f64::from(index) + 0.5) / f64::from(PER_OCTAVE)).exp2()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut all = values.iter().map(|value| Histogram::of(*value).unwrap());
        let first = all.next().unwrap();
        all.fold(first, |mut sum, one| {
            sum.merge(&one);
            sum
        })
    }

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        for power in -31..=64 {
            let bound = f64::from(power).exp2();
            assert_eq!(bucket(bound), Some(power * 8 - 1), "2^{power}");
            assert_eq!(bucket(bound.next_up()), Some((power * 8).min(LAST)), "above 2^{power}");
        }
        assert_eq!((bucket(0.0), bucket(ZERO), bucket(ZERO.next_up())), (None, None, Some(FIRST)));
        assert_eq!((bucket(f64::MAX), bucket(f64::MIN_POSITIVE)), (Some(LAST), None));
        for (k, bound) in BOUNDS.iter().enumerate() {
            assert!((bound - (k as f64 / 8.0).exp2()).abs() < 1e-15, "{k}");
        }
        assert!((MAX_RELATIVE_ERROR - ((1f64 / 16.0).exp2() - 1.0)).abs() < 1e-15);
    }

    #[test]
    fn what_is_not_finite_is_no_value() {
        assert!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().all(|value| Histogram::of(value).is_none()));
        let most = of(&[f64::MAX, f64::MAX]);
        assert_eq!((most.sum(), most.count()), (f64::MAX, 2));
    }

    #[test]
    fn octaves_are_cumulative() {
        assert_eq!(of(&[-5.0, 0.0, 0.75, 1.0, 1.5, 7.0]).octaves(), [(1.0, 4), (2.0, 5), (4.0, 5), (8.0, 6)]);
        assert_eq!(of(&[-5.0, 0.0]).octaves(), [(ZERO, 2)]);
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        let sound = of(&[1.0, -3.0, 0.0]);
        let bytes = crate::encode(&sound);
        assert_eq!(crate::decode::<Histogram>(&bytes).unwrap(), sound);
        let changes: [fn(&mut Histogram); 6] = [
            |it| it.count += 1,
            |it| it.min = 2.0,
            |it| it.sum = f64::INFINITY,
            |it| it.positive = BTreeMap::from([(LAST + 1, 1)]),
            |it| *it.negative.entry(3).or_default() = 0,
            |it| (it.count, it.zero) = (u64::MAX, u64::MAX),
        ];
        for change in changes {
            let mut other = sound.clone();
            change(&mut other);
            assert!(crate::decode::<Histogram>(&crate::encode(&other)).is_err(), "{other:?}");
        }
    }

    fn value() -> impl Strategy<Value = f64> {
        let magnitude = (-31.0..63.0f64).prop_map(f64::exp2);
        prop_oneof![Just(0.0), magnitude.clone(), magnitude.prop_map(|value| -value), (-9i32..9).prop_map(f64::from)]
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutative(values in vec((0usize..3, -1_000i32..1_000), 3..60)) {
            // Whole numbers: their sums are exact in any order.
            let part = |wanted| {
                let values: Vec<f64> = values.iter().filter(|(of, _)| *of == wanted).map(|(_, v)| f64::from(*v)).collect();
                (!values.is_empty()).then(|| of(&values))
            };
            let merged = |parts: [usize; 3]| {
                let mut parts = parts.into_iter().filter_map(part);
                let first = parts.next().unwrap();
                parts.fold(first, |mut sum, one| { sum.merge(&one); sum })
            };
            let all: Vec<f64> = values.iter().map(|(_, v)| f64::from(*v)).collect();
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                prop_assert_eq!(merged(order), of(&all));
            }
            if let (Some(a), Some(b), Some(c)) = (part(0), part(1), part(2)) {
                let (mut left, mut right, mut tail) = (a.clone(), a, b.clone());
                left.merge(&b);
                left.merge(&c);
                tail.merge(&c);
                right.merge(&tail);
                prop_assert_eq!(left, right);
            }
        }

        #[test]
        fn quantiles_are_within_the_bound(values in vec(value(), 1..200), part in 0.0..=1.0f64) {
            let found = of(&values).quantile(part);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = ((part * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let wanted = sorted[rank - 1];
            prop_assert!((found - wanted).abs() <= wanted.abs() * MAX_RELATIVE_ERROR * 1.000_001, "{found} for {wanted}");
        }
    }
}
