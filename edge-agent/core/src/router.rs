//! Which functions want an event: a trie over topic levels, so that the cost grows with the topic's depth and not with
//! the number of filters.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::topic::Filter;

/// A table of topic filters, each with a value.
#[derive(Clone, Debug)]
pub struct Router<T> {
    // Node 0 is the root. Nodes are never removed: a table is built anew when the set of functions changes.
    nodes: Vec<Node<T>>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    // Hashed, for a plant has many machines side by side; seeded, for devices choose what is looked up.
    named: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    // Filters that end here, and filters that end with "#" below here.
    here: Vec<T>,
    hash: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { named: HashMap::new(), plus: None, here: Vec::new(), hash: Vec::new() }
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl<T: Copy + Ord> Router<T> {
    /// Adds a filter.
    pub fn insert(&mut self, filter: &Filter, value: T) {
        let mut at = 0;
        for level in filter.as_str().split('/') {
            // What a new node will be called.
            let new = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match level {
                "#" => {
                    node.hash.push(value);
                    return;
                }
                "+" => *node.plus.get_or_insert(new),
                name => match node.named.get(name) {
                    Some(&next) => next,
                    None => *node.named.entry(name.into()).or_insert(new),
                },
            };
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[at].here.push(value);
    }

    /// Puts the values of all filters that match `topic` into `found`, in ascending order, each once.
    pub fn route(&self, topic: &str, found: &mut Vec<T>) {
        found.clear();
        self.walk(0, Some(topic), !topic.starts_with('$'), found);
        found.sort_unstable();
        found.dedup();
    }

    // `rest` is what is left of the topic, `None` behind its last level. `wild` is false at the root of a topic that
    // begins with `$`, where wildcards do not match (MQTT 5.0, section 4.7.2). The depth of the recursion is bounded by
    // the depth of the filters, see `topic::MAX_LEVELS`.
    fn walk(&self, at: usize, rest: Option<&str>, wild: bool, found: &mut Vec<T>) {
        let node = &self.nodes[at];
        if wild {
            found.extend_from_slice(&node.hash);
        }
        let Some(rest) = rest else {
            found.extend_from_slice(&node.here);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(&next) = node.named.get(level) {
            self.walk(next, rest, true, found);
        }
        if let Some(next) = node.plus.filter(|_| wild) {
            self.walk(next, rest, true, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")]
    }

    fn filter() -> impl Strategy<Value = String> {
        (proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 1..5), any::<bool>())
            .prop_map(|(levels, hash)| if hash { levels.join("/") + "/#" } else { levels.join("/") })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    proptest! {
        #[test]
        fn finds_what_the_filters_match(
            filters in proptest::collection::vec(filter(), 0..20),
            topic in proptest::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")),
        ) {
            let filters: Vec<Filter> = filters.iter().map(|filter| Filter::new(filter).unwrap()).collect();
            let mut router = Router::default();
            for (index, filter) in filters.iter().enumerate() {
                router.insert(filter, index);
                router.insert(filter, index);
            }
            let mut found = Vec::new();
            router.route(&topic, &mut found);
            let expected: Vec<usize> =
                filters.iter().enumerate().filter(|(_, filter)| filter.matches(&topic)).map(|(index, _)| index).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
