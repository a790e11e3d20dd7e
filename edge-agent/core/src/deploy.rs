//! Which function versions to install, and whether a new one has proved itself.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Events that a new version must handle before it is trusted. Fewer would miss a fault that shows on the second kind
/// of event; more would keep the previous version, and the way back, in memory for longer.
pub const TRIAL_EVENTS: u32 = 20;

/// One step towards the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch, check and switch to what this deployment says.
    Install {
        /// The function.
        name: String,
    },
    /// Stop the function and forget its deployment; its state stays.
    Remove {
        /// The function.
        name: String,
    },
}

/// One deployment of one function: its number, and the digest of the file. The number alone would not do, for a control
/// plane that was restored from a backup gives numbers a second time.
pub type DeploymentId = (u64, [u8; 32]);

/// The steps from what was settled to what is desired, both by function name.
///
/// `settled` holds the deployment that was last dealt with for each function, whether it was taken or refused: one that
/// was refused is not tried again, and any other always is, so that a newer deployment supersedes a stuck one and a
/// deployment of an older version is as good as any.
pub fn steps(settled: &BTreeMap<String, DeploymentId>, desired: &BTreeMap<String, DeploymentId>) -> Vec<Step> {
    let removals = settled.keys().filter(|name| !desired.contains_key(*name));
    let installs = desired.iter().filter(|(name, deployment)| settled.get(*name) != Some(deployment));
    removals
        .map(|name| Step::Remove { name: name.clone() })
        .chain(installs.map(|(name, _)| Step::Install { name: name.clone() }))
        .collect()
}

/// How the first events of a new version went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    handled: u32,
}

/// How a version on trial dealt with one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It handled the event.
    Handled,
    /// It trapped, and the previous version handled the same event.
    PreviousHandled,
    /// It trapped, and so did the previous version: the event is to blame.
    BothTrapped,
    /// It trapped, and there is no previous version to compare with.
    TrappedAlone,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The trial goes on.
    Undecided,
    /// The version is trusted from now on.
    Passed,
    /// Return to the previous version.
    RollBack,
}

impl Trial {
    /// Judges one attempt.
    pub fn judge(&mut self, attempt: Attempt) -> Verdict {
        match attempt {
            Attempt::PreviousHandled => Verdict::RollBack,
            Attempt::BothTrapped | Attempt::TrappedAlone => Verdict::Undecided,
            Attempt::Handled => {
                self.handled += 1;
                if self.handled >= TRIAL_EVENTS { Verdict::Passed } else { Verdict::Undecided }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn set(pairs: &[(&str, u64)]) -> BTreeMap<String, DeploymentId> {
        pairs.iter().map(|(name, number)| (name.to_string(), (*number, [1; 32]))).collect()
    }

    #[test]
    fn only_what_differs_is_done() {
        assert_eq!(steps(&set(&[("a", 1)]), &set(&[("a", 1)])), []);
        assert_eq!(
            steps(&set(&[("a", 1), ("b", 2)]), &set(&[("a", 3), ("c", 4)])),
            [Step::Remove { name: "b".into() }, Step::Install { name: "a".into() }, Step::Install { name: "c".into() },]
        );
        // Going back to an older deployment number is a step like any other.
        assert_eq!(steps(&set(&[("a", 3)]), &set(&[("a", 1)])), [Step::Install { name: "a".into() }]);
        // So is the same number with another file.
        let other = BTreeMap::from([("a".to_string(), (3, [2; 32]))]);
        assert_eq!(steps(&set(&[("a", 3)]), &other), [Step::Install { name: "a".into() }]);
    }

    #[test]
    fn the_previous_version_decides_who_is_to_blame() {
        let mut trial = Trial::default();
        assert_eq!(trial.judge(Attempt::BothTrapped), Verdict::Undecided);
        assert_eq!(trial.judge(Attempt::TrappedAlone), Verdict::Undecided);
        for _ in 1..TRIAL_EVENTS {
            assert_eq!(trial.judge(Attempt::Handled), Verdict::Undecided);
        }
        assert_eq!(trial.judge(Attempt::Handled), Verdict::Passed);
        assert_eq!(Trial::default().judge(Attempt::PreviousHandled), Verdict::RollBack);
    }
}
