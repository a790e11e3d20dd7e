//! Which deployments matter to a gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::labels::{self, LabelError, Labels};

/// What a deployment is aimed at; its text form is `gateway:<id>`, `label:<key>=<value>` or `all`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One gateway, by its id.
    Gateway(String),
    /// Every gateway with this label, also one that is given it later.
    Label {
        /// The label's key.
        key: String,
        /// The label's value.
        value: String,
    },
    /// Every gateway, also one that enrols later.
    All,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// None of the forms.
    #[error("{0:?} is no target; write gateway:ID, label:KEY=VALUE or all")]
    Form(String),
    /// The label cannot exist.
    #[error("{0:?} is no target: {1}")]
    Label(String, LabelError),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.chars().take(2 * labels::MAX_LENGTH).collect());
        if text == "all" {
            return Ok(Self::All);
        }
        match text.split_once(':') {
            Some(("gateway", id)) if !id.is_empty() && id.len() <= labels::MAX_LENGTH => Ok(Self::Gateway(id.into())),
            Some(("label", pair)) => {
                let (key, value) = pair.split_once('=').ok_or_else(form)?;
                match labels::check(key, value) {
                    Ok(()) => Ok(Self::Label { key: key.into(), value: value.into() }),
                    Err(error) => Err(TargetError::Label(text.chars().take(2 * labels::MAX_LENGTH).collect(), error)),
                }
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(id) => write!(f, "gateway:{id}"),
            Self::Label { key, value } => write!(f, "label:{key}={value}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl Target {
    /// Whether a gateway is meant.
    pub fn matches(&self, gateway: &str, labels: &Labels) -> bool {
        match self {
            Self::Gateway(id) => id == gateway,
            Self::Label { key, value } => labels.get(key) == Some(value),
            Self::All => true,
        }
    }
}

/// What targeting needs to know of a deployment.
pub trait Deployed {
    /// Its number: a higher one is newer.
    fn number(&self) -> u64;
    /// The name of the function that it sets or removes.
    fn function(&self) -> &str;
    /// What it is aimed at.
    fn target(&self) -> &Target;
}

/// For each function the deployment that counts on this gateway: the newest one that matches, whatever its kind of
/// target and whether it sets or removes the function; in the order of their names.
///
/// So an operator needs to remember one rule only, the last word counts: what was deployed to one gateway is replaced
/// by what is later deployed to all, and the other way round.
pub fn in_force<'d, D: Deployed>(
    deployments: impl IntoIterator<Item = &'d D>,
    gateway: &str,
    labels: &Labels,
) -> Vec<&'d D> {
    let mut newest: BTreeMap<&str, &D> = BTreeMap::new();
    for deployment in deployments.into_iter().filter(|deployment| deployment.target().matches(gateway, labels)) {
        let entry = newest.entry(deployment.function()).or_insert(deployment);
        if entry.number() < deployment.number() {
            *entry = deployment;
        }
    }
    newest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct One(u64, &'static str, Target);

    impl Deployed for One {
        fn number(&self) -> u64 {
            self.0
        }
        fn function(&self) -> &str {
            self.1
        }
        fn target(&self) -> &Target {
            &self.2
        }
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_target_reads_as_it_is_written() {
        for text in ["all", "gateway:gw-1", "label:site=plant/1"] {
            assert_eq!(target(text).to_string(), text);
        }
        for text in ["", "All", "gateway:", "gateway", "label:site", "label:=x", "label:a=b=c", "group:x"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_word_counts_whatever_its_kind_of_target() {
        let list = [
            One(1, "alert", target("gateway:a")),
            One(2, "alert", target("all")),
            One(3, "mean", target("label:site=x")),
            One(4, "alert", target("label:site=x")),
            One(5, "mean", target("gateway:b")),
        ];
        let numbers = |gateway: &str, labels: &[(&str, &str)]| -> Vec<u64> {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            in_force(&list, gateway, &labels).into_iter().map(Deployed::number).collect()
        };
        assert_eq!(numbers("a", &[]), [2]);
        assert_eq!(numbers("a", &[("site", "x")]), [4, 3]);
        assert_eq!(numbers("b", &[("site", "x")]), [4, 5]);
        assert_eq!(numbers("b", &[("site", "y")]), [2, 5]);
    }

    proptest! {
        #[test]
        fn the_order_in_which_deployments_are_read_does_not_matter(
            kinds in prop::collection::vec((0..3_usize, 0..4_usize), 0..20), turn in any::<usize>(),
        ) {
            let targets = ["all", "gateway:a", "gateway:b", "label:s=1"];
            let mut list: Vec<One> = (1..).zip(&kinds)
                .map(|(number, (name, to))| One(number, ["f", "g", "h"][*name], target(targets[*to])))
                .collect();
            let labels = Labels::from([("s".to_owned(), "1".to_owned())]);
            let numbers = |list: &[One]| -> Vec<u64> {
                in_force(list, "a", &labels).into_iter().map(Deployed::number).collect()
            };
            let straight = numbers(&list);
            let length = list.len().max(1);
            list.rotate_left(turn % length);
            prop_assert_eq!(&numbers(&list), &straight);
            // Against a second reading: the last that matches in the list of each name.
            let expected: Vec<u64> = ["f", "g", "h"].iter().filter_map(|name| {
                list.iter().filter(|one| one.1 == *name && one.2 != target("gateway:b")).map(|one| one.0).max()
            }).collect();
            prop_assert_eq!(straight, expected);
        }
    }
}
