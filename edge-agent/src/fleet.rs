//! Brings what runs to what should run, one function at a time, and can always go back.
//!
//! A new version is fetched, checked and compiled beside the one that runs; the switch happens between two events. It is
//! on trial for its first events: where it traps and the previous version does not, the gateway returns to the previous
//! one by itself, link or no link. What was decided is on disk before it takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_core::deploy::{Step, steps};
use agent_functions::Engine;
use agent_store::{Deployment, FunctionId, Installed, Write};
use function_package::{Digest, PublicKey};
use sync_protocol::fleet::{Desired, DesiredFunction, FunctionReport, FunctionStatus};

use crate::artifacts::Artifacts;
use crate::install::{self, InstallError};
use crate::link::{Link, LinkError};
use crate::memory;
use crate::pipeline::Pipeline;
use crate::pipeline::writer::Sender;
use crate::plan::{Active, OnTrial, Plan, Slot, TrialEnd, Version};

mod restore;

/// What runs on the gateway, and how it came to be.
#[derive(Debug)]
pub struct Fleet {
    engine: Engine,
    artifacts: Artifacts,
    trusted: Vec<PublicKey>,
    pipeline: Arc<Pipeline>,
    writer: Sender,
    // By name; those of the gateway's own configuration are not among them.
    deployments: BTreeMap<String, Deployment>,
    local: BTreeSet<String>,
}

/// Why a step could not be taken for now. What runs goes on running.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The control plane did not give the file.
    #[error("function {function}: {source}")]
    Fetch {
        /// The function.
        function: String,
        /// Why not.
        source: LinkError,
    },
    /// The disk did not take the file.
    #[error("function {function}: its file cannot be kept: {source}; is the disk full?")]
    Keep {
        /// The function.
        function: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store did not take the decision.
    #[error("function {0}: the store did not take the deployment")]
    Store(String),
}

// Why a deployment was not settled: for now, or for good.
enum Failure {
    Later(StepError),
    Never(InstallError),
}

impl Fleet {
    fn source(&self, digest: Digest) -> Arc<install::File> {
        Arc::new(install::File { path: self.artifacts.path(digest), digest })
    }

    /// Takes the steps to what should run. Each is taken as far as it goes; what cannot be done now is tried again when
    /// this is called again.
    ///
    /// # Errors
    /// The first step that could not be taken for now.
    pub async fn apply(&mut self, desired: &Desired, link: &Link) -> Result<(), StepError> {
        let settled = self.deployments.iter().map(|(name, row)| (name.clone(), (row.deployment, tried(row)))).collect();
        let wanted = |function: &DesiredFunction| (function.name.clone(), (function.deployment, function.digest));
        let wanted = desired.functions.iter().map(wanted).collect();
        let mut first_error = None;
        let steps = steps(&settled, &wanted);
        for step in &steps {
            let done = match step {
                Step::Remove { name } => self.remove(name).await,
                Step::Install { name } => match desired.functions.iter().find(|function| function.name == *name) {
                    Some(function) => self.install(function, link).await,
                    None => Ok(()),
                },
            };
            if let Err(error) = done {
                tracing::warn!("{error}");
                first_error.get_or_insert(error);
            }
        }
        self.tidy();
        if !steps.is_empty() {
            memory::give_back();
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn install(&mut self, wanted: &DesiredFunction, link: &Link) -> Result<(), StepError> {
        let old = self.deployments.get(&wanted.name).cloned();
        match self.prepare(wanted, link).await {
            Ok(version) => {
                let (name, version_text) = (&wanted.name, version.version.clone());
                let active = self.pipeline.plan().find(name).map(|slot| slot.active.load_full());
                let installed = Installed {
                    deployment: wanted.deployment,
                    digest: wanted.digest,
                    version: version.version.clone(),
                    config: wanted.config.clone(),
                };
                let row = Deployment {
                    deployment: wanted.deployment,
                    status: FunctionStatus::Trial,
                    detail: String::new(),
                    current: Some(installed),
                    previous: old.and_then(trusted),
                    refused: None,
                };
                self.settle(name, row).await?;
                let previous = active.map(|active| match &active.trial {
                    Some(OnTrial { previous: Some(trusted), .. }) => trusted.clone(),
                    _ => active.current.clone(),
                });
                let trial = OnTrial::new(previous, wanted.deployment);
                self.switch(name, Active { current: Arc::new(version), trial: Some(trial) }).await?;
                tracing::info!(
                    function = name,
                    version = version_text,
                    deployment = wanted.deployment,
                    "deployed, on trial"
                );
                Ok(())
            }
            Err(Failure::Later(error)) => Err(error),
            Err(Failure::Never(error)) => {
                tracing::error!("{error}; what ran before goes on running");
                let (current, previous) = old.map_or((None, None), |old| (old.current, old.previous));
                let row = Deployment {
                    deployment: wanted.deployment,
                    status: if current.is_some() { FunctionStatus::RolledBack } else { FunctionStatus::Failed },
                    detail: error.to_string(),
                    current,
                    previous,
                    refused: Some(wanted.digest),
                };
                self.settle(&wanted.name, row).await
            }
        }
    }

    async fn prepare(&self, wanted: &DesiredFunction, link: &Link) -> Result<Version, Failure> {
        let function = || wanted.name.clone();
        let digest = Digest::from_bytes(wanted.digest);
        let kept = self.artifacts.get(digest);
        let bytes = match kept.clone() {
            Some(bytes) => bytes,
            None => link
                .artifact(digest)
                .await
                .map_err(|source| Failure::Later(StepError::Fetch { function: function(), source }))?,
        };
        install::check_signature(wanted, &bytes, &self.trusted).map_err(Failure::Never)?;
        // Takes milliseconds to seconds.
        let version = tokio::task::block_in_place(|| {
            install::load(&self.engine, &bytes, self.source(digest), &wanted.config.iter().cloned().collect())
        });
        let version = version.map_err(Failure::Never)?;
        if version.name != wanted.name {
            let found = version.name;
            return Err(Failure::Never(InstallError::Name { wanted: function(), found }));
        }
        if self.local.contains(&wanted.name) {
            return Err(Failure::Never(InstallError::Local { function: function() }));
        }
        let plan = self.pipeline.plan();
        let others: Vec<_> = plan.slots().map(|slot| slot.active.load().current.clone()).collect();
        install::check_beside(&version, others.iter().map(|other| &**other)).map_err(Failure::Never)?;
        if kept.is_none() {
            self.artifacts
                .put(digest, &bytes)
                .map_err(|source| Failure::Later(StepError::Keep { function: function(), source }))?;
        }
        Ok(version)
    }

    async fn remove(&mut self, name: &str) -> Result<(), StepError> {
        if self.writer.write(vec![agent_store::Write::Deployment(name.to_owned(), None)]).await.is_none() {
            return Err(StepError::Store(name.to_owned()));
        }
        self.deployments.remove(name);
        if !self.local.contains(name) {
            self.take_out(name);
        }
        tracing::info!(function = name, "stopped; its state stays");
        Ok(())
    }

    /// Settles the trials that have come to their end.
    ///
    /// # Errors
    /// One could not be settled; the next event of its function says again that it has ended.
    pub async fn settle_trials(&mut self) -> Result<(), StepError> {
        let slots: Vec<Arc<Slot>> = self.pipeline.plan().slots().cloned().collect();
        for slot in slots {
            self.settle_trial(&slot).await?;
        }
        Ok(())
    }

    async fn settle_trial(&mut self, slot: &Slot) -> Result<(), StepError> {
        let name: &str = &slot.name;
        let active = slot.active.load_full();
        let Some((trial, end)) = active.trial.as_ref().and_then(|trial| Some((trial, trial.ended()?))) else {
            return Ok(());
        };
        let Some(mut row) = self.deployments.get(name).cloned() else { return Ok(()) };
        match (end, &trial.previous) {
            (TrialEnd::Failed(failure), Some(previous)) => {
                row.status = FunctionStatus::RolledBack;
                row.detail = failure.clone();
                row.refused = row.current.take().map(|installed| installed.digest);
                row.current = row.previous.take();
                self.settle(name, row).await?;
                self.switch(name, Active { current: previous.clone(), trial: None }).await?;
                tracing::error!("{failure}; the previous version runs again");
            }
            _ => {
                row.status = FunctionStatus::Running;
                self.settle(name, row).await?;
                self.switch(name, Active { current: active.current.clone(), trial: None }).await?;
                tracing::info!(function = name, "the trial is passed");
            }
        }
        Ok(())
    }

    // On disk first, then in memory: the other way round a crash could forget a version that has handled events.
    async fn settle(&mut self, name: &str, row: Deployment) -> Result<(), StepError> {
        let write = Write::Deployment(name.to_owned(), Some(row.clone()));
        if self.writer.write(vec![write]).await.is_none() {
            return Err(StepError::Store(name.to_owned()));
        }
        self.deployments.insert(name.to_owned(), row);
        Ok(())
    }

    // From the next event on.
    async fn switch(&self, name: &str, active: Active) -> Result<(), StepError> {
        let plan = self.pipeline.plan();
        let slot = match plan.find(name) {
            Some(slot) => {
                slot.active.store(Arc::new(active));
                slot.clone()
            }
            None => slot(name, self.writer.function(name), active).await?,
        };
        let others = plan.slots().filter(|slot| *slot.name != *name).cloned();
        self.pipeline.set_plan(Plan::new(others.chain([slot])));
        Ok(())
    }

    fn take_out(&self, name: &str) {
        let plan = self.pipeline.plan();
        self.pipeline.set_plan(Plan::new(plan.slots().filter(|slot| *slot.name != *name).cloned()));
    }

    fn tidy(&self) {
        let installed = self.deployments.values().flat_map(|row| row.current.iter().chain(&row.previous));
        self.artifacts.keep(&installed.map(|installed| Digest::from_bytes(installed.digest)).collect());
    }

    /// How every function is.
    pub fn report(&self) -> Vec<FunctionReport> {
        let plan = self.pipeline.plan();
        let local = plan.slots().filter(|slot| self.local.contains(&*slot.name)).map(|slot| {
            let current = slot.active.load().current.clone();
            FunctionReport {
                name: slot.name.to_string(),
                version: current.version.clone(),
                digest: *current.digest.as_bytes(),
                deployment: 0,
                status: FunctionStatus::Running,
                detail: String::new(),
            }
        });
        let deployed = self.deployments.iter().map(|(name, row)| FunctionReport {
            name: name.clone(),
            version: row.current.as_ref().map_or_else(String::new, |installed| installed.version.clone()),
            digest: row.current.as_ref().map_or([0; 32], |installed| installed.digest),
            deployment: row.deployment,
            status: row.status,
            detail: row.detail.clone(),
        });
        local.chain(deployed).collect()
    }
}

// A function's place, once the store has its number.
async fn slot(
    name: &str,
    id: impl Future<Output = Option<FunctionId>>,
    active: Active,
) -> Result<Arc<Slot>, StepError> {
    let id = id.await.ok_or_else(|| StepError::Store(name.to_owned()))?;
    Ok(Arc::new(Slot::new(id, name, active)))
}

// The file that the row's deployment named, whatever became of it.
fn tried(row: &Deployment) -> [u8; 32] {
    row.refused.or(row.current.as_ref().map(|installed| installed.digest)).unwrap_or_default()
}

// What to go back to from a newer version: the one that was last trusted, for one on trial may be what is being replaced.
fn trusted(row: Deployment) -> Option<Installed> {
    if row.status == FunctionStatus::Trial { row.previous.or(row.current) } else { row.current }
}
