//! The trie against a matcher that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn wish(qos: QoS) -> Wish {
    Wish { qos, no_local: false, retain_as_published: false, identifier: None }
}

/// Section 4.7, level by level.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    for (index, level) in filter.iter().enumerate() {
        match (*level, topic.get(index)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(found)) if level == *found => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

fn found(subscriptions: &Subscriptions<()>, topic: &str, origin: u64) -> Vec<(u64, QoS, Vec<u32>)> {
    let mut found = Vec::new();
    subscriptions.matching(topic, origin, |()| true, |()| true, |hit| found.push((hit.id, hit.qos, hit.identifiers)));
    found
}

fn filter(text: &str) -> Filter<'_> {
    Filter::parse(text).expect("a valid filter")
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")]
}

fn topic() -> impl Strategy<Value = String> {
    proptest::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")).prop_filter("empty", |t| !t.is_empty())
}

fn any_filter() -> impl Strategy<Value = String> {
    let levels = proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 0..5);
    (levels, any::<bool>()).prop_filter_map("empty", |(mut levels, hash)| {
        if hash {
            levels.push("#");
        }
        let text = levels.join("/");
        Filter::parse(&text).is_some().then_some(text)
    })
}

proptest! {
    /// After any subscriptions and unsubscriptions, each topic reaches the subscribers of the naive matcher, each once,
    /// with the highest quality of service.
    #[test]
    fn finds_what_the_naive_matcher_finds(
        steps in proptest::collection::vec((any_filter(), 1_u64..4, 0_u8..3, any::<bool>()), 0..40),
        topics in proptest::collection::vec(topic(), 1..8),
    ) {
        let mut trie = Subscriptions::default();
        let mut naive: BTreeMap<(String, u64), QoS> = BTreeMap::new();
        for (text, id, qos, subscribe) in steps {
            let qos = QoS::from(qos);
            if subscribe {
                let new = naive.insert((text.clone(), id), qos).is_none();
                prop_assert_eq!(trie.insert(filter(&text), id, (), wish(qos)), new);
            } else {
                let existed = naive.remove(&(text.clone(), id)).is_some();
                prop_assert_eq!(trie.remove(filter(&text), id), existed);
            }
        }
        for topic in topics {
            let mut expected: BTreeMap<u64, u8> = BTreeMap::new();
            for ((text, id), qos) in &naive {
                if matches(text, &topic) {
                    let best = expected.entry(*id).or_default();
                    *best = (*best).max(*qos as u8);
                }
            }
            let got: Vec<_> = found(&trie, &topic, 0).into_iter().map(|(id, qos, _)| (id, qos as u8)).collect();
            prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>(), "topic {:?}", topic);
        }
        for ((text, id), _) in naive {
            trie.remove(filter(&text), id);
        }
        prop_assert!(trie.root.is_empty(), "nothing is left behind");
    }
}

#[test]
fn overlapping_filters_give_one_delivery_with_all_identifiers() {
    let mut trie = Subscriptions::default();
    trie.insert(filter("a/#"), 1, (), Wish { identifier: Some(7), ..wish(QoS::AtMostOnce) });
    trie.insert(filter("a/+"), 1, (), Wish { identifier: Some(9), ..wish(QoS::ExactlyOnce) });
    trie.insert(filter("a/b"), 2, (), wish(QoS::AtLeastOnce));
    let mut hits = found(&trie, "a/b", 0);
    hits[0].2.sort_unstable();
    assert_eq!(hits, [(1, QoS::ExactlyOnce, vec![7, 9]), (2, QoS::AtLeastOnce, vec![])]);
}

#[test]
fn no_local_leaves_out_the_publisher_itself() {
    let mut trie = Subscriptions::default();
    trie.insert(filter("a"), 1, (), Wish { no_local: true, ..wish(QoS::AtMostOnce) });
    assert_eq!(found(&trie, "a", 1), []);
    assert_eq!(found(&trie, "a", 2).len(), 1);
}

#[test]
fn a_group_takes_turns_and_passes_over_the_absent() {
    let mut trie = Subscriptions::default();
    for id in 1..=3_u64 {
        trie.insert(filter("$share/g/a"), id, id, wish(QoS::AtMostOnce));
    }
    trie.insert(filter("a"), 1, 1, wish(QoS::AtMostOnce));
    let next = |absent: u64| {
        let mut ids = Vec::new();
        trie.matching("a", 0, |_| true, |id| *id != absent, |hit| ids.push((hit.id, hit.shared)));
        assert!(ids.contains(&(1, false)), "its own subscription stays apart from the group's");
        ids.into_iter().find(|(_, shared)| *shared).expect("the group gets it").0
    };
    assert_eq!([next(0), next(0), next(0), next(0)], [1, 2, 3, 1]);
    assert_eq!(next(2), 3);
    trie.matching("a", 0, |_| true, |_| false, |_| {});
    // Who may not get it is passed over even if nobody else is there.
    let mut ids = Vec::new();
    trie.matching("a", 0, |id| *id == 3, |id| *id != 3, |hit| ids.push((hit.id, hit.shared)));
    assert_eq!(ids, [(3, true)]);
    trie.matching("a", 0, |_| false, |_| true, |hit| panic!("{} may not get it", hit.id));
}

#[test]
fn filters_are_taken_apart_or_refused() {
    assert_eq!(Filter::parse("$share/g/a/#"), Some(Filter { group: Some("g"), topic: "a/#" }));
    assert_eq!(Filter::parse("$shared/a"), Some(Filter { group: None, topic: "$shared/a" }));
    let deep = "a/".repeat(MAX_LEVELS);
    for text in ["", "a#", "#/a", "a/+b", "$share/g", "$share//a", "$share/g+/a", "$share/g/", "a\0", &deep] {
        assert_eq!(Filter::parse(text), None, "{text:?}");
    }
}
