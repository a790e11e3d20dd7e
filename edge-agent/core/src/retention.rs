//! How long records may wait for the control plane, how much room they may take, and which go when it is too much.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::effect::{Effect, Priority};

/// What happens when there is no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// New records are refused; what waits stays.
    RefuseNew,
    /// The records that have waited for longest go, whatever their priority.
    DropOldest,
    /// Normal records go, the oldest first, and records of high priority only when there are no normal ones left.
    DropLowestPriority,
    /// From the oldest on, every second record goes: what is further back gets coarser each time.
    ThinOut,
}

/// How much room there is, and what happens when it is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of records, as they are stored.
    pub bytes: u64,
    /// What happens then.
    pub when_full: WhenFull,
}

/// What holds for one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamPolicy {
    /// In place of the priority that its records come with.
    pub priority: Option<Priority>,
    /// How long its records may wait, in microseconds of powered time.
    pub ttl_us: Option<u64>,
    /// Its room.
    pub quota: Option<Quota>,
}

/// What holds for the records of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// For all of them together.
    pub outbox: Option<Quota>,
    /// For streams, by their names.
    pub streams: BTreeMap<String, StreamPolicy>,
}

/// Whose records are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Refused {
    /// Nobody's.
    #[default]
    None,
    /// Those of these streams.
    Streams(Vec<String>),
    /// Everybody's.
    All,
}

impl Refused {
    /// Whether the records of a stream are.
    pub fn holds(&self, stream: &str) -> bool {
        match self {
            Self::None => false,
            Self::Streams(streams) => streams.iter().any(|refused| refused == stream),
            Self::All => true,
        }
    }
}

/// Something to be done about records that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Records of a stream that have waited for longer than this go.
    Expire {
        /// The stream.
        stream: String,
        /// Microseconds of powered time.
        ttl_us: u64,
    },
    /// Records of a stream, or of all, go until so many bytes are free.
    Evict {
        /// The stream; `None`: all of them.
        stream: Option<String>,
        /// The bytes.
        bytes: u64,
        /// Which of them; not [`WhenFull::RefuseNew`].
        how: WhenFull,
    },
}

impl Retention {
    /// Gives records the priority of their stream.
    pub fn prioritise(&self, effects: &mut [Effect]) {
        if self.streams.is_empty() {
            return;
        }
        for effect in effects {
            if let Effect::Emit { stream, priority, .. } = effect
                && let Some(decided) = self.streams.get(stream.as_str()).and_then(|policy| policy.priority)
            {
                *priority = decided;
            }
        }
    }

    /// Whose records are refused, given what waits of each stream in bytes.
    pub fn refused<'a>(&self, usage: impl Iterator<Item = (&'a str, u64)> + Clone) -> Refused {
        let full = |quota: Option<Quota>, bytes| {
            quota.is_some_and(|quota| quota.when_full == WhenFull::RefuseNew && bytes >= quota.bytes)
        };
        if full(self.outbox, total(usage.clone())) {
            return Refused::All;
        }
        let streams: Vec<String> =
            usage.filter(|(name, bytes)| full(self.quota(name), *bytes)).map(|(name, _)| name.into()).collect();
        if streams.is_empty() { Refused::None } else { Refused::Streams(streams) }
    }

    /// Whether anything but refusing is to be done at once, given what waits of each stream in bytes.
    pub fn is_over<'a>(&self, usage: impl Iterator<Item = (&'a str, u64)> + Clone) -> bool {
        self.outbox.is_some_and(|quota| to_free(quota, total(usage.clone())).is_some())
            || usage.into_iter().any(|(name, bytes)| self.quota(name).is_some_and(|q| to_free(q, bytes).is_some()))
    }

    /// What is to be done, given what waits of each stream in bytes. Streams first, for that may be enough for all.
    pub fn tasks<'a>(&self, usage: impl Iterator<Item = (&'a str, u64)> + Clone) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (name, bytes) in usage.clone() {
            let Some(policy) = self.streams.get(name) else { continue };
            if let Some(ttl_us) = policy.ttl_us.filter(|_| bytes > 0) {
                tasks.push(Task::Expire { stream: name.into(), ttl_us });
            }
            if let Some((how, bytes)) = policy.quota.and_then(|quota| to_free(quota, bytes)) {
                tasks.push(Task::Evict { stream: Some(name.into()), bytes, how });
            }
        }
        if let Some((how, bytes)) = self.outbox.and_then(|quota| to_free(quota, total(usage))) {
            tasks.push(Task::Evict { stream: None, bytes, how });
        }
        tasks
    }

    /// The shortest time to live, in microseconds, if there is one.
    pub fn shortest_ttl_us(&self) -> Option<u64> {
        self.streams.values().filter_map(|policy| policy.ttl_us).min()
    }

    fn quota(&self, stream: &str) -> Option<Quota> {
        self.streams.get(stream)?.quota
    }
}

fn total<'a>(usage: impl Iterator<Item = (&'a str, u64)>) -> u64 {
    usage.fold(0, |sum, (_, bytes)| sum.saturating_add(bytes))
}

// Somewhat more than is over, so that there is not something to do after every record.
fn to_free(quota: Quota, used: u64) -> Option<(WhenFull, u64)> {
    let over = used.checked_sub(quota.bytes).filter(|over| *over > 0 && quota.when_full != WhenFull::RefuseNew)?;
    Some((quota.when_full, over.saturating_add(quota.bytes / 16)))
}

/// Powered time: how long the gateway's system has been up, over all its starts. Time without power does not count, for a
/// gateway whose clock may be wrong cannot know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoweredTime {
    // Where each boot began, by its number.
    bases: BTreeMap<u64, u64>,
    oldest: u64,
}

impl PoweredTime {
    /// Boots with the powered time at which they began, in microseconds.
    pub fn new(boots: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let bases: BTreeMap<u64, u64> = boots.into_iter().collect();
        let oldest = bases.values().copied().min().unwrap_or(0);
        Self { bases, oldest }
    }

    /// The powered time at a moment of a boot, in microseconds. A boot that is not known any more lies before all that
    /// are: then it is the beginning of the oldest one, so that nothing seems older than it is.
    pub fn at(&self, boot: u64, monotonic_us: u64) -> u64 {
        self.bases.get(&boot).map_or(self.oldest, |base| base.saturating_add(monotonic_us))
    }
}

/// A record that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its sequence.
    pub sequence: u64,
    /// The room it takes.
    pub bytes: u64,
    /// The powered time at which it was made, in microseconds.
    pub made_us: u64,
}

/// Which of these go because they were made before `before_us`. They are in the order of their sequences, and the first
/// that stays ends the search: later ones are younger.
pub fn expired(candidates: &[Candidate], before_us: u64) -> &[Candidate] {
    let end = candidates.iter().position(|candidate| candidate.made_us >= before_us).unwrap_or(candidates.len());
    &candidates[..end]
}

/// Which of some candidates go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Sequences that go: of normal and of high priority.
    pub gone: [Vec<u64>; 2],
    /// How many candidates from the front of each list are done with, whether they go or stay.
    pub looked: [usize; 2],
}

/// Chooses records until so many bytes are free.
#[derive(Clone, Debug)]
pub struct Eviction {
    how: WhenFull,
    bytes: u64,
    // Whether the next one stays where every second one goes.
    keep: bool,
}

impl Eviction {
    /// So many bytes are to be freed.
    pub const fn new(how: WhenFull, bytes: u64) -> Self {
        Self { how, bytes, keep: false }
    }

    /// Chooses among the candidates at the front, of normal and of high priority, each in the order of their sequences. A
    /// list is empty only if there are no more. What was looked at is not to be shown again, but what follows it.
    ///
    /// `None`: it is done, or there is nothing left to choose from.
    pub fn choose(&mut self, normal: &[Candidate], high: &[Candidate]) -> Option<Choice> {
        if self.bytes == 0 || self.how == WhenFull::RefuseNew || normal.is_empty() && high.is_empty() {
            return None;
        }
        let mut choice = Choice::default();
        let lists = [normal, high];
        let of = usize::from(normal.is_empty());
        match self.how {
            WhenFull::DropOldest if !normal.is_empty() && !high.is_empty() => {
                // Until one of them is used up: what follows in it may be older than the rest of the other.
                while let (Some(a), Some(b)) = (normal.get(choice.looked[0]), high.get(choice.looked[1]))
                    && self.bytes > 0
                {
                    let of = usize::from(b.made_us < a.made_us);
                    self.take(if of == 0 { a } else { b }, of, &mut choice);
                }
            }
            WhenFull::ThinOut => {
                for candidate in lists[of] {
                    if self.bytes == 0 {
                        break;
                    }
                    if self.keep {
                        choice.looked[of] += 1;
                    } else {
                        self.take(candidate, of, &mut choice);
                    }
                    self.keep = !self.keep;
                }
            }
            _ => {
                for candidate in lists[of] {
                    if self.bytes == 0 {
                        break;
                    }
                    self.take(candidate, of, &mut choice);
                }
            }
        }
        Some(choice)
    }

    fn take(&mut self, candidate: &Candidate, of: usize, choice: &mut Choice) {
        self.bytes = self.bytes.saturating_sub(candidate.bytes);
        choice.gone[of].push(candidate.sequence);
        choice.looked[of] += 1;
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use super::*;

    fn quota(bytes: u64, when_full: WhenFull) -> Option<Quota> {
        Some(Quota { bytes, when_full })
    }

    fn retention(outbox: Option<Quota>, streams: &[(&str, StreamPolicy)]) -> Retention {
        Retention { outbox, streams: streams.iter().map(|(name, policy)| (name.to_string(), *policy)).collect() }
    }

    #[test]
    fn a_full_stream_refuses_its_own_records_and_a_full_outbox_all() {
        let policy = StreamPolicy { quota: quota(100, WhenFull::RefuseNew), ..StreamPolicy::default() };
        let retention = retention(quota(1_000, WhenFull::RefuseNew), &[("a", policy)]);
        assert_eq!(retention.refused([("a", 99), ("b", 500)].into_iter()), Refused::None);
        assert_eq!(retention.refused([("a", 100), ("b", 500)].into_iter()), Refused::Streams(vec!["a".into()]));
        assert_eq!(retention.refused([("a", 100), ("b", 900)].into_iter()), Refused::All);
        // Refusing is all there is to do.
        assert!(!retention.is_over([("a", 200), ("b", 900)].into_iter()));
        assert_eq!(retention.tasks([("a", 200), ("b", 900)].into_iter()), []);
    }

    #[test]
    fn what_is_over_is_freed_with_some_room_to_spare() {
        let policy = StreamPolicy { ttl_us: Some(9), quota: quota(160, WhenFull::ThinOut), ..StreamPolicy::default() };
        let retention = retention(quota(1_600, WhenFull::DropOldest), &[("a", policy)]);
        let expire = Task::Expire { stream: "a".into(), ttl_us: 9 };
        let usage = [("a", 160), ("b", 1_440)];
        assert!(!retention.is_over(usage.into_iter()));
        assert_eq!(retention.tasks(usage.into_iter()), core::slice::from_ref(&expire));
        let usage = [("a", 161), ("b", 1_440)];
        assert!(retention.is_over(usage.into_iter()));
        assert_eq!(
            retention.tasks(usage.into_iter()),
            [
                expire,
                Task::Evict { stream: Some("a".into()), bytes: 11, how: WhenFull::ThinOut },
                Task::Evict { stream: None, bytes: 101, how: WhenFull::DropOldest },
            ]
        );
        assert_eq!(retention.refused(usage.into_iter()), Refused::None);
        assert_eq!(retention.shortest_ttl_us(), Some(9));
    }

    #[test]
    fn a_streams_priority_stands_in_place_of_the_records() {
        let policy = StreamPolicy { priority: Some(Priority::High), ..StreamPolicy::default() };
        let retention = retention(None, &[("a", policy)]);
        let emit = |stream: &str| Effect::Emit { stream: stream.into(), body: vec![], priority: Priority::Normal };
        let mut effects = [emit("a"), emit("b")];
        retention.prioritise(&mut effects);
        let priorities = effects.map(|effect| match effect {
            Effect::Emit { priority, .. } => priority,
            _ => unreachable!(),
        });
        assert_eq!(priorities, [Priority::High, Priority::Normal]);
    }

    #[test]
    fn powered_time_goes_on_from_boot_to_boot() {
        let time = PoweredTime::new([(7, 1_000), (9, 5_000)]);
        assert_eq!(time.at(7, 30), 1_030);
        assert_eq!(time.at(9, 0), 5_000);
        // Forgotten: not older than the oldest that is known.
        assert_eq!(time.at(3, 999_999), 1_000);
        assert_eq!(PoweredTime::default().at(3, 5), 0);
    }

    fn candidates(made: &[(u64, u64)]) -> Vec<Candidate> {
        made.iter().map(|&(sequence, made_us)| Candidate { sequence, bytes: 10, made_us }).collect()
    }

    #[test]
    fn the_oldest_go_first_whatever_their_priority() {
        let normal = candidates(&[(1, 5), (2, 6), (3, 20)]);
        let high = candidates(&[(1, 4), (2, 7), (3, 8)]);
        let mut eviction = Eviction::new(WhenFull::DropOldest, 25);
        let choice = eviction.choose(&normal, &high).unwrap();
        assert_eq!((choice.gone, choice.looked), ([vec![1, 2], vec![1]], [2, 1]));
        assert_eq!(eviction.choose(&normal[2..], &high[1..]), None);
        // Used up: what follows in that list may be older than the rest of the other one.
        let mut eviction = Eviction::new(WhenFull::DropOldest, 1_000);
        assert_eq!(eviction.choose(&normal, &high).unwrap().gone, [vec![1, 2], vec![1, 2, 3]]);
        assert_eq!(eviction.choose(&normal[2..], &[]).unwrap().gone, [vec![3], vec![]]);
        assert_eq!(eviction.choose(&[], &[]), None);
    }

    #[test]
    fn the_lowest_priority_goes_first_however_old() {
        let (normal, high) = (candidates(&[(1, 50), (2, 60)]), candidates(&[(1, 4)]));
        let mut eviction = Eviction::new(WhenFull::DropLowestPriority, 25);
        assert_eq!(eviction.choose(&normal, &high).unwrap().gone, [vec![1, 2], vec![]]);
        assert_eq!(eviction.choose(&[], &high).unwrap().gone, [vec![], vec![1]]);
        assert_eq!(eviction.choose(&[], &[]), None);
    }

    #[test]
    fn thinning_out_takes_every_second_one_across_calls() {
        let mut eviction = Eviction::new(WhenFull::ThinOut, 30);
        let choice = eviction.choose(&candidates(&[(1, 0), (2, 0), (5, 0)]), &[]).unwrap();
        assert_eq!((choice.gone, choice.looked), ([vec![1, 5], vec![]], [3, 0]));
        let choice = eviction.choose(&candidates(&[(6, 0), (7, 0), (8, 0), (9, 0)]), &[]).unwrap();
        assert_eq!((choice.gone, choice.looked), ([vec![7], vec![]], [2, 0]));
        assert_eq!(eviction.choose(&candidates(&[(8, 0)]), &[]), None);
    }

    #[test]
    fn what_is_too_old_is_found_from_the_front() {
        let list = candidates(&[(1, 5), (2, 6), (3, 20)]);
        assert_eq!(expired(&list, 6), &list[..1]);
        assert_eq!(expired(&list, 100), &list[..]);
    }
}
