//! Schedules: moments of a calendar.
//!
//! Up to which moment a schedule was served is committed with what the function did about it, so each moment is served
//! once. A clock that is set back does not serve moments a second time, unless by more than [`schedule::MAX_BACK_US`]: then it was
//! wrong before, and what it had served lies in a future that is none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent_core::Event;
use agent_core::event::EventKind;
use agent_core::schedule::{self, Moments};
use agent_store::{Reader, Scheduled, Uses, Write};
use function_package::{Missed, Schedule, Trigger};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, block_in_place};

use crate::limits;
use crate::pipeline::writer::Sender;
use crate::pipeline::{Origin, Pipeline};

/// All that serving schedules takes.
#[derive(Debug)]
pub struct Schedules {
    /// Its own.
    pub reader: Reader,
    /// Where what was passed over is noted.
    pub writer: Sender,
    /// Where events go.
    pub pipeline: Arc<Pipeline>,
}

/// Function and schedule.
type Key = (String, String);

impl Schedules {
    /// Serves the schedules of all functions for as long as the agent runs.
    pub async fn run(mut self) {
        let pipeline = self.pipeline.clone();
        let mut tasks: BTreeMap<Key, (Schedule, Missed, AbortOnDrop)> = BTreeMap::new();
        loop {
            // Before the look at the plan, so that no change is missed.
            let changed = pipeline.plan_changed.notified();
            let wanted = self.wanted();
            tasks.retain(|key, (schedule, missed, _)| wanted.get(key) == Some(&(schedule.clone(), *missed)));
            for (key, (schedule, missed)) in wanted {
                if tasks.contains_key(&key) {
                    continue;
                }
                match block_in_place(|| self.reader.schedules()) {
                    Ok(served) => {
                        let served = served.into_iter().find(|of| (&of.function, &of.schedule) == (&key.0, &key.1));
                        let one = One {
                            function: key.0.clone(),
                            name: key.1.clone(),
                            schedule: schedule.clone(),
                            missed,
                            served_us: served.map(|served| served.up_to_us),
                            pipeline: self.pipeline.clone(),
                            writer: self.writer.clone(),
                        };
                        tasks.insert(key, (schedule, missed, AbortOnDrop(tokio::spawn(one.serve()))));
                    }
                    Err(error) => tracing::error!("the schedule {} of {} waits: {error}", key.1, key.0),
                }
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(limits::LOOK_AT_CLOCK) => {}
            }
        }
    }

    fn wanted(&self) -> BTreeMap<Key, (Schedule, Missed)> {
        let plan = self.pipeline.plan();
        let mut wanted = BTreeMap::new();
        for slot in plan.slots() {
            for trigger in &slot.active.load().current.triggers {
                if let Trigger::Schedule { name, schedule, missed } = trigger {
                    wanted.insert((slot.name.to_string(), name.clone()), (schedule.clone(), *missed));
                }
            }
        }
        wanted
    }
}

fn policy(missed: Missed) -> schedule::Missed {
    match missed {
        Missed::Skip => schedule::Missed::Skip,
        Missed::Once => schedule::Missed::Once,
        Missed::All => schedule::Missed::All,
    }
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One schedule.
struct One {
    function: String,
    name: String,
    schedule: Schedule,
    missed: Missed,
    // `None`: it is new.
    served_us: Option<u64>,
    pipeline: Arc<Pipeline>,
    writer: Sender,
}

impl One {
    async fn serve(mut self) {
        loop {
            let now_us = self.pipeline.clock.wall_us();
            let served_us = match schedule::begin(self.served_us, now_us) {
                Some(begin_us) => {
                    // Nothing before it is ever made up for.
                    if !self.note(begin_us).await {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                    begin_us
                }
                None => self.served_us.unwrap_or(now_us),
            };
            let Moments { serve, up_to_us, next_us } =
                schedule::moments(served_us, now_us, policy(self.missed), |time| self.schedule.next_after(time));
            for (moment_us, missed) in serve {
                while !self.fire(moment_us, missed).await {
                    // The store is being opened anew, or the function is not there any more: then this task ends, too.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                self.served_us = Some(moment_us);
            }
            if let Some(up_to_us) = up_to_us.filter(|up_to| self.served_us.is_none_or(|served| served < *up_to)) {
                self.note(up_to_us).await;
            }
            let Some(next_us) = next_us else { return };
            let wait = Duration::from_micros(next_us.saturating_sub(self.pipeline.clock.wall_us()));
            // The clock may be set meanwhile.
            tokio::time::sleep(wait.min(limits::LOOK_AT_CLOCK)).await;
        }
    }

    fn scheduled(&self, up_to_us: u64) -> Scheduled {
        Scheduled { function: self.function.clone(), schedule: self.name.clone(), up_to_us }
    }

    async fn note(&mut self, up_to_us: u64) -> bool {
        let noted = self.writer.write(vec![Write::Scheduled(self.scheduled(up_to_us))]).await.is_some();
        if noted {
            self.served_us = Some(up_to_us);
        }
        noted
    }

    // Whether it is on disk that the moment was served.
    async fn fire(&self, moment_us: u64, missed: u64) -> bool {
        let Some(slot) = self.pipeline.plan().find(&self.function).cloned() else { return false };
        let now_us = self.pipeline.clock.wall_us();
        let event = Event {
            attributes: vec![("due_us".to_owned(), moment_us.to_string()), ("missed".to_owned(), missed.to_string())],
            ..Event::new(EventKind::Schedule, "@schedule", self.name.as_str(), [], now_us)
        };
        let (settled, on_disk) = oneshot::channel();
        let origin = Origin { uses: Uses::Moment(self.scheduled(moment_us)), attempts: 0 };
        let acknowledge = Box::new(move |_| _ = settled.send(()));
        self.pipeline.submit_to(&slot, event, origin, acknowledge).await;
        on_disk.await.is_ok()
    }
}
