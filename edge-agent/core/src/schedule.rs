//! Which moments of a schedule are served now.

use alloc::vec::Vec;

/// What becomes of moments that passed while nobody could serve them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The last of them is made up for, once.
    Once,
    /// Each is made up for, in order.
    All,
}

/// A moment that passed less than this ago was not missed, only late: a minute, in microseconds.
pub const LATE_US: u64 = 60_000_000;

/// A clock that says that the last moment lies further ahead than this was wrong when it was served: an hour, in
/// microseconds. Up to this it is taken for a correction, and nothing is served a second time.
pub const MAX_BACK_US: u64 = 3_600_000_000;

/// Most moments that are made up for; of more the last ones.
pub const MAX_MISSED: usize = 1_000;

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Moments to be served, in order, each with how many before it are passed over.
    pub serve: Vec<(u64, u64)>,
    /// Up to here nothing is to be served afterwards, whatever was: `None` if no moment has passed.
    pub up_to_us: Option<u64>,
    /// When the next one comes; `None`: never.
    pub next_us: Option<u64>,
}

/// From where on moments count, if that is not where they were served up to: a schedule that is new begins now, and so
/// does one whose clock was wrong.
pub fn begin(served_us: Option<u64>, now_us: u64) -> Option<u64> {
    match served_us {
        Some(served_us) if served_us <= now_us.saturating_add(MAX_BACK_US) => None,
        _ => Some(now_us),
    }
}

/// What to do now, when everything up to `served_us` was done. `next_after` says which moment follows a time.
pub fn moments(served_us: u64, now_us: u64, missed: Missed, mut next_after: impl FnMut(u64) -> Option<u64>) -> Moments {
    let mut passed = alloc::collections::VecDeque::new();
    let (mut count, mut next_us) = (0u64, next_after(served_us));
    while let Some(moment) = next_us.filter(|moment| *moment <= now_us) {
        count += 1;
        if passed.len() == MAX_MISSED {
            passed.pop_front();
        }
        passed.push_back(moment);
        next_us = next_after(moment);
    }
    let Some(last) = passed.back().copied() else { return Moments { next_us, ..Moments::default() } };
    let on_time = now_us - last < LATE_US;
    let serve = match missed {
        Missed::Skip if !on_time => Vec::new(),
        Missed::Skip | Missed::Once => [(last, count - 1)].into(),
        Missed::All => {
            let passed_over = count - passed.len() as u64;
            let with = |(index, moment)| (moment, if index == 0 { passed_over } else { 0 });
            passed.into_iter().enumerate().map(with).collect()
        }
    };
    Moments { serve, up_to_us: Some(last), next_us }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    const MINUTE: u64 = 60_000_000;

    /// Every ten minutes.
    fn every_ten(time: u64) -> Option<u64> {
        Some((time / (10 * MINUTE) + 1) * 10 * MINUTE)
    }

    fn serve(served: u64, now: u64, missed: Missed) -> (Vec<(u64, u64)>, Option<u64>) {
        let found = moments(served * MINUTE, now * MINUTE + 1, missed, every_ten);
        assert_eq!(found.next_us, Some((now / 10 + 1) * 10 * MINUTE));
        (found.serve.iter().map(|(moment, missed)| (moment / MINUTE, *missed)).collect(), found.up_to_us)
    }

    #[test]
    fn what_is_on_time_is_served_whatever_the_policy() {
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            assert_eq!(serve(20, 29, missed), (vec![], None));
            assert_eq!(serve(20, 30, missed), (vec![(30, 0)], Some(30 * MINUTE)));
        }
    }

    #[test]
    fn what_was_missed_is_skipped_made_up_for_once_or_each() {
        assert_eq!(serve(20, 65, Missed::Skip), (vec![], Some(60 * MINUTE)));
        assert_eq!(serve(20, 65, Missed::Once), (vec![(60, 3)], Some(60 * MINUTE)));
        assert_eq!(serve(20, 65, Missed::All), (vec![(30, 0), (40, 0), (50, 0), (60, 0)], Some(60 * MINUTE)));
        // One of them is on time.
        assert_eq!(serve(20, 60, Missed::Skip), (vec![(60, 3)], Some(60 * MINUTE)));
        assert_eq!(serve(20, 60, Missed::Once), (vec![(60, 3)], Some(60 * MINUTE)));
    }

    #[test]
    fn of_very_many_the_last_are_made_up_for() {
        let (served, _) = serve(0, 10 * 1_500, Missed::All);
        assert_eq!((served.len(), served[0], served[999]), (1_000, (5_010, 500), (15_000, 0)));
    }

    #[test]
    fn a_schedule_begins_when_it_is_new_or_its_clock_was_wrong() {
        assert_eq!(begin(None, 7), Some(7));
        assert_eq!(begin(Some(5), 7), None);
        assert_eq!(begin(Some(7 + MAX_BACK_US), 7), None);
        assert_eq!(begin(Some(8 + MAX_BACK_US), 7), Some(7));
    }

    #[test]
    fn one_that_never_comes_again_ends() {
        assert_eq!(moments(5, 9, Missed::All, |_| None), Moments::default());
    }
}
