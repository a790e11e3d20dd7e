//! Which functions want an event: a trie over topic levels, so that the cost grows with the topic's depth and not with
//! the number of filters.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::topic::Filter;

/// A table of topic filters, each with a value.
///
/// A gateway has thousands of filters and many of them share no level with another, so each node would be a small map of its
/// own; here one table holds the steps of all, and a node is a few numbers.
#[derive(Clone, Debug)]
pub struct Router<T> {
    // Node 0 is the root. Nodes are never removed: a table is built anew when the set of functions changes.
    nodes: Vec<Node>,
    // From node to node by the name of a level.
    steps: HashTable<Step>,
    // The names of all steps, one after the other.
    names: String,
    values: Vec<Value<T>>,
    // Seeded, for devices choose what is looked up.
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    // `None` where there is no such node; no way leads to the root.
    plus: Option<u32>,
    // Filters that end here, and filters that end with "#" below here.
    here: List,
    hash: List,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    from: u32,
    to: u32,
    // Where its name is.
    start: u32,
    bytes: u32,
}

/// The last value of a list, by its index.
type List = Option<u32>;

#[derive(Clone, Copy, Debug)]
struct Value<T> {
    value: T,
    before: List,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            steps: HashTable::new(),
            names: String::new(),
            values: Vec::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<T: Copy + Ord> Router<T> {
    /// Adds a filter.
    pub fn insert(&mut self, filter: &Filter, value: T) {
        let mut at = 0;
        for level in filter.as_str().split('/') {
            // What a new node will be called.
            let new = index(self.nodes.len());
            at = match level {
                "#" => {
                    let list = &mut self.nodes[at as usize].hash;
                    return push(&mut self.values, list, value);
                }
                "+" => *self.nodes[at as usize].plus.get_or_insert(new),
                name => self.step_or_insert(at, name, new),
            };
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        push(&mut self.values, &mut self.nodes[at as usize].here, value);
    }

    // Where a step leads; a new one leads to `to`.
    fn step_or_insert(&mut self, from: u32, name: &str, to: u32) -> u32 {
        let Self { steps, names, hasher, .. } = self;
        let hash = hasher.hash_one((from, name));
        let is = |step: &Step| step.from == from && step.name(names) == name;
        let rehash = |step: &Step| hasher.hash_one((step.from, step.name(names)));
        let start = index(names.len());
        let step = *steps.entry(hash, is, rehash).or_insert(Step { from, to, start, bytes: index(name.len()) }).get();
        if step.to == to {
            names.push_str(name);
        }
        step.to
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
    fn walk(&self, at: u32, rest: Option<&str>, wild: bool, found: &mut Vec<T>) {
        let node = self.nodes[at as usize];
        if wild {
            self.collect(node.hash, found);
        }
        let Some(rest) = rest else {
            self.collect(node.here, found);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let is = |step: &Step| step.from == at && step.name(&self.names) == level;
        if let Some(step) = self.steps.find(self.hasher.hash_one((at, level)), is) {
            self.walk(step.to, rest, true, found);
        }
        if let Some(next) = node.plus.filter(|_| wild) {
            self.walk(next, rest, true, found);
        }
    }

    fn collect(&self, mut list: List, found: &mut Vec<T>) {
        while let Some(at) = list {
            let Value { value, before } = self.values[at as usize];
            found.push(value);
            list = before;
        }
    }
}

impl Step {
    fn name<'a>(&self, names: &'a str) -> &'a str {
        &names[self.start as usize..][..self.bytes as usize]
    }
}

fn push<T>(values: &mut Vec<Value<T>>, list: &mut List, value: T) {
    let at = index(values.len());
    values.push(Value { value, before: list.replace(at) });
}

// A table of four thousand million parts, or of as many bytes of names, fits into no memory that a gateway has.
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("the parts of a router are counted in 32 bits")
}

#[cfg(test)]
mod tests {
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
