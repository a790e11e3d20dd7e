//! What was deployed before the agent started: events are taken at once, and each function is compiled when it is needed, or
//! as soon as there is time for it.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_functions::Engine;
use agent_store::{Deployment, Installed};
use function_package::{Digest, PublicKey};
use sync_protocol::fleet::FunctionStatus;

use super::{Fleet, StepError, slot};
use crate::artifacts::Artifacts;
use crate::install::{self, InstallError};
use crate::memory;
use crate::pipeline::Pipeline;
use crate::pipeline::writer::Sender;
use crate::plan::{Active, OnTrial, Plan, Slot, Version};

impl Fleet {
    /// Starts with the functions of the configuration and what was deployed before. The latter are compiled when their first
    /// event comes, or by [`compile_all`](Self::compile_all), which is to follow.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn start(
        engine: Engine,
        artifacts: Artifacts,
        trusted: Vec<PublicKey>,
        pipeline: Arc<Pipeline>,
        writer: Sender,
        local: Vec<Version>,
        deployments: Vec<(String, Deployment)>,
    ) -> Result<Self, StepError> {
        let names = local.iter().map(|version| version.name.clone()).collect();
        let mut fleet = Self {
            engine,
            artifacts,
            trusted,
            pipeline,
            writer,
            deployments: deployments.into_iter().collect(),
            local: names,
        };
        // All are looked up in one go, while the files are read.
        let names = fleet.local.iter().chain(fleet.deployments.keys());
        let mut ids: BTreeMap<_, _> = names.map(|name| (name.clone(), fleet.writer.function(name))).collect();
        let mut place = async |name: &str, active| match ids.remove(name) {
            Some(id) => slot(name, id, active).await,
            None => Err(StepError::Store(name.to_owned())),
        };
        let mut slots = Vec::new();
        for version in local {
            let name = version.name.clone();
            slots.push(place(&name, Active { current: Arc::new(version), trial: None }).await?);
        }
        let mut opened = tokio::task::block_in_place(|| fleet.open_all());
        for name in fleet.deployments.keys().cloned().collect::<Vec<_>>() {
            if fleet.local.contains(&name) {
                fleet.give_way(&name).await?;
                continue;
            }
            let active = match opened.remove(&name) {
                None => continue,
                Some(Ok(active)) => active,
                Some(Err(cause)) => match fleet.fall_back(&name, cause).await? {
                    Some(previous) => Active { current: previous, trial: None },
                    None => continue,
                },
            };
            slots.push(place(&name, active).await?);
        }
        fleet.tidy();
        fleet.pipeline.set_plan(Plan::new(slots));
        Ok(fleet)
    }

    /// Compiles what has not been yet. Where that fails the previous version runs.
    ///
    /// # Errors
    /// If the store did not take what was decided; what waits for it still waits, and this is to be called again.
    pub async fn compile_all(&mut self) -> Result<(), StepError> {
        let slots: Vec<Arc<Slot>> = self.pipeline.plan().slots().cloned().collect();
        let versions = slots.iter().flat_map(|slot| {
            let active = slot.active.load_full();
            let previous = active.trial.as_ref().and_then(|trial| trial.previous.clone());
            std::iter::once(active.current.clone()).chain(previous)
        });
        let versions: Vec<_> = versions.collect();
        tokio::task::block_in_place(|| {
            // What an event needs is compiled by the worker that has it, so one core can be left to those who take events in.
            let _: Vec<bool> = share_out(cores() - 1, &versions, |version| version.function().is_ok());
        });
        for slot in slots {
            let cause = match slot.active.load().current.function() {
                Ok(_) => continue,
                Err(cause) => cause.to_string(),
            };
            let name: &str = &slot.name;
            match self.fall_back(name, cause.clone()).await? {
                Some(previous) => self.switch(name, Active { current: previous, trial: None }).await?,
                None => {
                    self.take_out(name);
                    // Whoever waits is let go of once nothing more comes.
                    let _ = slot.gone.set(cause);
                }
            }
        }
        // Of what compiling took, most is free by now.
        memory::give_back();
        Ok(())
    }

    // The configuration has got a function of this name since it was deployed.
    async fn give_way(&mut self, name: &str) -> Result<(), StepError> {
        let Some(mut row) = self.deployments.get(name).cloned() else { return Ok(()) };
        row.detail = InstallError::Local { function: name.to_owned() }.to_string();
        row.status = FunctionStatus::Failed;
        row.refused = row.current.take().map(|installed| installed.digest).or(row.refused);
        row.previous = None;
        self.settle(name, row).await
    }

    // What is deployed, by name: to read and to check all files takes long enough that all cores take part.
    fn open_all(&self) -> BTreeMap<String, Result<Active, String>> {
        let deployed = self.deployments.iter().filter(|(name, _)| !self.local.contains(*name));
        let deployed: Vec<_> = deployed.filter_map(|(name, row)| Some((name, row, row.current.as_ref()?))).collect();
        let opened = share_out(cores(), &deployed, |(name, row, current)| {
            let active = self.open(current).map(|current| {
                let trial = (row.status == FunctionStatus::Trial).then(|| {
                    let previous = row.previous.as_ref().and_then(|previous| self.open(previous).ok());
                    OnTrial::new(previous.map(Arc::new), row.deployment)
                });
                Active { current: Arc::new(current), trial }
            });
            ((*name).clone(), active)
        });
        opened.into_iter().collect()
    }

    // The current version is gone, damaged or cannot be loaded: the previous one, if there is one that can be.
    async fn fall_back(&mut self, name: &str, cause: String) -> Result<Option<Arc<Version>>, StepError> {
        let Some(mut row) = self.deployments.get(name).cloned() else { return Ok(None) };
        tracing::error!("{cause}");
        let previous = row.previous.as_ref().and_then(|previous| {
            tokio::task::block_in_place(|| {
                let version = self.open(previous).ok()?;
                version.function().is_ok().then(|| Arc::new(version))
            })
        });
        row.detail = cause;
        row.refused = row.current.take().map(|installed| installed.digest);
        row.current = row.previous.take().filter(|_| previous.is_some());
        row.status = if row.current.is_some() { FunctionStatus::RolledBack } else { FunctionStatus::Failed };
        self.settle(name, row).await?;
        Ok(previous)
    }

    fn open(&self, installed: &Installed) -> Result<Version, String> {
        let digest = Digest::from_bytes(installed.digest);
        let bytes = self
            .artifacts
            .get(digest)
            .ok_or_else(|| format!("the function's file {digest} is not on the disk any more; deploy it again"))?;
        install::open(&self.engine, &bytes, self.source(digest), &installed.config.iter().cloned().collect())
            .map_err(|error| error.to_string())
    }
}

// What work on each of these gives, in no particular order. Each thread takes the next one, for a core may have other things
// to do.
fn share_out<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let part = || {
        let take = || items.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take).map(&work).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(part)).collect();
        let own = part();
        let others = others.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        own.into_iter().chain(others).collect()
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
