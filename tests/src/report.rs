//! What came out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a run did, and what became of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed of its plan.
    pub seed: u64,
    /// How often what happened.
    pub happened: BTreeMap<String, u64>,
    /// Steps whose edge was not reached in time; what they were to kill was killed then.
    pub not_reached: u64,
    /// Events that devices were told are acknowledged.
    pub acknowledged: u64,
    /// Events that devices sent again.
    pub resent: u64,
    /// Acknowledged events that the control plane does not have.
    pub lost: u64,
    /// Events that it has more than once.
    pub doubled: u64,
    /// Everything else that is not as it must be.
    pub wrong: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether all is as it must be.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.wrong.is_empty()
    }

    pub(crate) fn count(&mut self, what: String) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub(crate) fn expect(&mut self, what: &str, expected: u64, found: u64) {
        if found != expected {
            self.wrong.push(format!("{what}: {found} in place of {expected}"));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.happened {
            writeln!(f, "  {what:<46} {times:>6}")?;
        }
        if self.not_reached > 0 {
            writeln!(f, "  {:<46} {:>6}", "of these not at their edge", self.not_reached)?;
        }
        let Self { acknowledged, resent, lost, doubled, seed, .. } = self;
        write!(f, "{acknowledged} events acknowledged, {resent} sent again: {lost} lost, {doubled} doubled; ")?;
        write!(f, "seed {seed}, {:.0} s", self.took.as_secs_f64())?;
        for wrong in &self.wrong {
            write!(f, "\nwrong: {wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_wrong_makes_it_unclean() {
        let clean = Report { acknowledged: 9, resent: 3, seed: 5, ..Report::default() };
        assert!(clean.is_clean());
        assert_eq!(clean.to_string(), "9 events acknowledged, 3 sent again: 0 lost, 0 doubled; seed 5, 0 s");
        assert!(!Report { lost: 1, ..clean.clone() }.is_clean());
        assert!(!Report { doubled: 1, ..clean.clone() }.is_clean());
        let mut wrong = clean;
        wrong.expect("counts", 2, 2);
        assert!(wrong.is_clean());
        wrong.expect("counts", 2, 3);
        assert!(!wrong.is_clean() && wrong.to_string().ends_with("wrong: counts: 3 in place of 2"));
    }
}
