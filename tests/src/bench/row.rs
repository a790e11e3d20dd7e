//! What was measured, beside what it must reach.

use serde::Serialize;

/// The values of some runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The one in the middle; of an even number the lower of two. `NaN` of none.
    pub fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// The least and the greatest.
    pub fn spread(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    // Run by run: what disturbs a run disturbs both.
    fn ratios(&self, peer: &Self) -> Self {
        Self(self.0.iter().zip(&peer.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// What a row must reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// So many times the peer's value, or more.
    RatioAtLeast(f64),
    /// So many times the peer's value, or less.
    RatioAtMost(f64),
    /// This value, or more.
    AtLeast(f64),
    /// Less than this value.
    Below(f64),
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The benchmark that it is of, and what of it.
    pub name: String,
    /// The median of all runs; `None`: it could not be measured, and the note says why.
    pub value: Option<f64>,
    /// Of both values.
    pub unit: &'static str,
    /// What it is compared with.
    pub peer: Option<String>,
    /// The median of the peer's runs, which took turns with ours.
    pub peer_value: Option<f64>,
    /// The median of the ratios of each run, ours to the peer's.
    pub ratio: Option<f64>,
    /// What it must reach; `None`: it is shown for comparison only.
    pub goal: Option<Goal>,
    /// Whether it does.
    pub met: Option<bool>,
    /// Each run.
    pub values: Samples,
    /// Each run of the peer.
    pub peer_values: Samples,
    /// The ratio of each run.
    pub ratios: Samples,
    /// What else there is to know.
    pub note: String,
}

impl Row {
    /// A row of these runs, without a peer.
    pub fn new(name: impl Into<String>, values: Samples, unit: &'static str) -> Self {
        let value = (!values.0.is_empty()).then(|| values.median());
        Self {
            name: name.into(),
            value,
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            goal: None,
            met: None,
            values,
            peer_values: Samples::default(),
            ratios: Samples::default(),
            note: String::new(),
        }
    }

    /// A row for something that could not be measured.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { note: format!("skipped: {}", why.into()), ..Self::new(name, Samples::default(), "") }
    }

    /// Compares it with what a peer took in the same runs.
    #[must_use]
    pub fn against(mut self, peer: impl Into<String>, values: &Samples) -> Self {
        self.peer = Some(peer.into());
        if !values.0.is_empty() && self.value.is_some() {
            self.ratios = self.values.ratios(values);
            self.peer_value = Some(values.median());
            self.ratio = Some(self.ratios.median());
        }
        self.peer_values = values.clone();
        self
    }

    /// Says what it must reach. Last, when it knows its peer.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self.met = match goal {
            Goal::RatioAtLeast(least) => self.ratio.map(|ratio| ratio >= least),
            Goal::RatioAtMost(most) => self.ratio.map(|ratio| ratio <= most),
            Goal::AtLeast(least) => self.value.map(|value| value >= least),
            Goal::Below(most) => self.value.map(|value| value < most),
        };
        self
    }

    /// Says that the goal was missed by so much that there may be no value, and how.
    #[must_use]
    pub fn missed(self, how: impl Into<String>) -> Self {
        Self { met: Some(false), ..self }.note(how)
    }

    /// Adds a word.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_each_run_and_decides() {
        let (ours, theirs) = (Samples(vec![10.0, 40.0, 12.0]), Samples(vec![20.0, 50.0, 10.0]));
        let row = Row::new("a", ours, "events/s").against("peer", &theirs);
        assert_eq!((row.value, row.peer_value, row.ratio), (Some(12.0), Some(20.0), Some(0.8)));
        assert_eq!(row.clone().goal(Goal::RatioAtLeast(0.8)).met, Some(true));
        assert_eq!(row.clone().goal(Goal::RatioAtMost(0.7)).met, Some(false));
        assert_eq!(row.clone().goal(Goal::Below(12.0)).met, Some(false));
        assert_eq!(row.values.spread(), (10.0, 40.0));
    }

    #[test]
    fn what_could_not_be_measured_meets_no_goal_and_misses_none() {
        let row = Row::new("a", Samples(vec![1.0]), "ms").against("peer", &Samples::default());
        assert_eq!(row.goal(Goal::RatioAtMost(2.0)).met, None);
        assert_eq!(Row::skipped("a", "no mosquitto").goal(Goal::Below(1.0)).met, None);
    }
}
