//! Which records are dropped, found in the store: without a clock or a task.

use std::collections::HashMap;
use std::sync::Arc;

use agent_core::retention::{Candidate, Choice, Eviction, PoweredTime, Retention, Task, WhenFull, expired};
use agent_store::{Reader, StoreError, StreamUsage, Write};
use sync_protocol::records::{Class, Reason, Stamp};
use tokio::task::block_in_place;

use crate::limits;

/// Keeps to a policy.
#[derive(Debug)]
pub struct Keeping {
    retention: Arc<Retention>,
    // Up to where no record of a stream can be too old.
    looked_up_to: HashMap<(String, Class), u64>,
}

/// Where drops are committed.
pub trait Commit {
    /// Commits a write; whether it did. While it does, nothing may be on its way to the control plane.
    fn commit(&mut self, write: Write) -> impl Future<Output = bool> + Send;
}

/// Why a round was not brought to an end. The next one takes it up again.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take it.
    #[error("records that were to be dropped could not be; it is tried again")]
    NotCommitted,
}

impl Keeping {
    /// Keeps to this policy.
    pub fn new(retention: Arc<Retention>) -> Self {
        Self { retention, looked_up_to: HashMap::new() }
    }

    /// Drops what must go now.
    ///
    /// # Errors
    /// Some of it may have been dropped.
    pub async fn round(&mut self, reader: &mut Reader, now: Stamp, commit: &mut impl Commit) -> Result<(), Failed> {
        let usage = block_in_place(|| reader.usage())?;
        let tasks = self.retention.tasks(named(&usage));
        if tasks.is_empty() {
            return Ok(());
        }
        let boots = block_in_place(|| reader.boots())?;
        let time = PoweredTime::new(boots.into_iter().map(|boot| (boot.boot, boot.base_us)));
        for task in tasks {
            match task {
                Task::Expire { stream, ttl_us } => {
                    let before_us = time.at(now.boot, now.monotonic_us).saturating_sub(ttl_us);
                    self.expire(reader, stream, &time, before_us, commit).await?;
                }
                Task::Evict { stream, bytes, how } => {
                    evict(reader, stream.as_deref(), &time, Eviction::new(how, bytes), reason(how), commit).await?;
                }
            }
        }
        Ok(())
    }

    async fn expire(
        &mut self,
        reader: &mut Reader,
        stream: String,
        time: &PoweredTime,
        before_us: u64,
        commit: &mut impl Commit,
    ) -> Result<(), Failed> {
        for class in Class::ALL {
            let looked = self.looked_up_to.entry((stream.clone(), class)).or_default();
            let mut front = Front::new(class, *looked);
            loop {
                front.fill(reader, Some(&stream), time)?;
                let gone: Vec<u64> = expired(&front.candidates, before_us).iter().map(|gone| gone.sequence).collect();
                if gone.is_empty() {
                    break;
                }
                front.drop(gone.len(), gone, Reason::Expired, commit).await?;
            }
            *looked = front.candidates.first().map_or(front.after, |first| first.sequence - 1);
            front.say(Some(&stream), Reason::Expired);
        }
        Ok(())
    }
}

fn reason(how: WhenFull) -> Reason {
    match how {
        WhenFull::RefuseNew => Reason::Refused,
        WhenFull::DropOldest => Reason::Oldest,
        WhenFull::DropLowestPriority => Reason::Lowest,
        WhenFull::ThinOut => Reason::Thinned,
    }
}

async fn evict(
    reader: &mut Reader,
    stream: Option<&str>,
    time: &PoweredTime,
    mut eviction: Eviction,
    reason: Reason,
    commit: &mut impl Commit,
) -> Result<(), Failed> {
    let [mut normal, mut high] = [Front::new(Class::Normal, 0), Front::new(Class::High, 0)];
    loop {
        normal.fill(reader, stream, time)?;
        high.fill(reader, stream, time)?;
        let Some(Choice { gone: [from_normal, from_high], looked }) =
            eviction.choose(&normal.candidates, &high.candidates)
        else {
            break;
        };
        normal.drop(looked[0], from_normal, reason, commit).await?;
        high.drop(looked[1], from_high, reason, commit).await?;
    }
    normal.say(stream, reason);
    high.say(stream, reason);
    Ok(())
}

/// The records of a class that have waited for longest, a bounded number of them.
struct Front {
    class: Class,
    // Everything up to here was looked at.
    after: u64,
    candidates: Vec<Candidate>,
    ended: bool,
    dropped: usize,
}

impl Front {
    fn new(class: Class, after: u64) -> Self {
        Self { class, after, candidates: Vec::new(), ended: false, dropped: 0 }
    }

    // Reads on if all were looked at. Empty afterwards: there are no more.
    fn fill(&mut self, reader: &mut Reader, stream: Option<&str>, time: &PoweredTime) -> Result<(), StoreError> {
        while self.candidates.is_empty() && !self.ended {
            let scan = block_in_place(|| reader.heads(self.class, self.after, stream, limits::CANDIDATES))?;
            self.ended = scan.seen_to <= self.after;
            self.after = self.after.max(scan.seen_to);
            self.candidates.extend(scan.heads.iter().map(|head| Candidate {
                sequence: head.sequence,
                bytes: head.bytes,
                made_us: time.at(head.stamp.boot, head.stamp.monotonic_us),
            }));
        }
        Ok(())
    }

    // Some of the first candidates were looked at, and these of them go.
    async fn drop(
        &mut self,
        looked: usize,
        gone: Vec<u64>,
        reason: Reason,
        commit: &mut impl Commit,
    ) -> Result<(), Failed> {
        self.candidates.drain(..looked);
        self.dropped += gone.len();
        if !gone.is_empty() && !commit.commit(Write::Dropped { class: self.class, sequences: gone, reason }).await {
            return Err(Failed::NotCommitted);
        }
        Ok(())
    }

    fn say(&self, stream: Option<&str>, reason: Reason) {
        let (class, records) = (self.class, self.dropped);
        if records > 0 {
            tracing::warn!(stream, ?class, reason = reason.name(), records, "records were dropped, as configured");
        }
    }
}

/// What waits of each stream, in bytes.
pub fn named(usage: &[StreamUsage]) -> impl Iterator<Item = (&str, u64)> + Clone {
    usage.iter().map(|stream| (&*stream.name, stream.bytes))
}
