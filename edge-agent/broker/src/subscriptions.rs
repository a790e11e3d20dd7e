//! Who wants which topics: a trie over the levels of the filters. Finding the subscribers of a topic costs in proportion
//! to the depth of the topic and to what matches, not to how many subscriptions there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt5_protocol::QoS;
use mqtt5_protocol::validation::is_valid_subscription_filter;

/// Levels of a filter. It bounds the depth of the trie, and with it the recursion; no naming scheme comes near.
const MAX_LEVELS: usize = 128;

/// A filter taken apart. `$share/group/filter` subscribes as a member of a group (section 4.8.2); the broker offers it to
/// MQTT 3.1.1 clients too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filter<'a> {
    pub(crate) group: Option<&'a str>,
    pub(crate) topic: &'a str,
}

impl<'a> Filter<'a> {
    /// `None` when the standard forbids it [MQTT-4.7.1-1, -2, MQTT-4.8.2-1, -2] or it has too many levels.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if !is_valid_subscription_filter(text) {
            return None;
        }
        let shared = text.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        let (group, topic) = shared.map_or((None, text), |(group, topic)| (Some(group), topic));
        (topic.split('/').count() <= MAX_LEVELS).then_some(Self { group, topic })
    }
}

/// What a subscriber asked for with one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) qos: QoS,
    /// Not what the subscriber itself published.
    pub(crate) no_local: bool,
    /// Keep the RETAIN flag as the publisher set it.
    pub(crate) retain_as_published: bool,
    /// Subscription identifier.
    pub(crate) identifier: Option<u32>,
}

#[derive(Debug)]
struct Entry<S> {
    subscriber: S,
    wish: Wish,
}

#[derive(Debug)]
struct Group<S> {
    members: BTreeMap<u64, Entry<S>>,
    /// Counts messages; the next one goes to the member with this number, modulo the members.
    turn: AtomicUsize,
}

/// The subscriptions whose filter ends at one place of the trie.
#[derive(Debug)]
struct Ending<S> {
    /// By their numbers, in order: most often it is one, and the smallest map would have room for eleven.
    single: Vec<(u64, Entry<S>)>,
    groups: BTreeMap<Box<str>, Group<S>>,
}

#[derive(Debug)]
struct Node<S> {
    children: HashMap<Box<str>, Node<S>>,
    /// The child for `+`.
    any: Option<Box<Node<S>>>,
    /// Filters that end here.
    here: Ending<S>,
    /// Filters that end here with `/#`.
    below: Ending<S>,
}

/// All subscriptions. `S` is what the owner needs to reach a subscriber; subscribers are told apart by a number.
#[derive(Debug)]
pub(crate) struct Subscriptions<S> {
    root: Node<S>,
}

/// One delivery that follows from a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hit<'a, S> {
    pub(crate) id: u64,
    pub(crate) subscriber: &'a S,
    /// The highest of the overlapping subscriptions [MQTT-3.3.5-1].
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    /// Of all overlapping subscriptions [MQTT-3.3.4-3].
    pub(crate) identifiers: Vec<u32>,
    shared: bool,
}

/// What [`Subscriptions::matching`] asks about a message and its subscribers.
struct Ask<A, R> {
    origin: u64,
    allowed: A,
    ready: R,
}

impl<S> Default for Ending<S> {
    fn default() -> Self {
        Self { single: Vec::new(), groups: BTreeMap::new() }
    }
}

impl<S> Default for Node<S> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: Ending::default(), below: Ending::default() }
    }
}

impl<S> Default for Subscriptions<S> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<S> Subscriptions<S> {
    /// Subscribes, or replaces the wish of the same subscriber for the same filter [MQTT-3.8.4-3]. True when it is new.
    pub(crate) fn insert(&mut self, filter: Filter<'_>, id: u64, subscriber: S, wish: Wish) -> bool {
        let ending = self.root.ending_or_insert(filter.topic);
        let entry = Entry { subscriber, wish };
        match filter.group {
            None => ending.insert(id, entry),
            Some(group) => {
                let empty = || Group { members: BTreeMap::new(), turn: AtomicUsize::new(0) };
                let group = ending.groups.entry(group.into()).or_insert_with(empty);
                group.members.insert(id, entry).is_none()
            }
        }
    }

    /// Unsubscribes. True when there was such a subscription.
    pub(crate) fn remove(&mut self, filter: Filter<'_>, id: u64) -> bool {
        self.root.remove(&mut filter.topic.split('/'), filter.group, id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Calls `deliver` once for each subscriber of `topic`, and once for each group with the member whose turn it is.
    /// Subscribers that are not `allowed` to get it are left out; members that are not `ready` are passed over while another
    /// one is. `origin` is the session that published.
    pub(crate) fn matching<'a>(
        &'a self,
        topic: &str,
        origin: u64,
        allowed: impl Fn(&S) -> bool,
        ready: impl Fn(&S) -> bool,
        mut deliver: impl FnMut(Hit<'a, S>),
    ) {
        let ask = Ask { origin, allowed, ready };
        let mut hits = Vec::new();
        let mut levels = topic.split('/');
        if topic.starts_with('$') {
            // Filters that begin with a wildcard do not match such topics [MQTT-4.7.2-1].
            if let Some(node) = levels.next().and_then(|level| self.root.children.get(level)) {
                node.collect(levels, &ask, &mut hits);
            }
        } else {
            self.root.collect(levels, &ask, &mut hits);
        }
        // Overlapping subscriptions of one session stand side by side after the sort; a shared one is a delivery of its own.
        if hits.len() > 1 {
            hits.sort_by_key(|hit| (hit.id, hit.shared));
        }
        let mut hits = hits.into_iter();
        let Some(mut current) = hits.next() else { return };
        for hit in hits {
            if hit.id == current.id && !hit.shared && !current.shared {
                current.qos = if hit.qos as u8 > current.qos as u8 { hit.qos } else { current.qos };
                current.retain_as_published |= hit.retain_as_published;
                current.identifiers.extend(hit.identifiers);
            } else {
                deliver(std::mem::replace(&mut current, hit));
            }
        }
        deliver(current);
    }
}

impl<S> Node<S> {
    fn ending_or_insert(&mut self, filter: &str) -> &mut Ending<S> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                // `#` is the last level [MQTT-4.7.1-1]; the filter was checked.
                "#" => return &mut node.below,
                "+" => node.any.get_or_insert_default(),
                level => node.children.entry(level.into()).or_default(),
            };
        }
        &mut node.here
    }

    fn remove<'f>(
        &mut self,
        levels: &mut (impl Iterator<Item = &'f str> + Clone),
        group: Option<&str>,
        id: u64,
    ) -> bool {
        match levels.next() {
            None => self.here.remove(group, id),
            Some("#") => self.below.remove(group, id),
            Some("+") => {
                let Some(child) = &mut self.any else { return false };
                let removed = child.remove(levels, group, id);
                if child.is_empty() {
                    self.any = None;
                }
                removed
            }
            Some(level) => {
                let Some(child) = self.children.get_mut(level) else { return false };
                let removed = child.remove(levels, group, id);
                if child.is_empty() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    /// Recursion ends with the trie, which is [`MAX_LEVELS`] deep, however many levels the topic has.
    fn collect<'a, 't>(
        &'a self,
        mut levels: impl Iterator<Item = &'t str> + Clone,
        ask: &Ask<impl Fn(&S) -> bool, impl Fn(&S) -> bool>,
        hits: &mut Vec<Hit<'a, S>>,
    ) {
        // `sport/#` also matches `sport` itself (section 4.7.1.2).
        self.below.collect(ask, hits);
        let Some(level) = levels.next() else {
            self.here.collect(ask, hits);
            return;
        };
        if let Some(child) = self.children.get(level) {
            child.collect(levels.clone(), ask, hits);
        }
        if let Some(child) = &self.any {
            child.collect(levels, ask, hits);
        }
    }
}

impl<S> Ending<S> {
    /// True when it is new.
    fn insert(&mut self, id: u64, entry: Entry<S>) -> bool {
        match self.single.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => {
                self.single[at].1 = entry;
                false
            }
            Err(at) => {
                if self.single.is_empty() {
                    self.single.reserve_exact(1);
                }
                self.single.insert(at, (id, entry));
                true
            }
        }
    }

    fn remove(&mut self, group: Option<&str>, id: u64) -> bool {
        let Some(name) = group else {
            let found = self.single.binary_search_by_key(&id, |(id, _)| *id);
            return found.map(|at| self.single.remove(at)).is_ok();
        };
        let Some(group) = self.groups.get_mut(name) else { return false };
        let removed = group.members.remove(&id).is_some();
        if group.members.is_empty() {
            self.groups.remove(name);
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.single.is_empty() && self.groups.is_empty()
    }

    fn collect<'a>(&'a self, ask: &Ask<impl Fn(&S) -> bool, impl Fn(&S) -> bool>, hits: &mut Vec<Hit<'a, S>>) {
        for (id, entry) in &self.single {
            if !(entry.wish.no_local && *id == ask.origin) && (ask.allowed)(&entry.subscriber) {
                hits.push(entry.hit(*id, false));
            }
        }
        for group in self.groups.values() {
            hits.extend(group.next(ask).map(|(id, entry)| entry.hit(id, true)));
        }
    }
}

impl<S> Group<S> {
    /// The member whose turn it is; a group with nobody ready keeps its messages with an absent member.
    fn next(&self, ask: &Ask<impl Fn(&S) -> bool, impl Fn(&S) -> bool>) -> Option<(u64, &Entry<S>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.members.len().max(1);
        let all = self.members.iter().skip(turn).chain(self.members.iter().take(turn));
        let in_turn = all.filter(|(_, entry)| (ask.allowed)(&entry.subscriber));
        let chosen =
            in_turn.clone().find(|(_, entry)| (ask.ready)(&entry.subscriber)).or_else(|| in_turn.clone().next());
        chosen.map(|(&id, entry)| (id, entry))
    }
}

impl<S> Entry<S> {
    fn hit(&self, id: u64, shared: bool) -> Hit<'_, S> {
        Hit {
            id,
            subscriber: &self.subscriber,
            qos: self.wish.qos,
            retain_as_published: self.wish.retain_as_published,
            identifiers: self.wish.identifier.into_iter().collect(),
            shared,
        }
    }
}

#[cfg(test)]
mod tests;
