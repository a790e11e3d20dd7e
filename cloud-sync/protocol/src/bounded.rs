//! Lists that are read up to a bound. In a body an entry may take two bytes, in memory a hundred times as many.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::records::{Entry, MAX_ENTRIES, MAX_TALLY, Range, Tally};

/// What an entry weighs: it is about as large as so many of what a tally consists of.
const ENTRY: usize = 4;

/// As much as the protocol allows, each entry in a range of its own. What is somewhat more than it allows weighs less, and can be read and then refused
/// with its name.
const MOST: usize = MAX_ENTRIES * (1 + ENTRY + MAX_TALLY);

/// How much memory something takes, about.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

impl Weight for Tally {
    fn weight(&self) -> usize {
        1
    }
}

impl Weight for Entry {
    fn weight(&self) -> usize {
        match self {
            Self::Record(_) => ENTRY,
            Self::Gone(gone) => ENTRY + gone.tally.len(),
        }
    }
}

impl Weight for Range {
    fn weight(&self) -> usize {
        self.entries.iter().fold(1, |sum, entry| sum + entry.weight())
    }
}

/// Reads a list that weighs at most as much as a whole request may.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de> + Weight>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_seq(List(PhantomData))
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Weight> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list that is not larger than a request may be")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(MAX_ENTRIES));
        let mut weight = 0;
        while let Some(element) = elements.next_element::<T>()? {
            weight += element.weight();
            if weight > MOST {
                return Err(A::Error::custom("a request has far more entries than are allowed"));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use crate::records::{Class, Gone, Reason, Request, StoreEpoch};
    use crate::{FrameError, MAX_BODY_BYTES, decode, encode};

    use super::*;

    fn request(ranges: usize, entries: usize, tally: usize) -> Request {
        let tally = vec![Tally { stream: String::new(), reason: Reason::Oldest, count: 1 }; tally];
        let range = Range { first: 1, entries: vec![Entry::Gone(Gone { tally }); entries] };
        Request::new(StoreEpoch(1), Class::Normal, 1, vec![range; ranges])
    }

    #[test]
    fn what_the_protocol_allows_is_read_and_what_fills_the_memory_is_not() {
        for fine in [request(1, MAX_ENTRIES, MAX_TALLY), request(MAX_ENTRIES, 1, MAX_TALLY), request(3, 4_096, 1)] {
            assert_eq!(decode::<Request>(&encode(&fine)).unwrap(), fine);
        }
        for (ranges, entries, tally) in [(1, 1_000_000, 0), (1_000_000, 0, 0), (1_000, 1_000, 0), (1, 1, 1_000_000)] {
            let bytes = encode(&request(ranges, entries, tally));
            assert!(bytes.len() < MAX_BODY_BYTES);
            assert!(matches!(decode::<Request>(&bytes), Err(FrameError::Malformed(_))), "{ranges} {entries} {tally}");
        }
    }
}
