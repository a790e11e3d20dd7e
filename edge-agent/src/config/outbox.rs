//! What the configuration says of records that wait for the control plane.

use std::collections::BTreeMap;

use agent_core::effect::Priority;
use agent_core::retention::{Quota, Retention, StreamPolicy, WhenFull};
use function_package::checked::{Table, integer, one_of, text};

/// The largest quota, in MiB: a disk of a petabyte.
const MAX_QUOTA_MIB: u64 = 1 << 30;
/// The longest time to live, in seconds: some thirty years.
const MAX_TTL_S: u64 = 1_000_000_000;
/// Most streams that are named.
const MAX_STREAMS: usize = 1_000;

pub(super) fn retention(root: &mut Table<'_, '_>) -> Option<Retention> {
    let outbox = root.table("outbox", |t| Some(quota(t)))?;
    let mut streams = BTreeMap::new();
    let entries = root.tables("stream", 0..=MAX_STREAMS, |t| {
        let name = t.required("name", text(1..=256));
        let priority = t.optional("priority", one_of(&[("normal", Priority::Normal), ("high", Priority::High)]));
        let ttl_us = t.optional("ttl_s", integer(1..=MAX_TTL_S)).map(|seconds| seconds * 1_000_000);
        let quota = quota(t);
        Some((name?, StreamPolicy { priority, ttl_us, quota }))
    });
    for (name, policy) in entries {
        if streams.contains_key(&name) {
            root.mistake("stream", format!("has two entries for \"{name}\"; put what they say into one"));
        }
        streams.insert(name, policy);
    }
    Some(Retention { outbox, streams })
}

fn quota(t: &mut Table<'_, '_>) -> Option<Quota> {
    let policies = [
        ("refuse-new", WhenFull::RefuseNew),
        ("drop-oldest", WhenFull::DropOldest),
        ("drop-lowest-priority", WhenFull::DropLowestPriority),
        ("thin-out", WhenFull::ThinOut),
    ];
    let mib = t.optional("quota_mib", integer(1..=MAX_QUOTA_MIB));
    let when_full = t.optional("when_full", one_of(&policies));
    match (mib, when_full) {
        (Some(mib), Some(when_full)) => Some(Quota { bytes: mib << 20, when_full }),
        // Which records go is nothing to be decided by a default.
        (Some(_), None) => {
            let words: Vec<String> = policies.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            t.mistake("when_full", format!("is missing beside \"quota_mib\"; allowed is {}", words.join(", ")));
            None
        }
        (None, Some(_)) => {
            t.mistake("when_full", "stands without \"quota_mib\"; set both or neither");
            None
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> Result<Retention, String> {
        function_package::checked::read("agent.toml", toml, retention).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn without_a_word_nothing_is_ever_dropped() {
        assert_eq!(parse("").unwrap(), Retention::default());
    }

    #[test]
    fn what_is_said_holds() {
        let found = parse(
            "[outbox]\nquota_mib = 2_048\nwhen_full = \"drop-lowest-priority\"\n[[stream]]\nname = \"alerts\"\n\
             priority = \"high\"\n[[stream]]\nname = \"temperature\"\nttl_s = 604_800\nquota_mib = 64\n\
             when_full = \"thin-out\"\n",
        )
        .unwrap();
        assert_eq!(found.outbox, Some(Quota { bytes: 2 << 30, when_full: WhenFull::DropLowestPriority }));
        assert_eq!(found.streams["alerts"].priority, Some(Priority::High));
        let quota = Some(Quota { bytes: 64 << 20, when_full: WhenFull::ThinOut });
        assert_eq!(found.streams["temperature"], StreamPolicy { priority: None, ttl_us: Some(604_800_000_000), quota });
    }

    #[test]
    fn mistakes_are_named() {
        let found = parse(
            "[outbox]\nquota_mib = 1\n[[stream]]\nname = \"a\"\nwhen_full = \"thin-out\"\n[[stream]]\nname = \"a\"\n\
             ttl_s = 0\npriority = \"low\"\n",
        )
        .unwrap_err();
        for part in [
            "outbox.when_full: is missing beside \"quota_mib\"; allowed is \"refuse-new\", \"drop-oldest\"",
            "stream[1].when_full: stands without \"quota_mib\"",
            "has two entries for \"a\"",
            "stream[2].ttl_s: is 0",
            "stream[2].priority: is \"low\"",
        ] {
            assert!(found.contains(part), "{found}\n{part}");
        }
    }
}
