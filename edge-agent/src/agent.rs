//! The agent as a whole: how its parts are joined, started and stopped.
//!
//! Started in an order that never acknowledges what cannot be handled: the configuration and its functions, the store,
//! the workers, the plan of what was deployed, and only then the inlet; what was deployed is compiled meanwhile, and first
//! what an event has come for. Stopped the other way round.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_core::{Backoff, dedup};
use agent_functions::Engine;
use agent_store::{Store, StreamUsage, Write};
use anyhow::{Context, Result};
use function_package::{Digest, Trigger};
use sync_protocol::dead::Command;
use sync_protocol::fleet::{
    Desired, FunctionReport, MAX_STREAM_REPORTS, MAX_WAIT_S, Reply, Report, Request, StreamReport,
};
use sync_protocol::records::StoreEpoch;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::artifacts::Artifacts;
use crate::blobs::{self, Blobs};
use crate::choose_tls;
use crate::clock::Clock;
use crate::config::{Cloud, Config, LocalFunction, Mqtt};
use crate::counters::Counters;
use crate::fleet::Fleet;
use crate::inlet::broker::BrokerInlet;
use crate::inlet::client::ClientInlet;
use crate::inlet::{Inlet, Outgoing};
use crate::keeper::Keeper;
use crate::link::{AGENT_VERSION, Link, LinkError};
use crate::meter::Meter;
use crate::pipeline::Pipeline;
use crate::pipeline::worker;
use crate::pipeline::writer::{self, End, Wakers};
use crate::plan::Version;
use crate::requests::Requests;
use crate::requests::client::Client;
use crate::triggers;
use crate::triggers::blobs::Transfers;
use crate::triggers::queue::Queues;
use crate::triggers::schedule::Schedules;
use crate::triggers::watch::Watch;
use crate::uplink::{OutboxTurn, Uplink};
use crate::{dispatcher, install, limits, status};

/// Checks everything that can be checked without starting: the functions of the configuration.
///
/// # Errors
/// Names the function and what is wrong with it.
pub fn check(config: &Config, engine: &Engine) -> Result<Vec<Version>> {
    let mut versions: Vec<Version> = Vec::new();
    for LocalFunction { path, config: values } in &config.functions {
        let bytes = fs::read(path).with_context(|| {
            format!(
                "cannot read the function {}, which the configuration names; build it, or take its [[function]] out",
                path.display()
            )
        })?;
        let source = Arc::new(install::File { path: path.clone(), digest: Digest::of(&bytes) });
        let version =
            install::load(engine, &bytes, source, values).with_context(|| format!("cannot use {}", path.display()))?;
        if versions.iter().any(|other| other.name == version.name) {
            anyhow::bail!("{} is the function {} once more; each name can run once", path.display(), version.name);
        }
        install::check_beside(&version, versions.iter())?;
        if config.http.is_none() && version.triggers.iter().any(|trigger| matches!(trigger, Trigger::Http { .. })) {
            let name = &version.name;
            tracing::warn!(
                "function {name} has a route, and nobody can ask it: there is no [http] in the configuration"
            );
        }
        versions.push(version);
    }
    Ok(versions)
}

/// Runs until `stop` is true and everything in flight is settled.
///
/// # Errors
/// If it cannot start; what was acknowledged by then is on the disk. [`StoreDamaged`] if it is to be started anew.
pub async fn run(config: Config, stop: watch::Receiver<bool>) -> Result<()> {
    choose_tls();
    let engine = Engine::with_secrets(config.secrets.clone());
    let local = check(&config, &engine)?;
    let data_dir = &config.gateway.data_dir;
    fs::create_dir_all(data_dir).with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    let store_dir = data_dir.join("store");
    let (store, recovery) = Store::open_or_recover(&store_dir)?;
    if let Some(recovery) = &recovery {
        tracing::error!("{recovery}");
    }
    let blobs = Blobs::open(data_dir, config.blobs)
        .with_context(|| format!("cannot make the folder for blobs in {}", data_dir.display()))?;
    let mut collect_reader = store.reader()?;
    blobs.committed(collect_reader.blob_usage()?.1);
    let swept = blobs.sweep(&mut collect_reader, recovery.as_ref().map(|recovery| recovery.quarantine.as_path()))?;
    if swept > 0 {
        tracing::info!(swept, "contents of blobs that nothing refers to were removed");
    }
    let epoch = store.epoch();
    let artifacts = Artifacts::open(data_dir)
        .with_context(|| format!("cannot make the folder for functions in {}", data_dir.display()))?;
    let deployments = store.reader()?.deployments()?;
    let reader = || store.reader();
    let (dispatch_reader, status_reader, report_reader) = (reader()?, reader()?, reader()?);
    let (uplink_reader, keeper_reader) = (reader()?, reader()?);
    let (queue_reader, schedule_reader, transfer_reader) = (reader()?, reader()?, reader()?);
    let mut watch_reader = reader()?;
    let request_reader = reader()?;
    let metered = store.reader()?.metered()?;
    let worker_readers = (0..config.gateway.workers).map(|_| reader()).collect::<Result<Vec<_>, _>>()?;

    let (damaged, found_damaged) = watch::channel(false);
    let (sender, receiver) = writer::channel();
    let wakers = Arc::new(Wakers::default());
    let counters = Arc::new(Counters::default());
    let (clock, retention) = (Clock::start(), Arc::new(config.retention));
    let meter = Meter::new(clock.clone(), metered);
    let pipeline = Pipeline::new(sender.clone(), counters.clone(), clock.clone(), retention.clone(), blobs.clone());
    let writer_thread = {
        let (pipeline, wakers) = (pipeline.clone(), wakers.clone());
        thread("writer", move || {
            if writer::write(&pipeline, &wakers, store, &store_dir, &receiver) == End::Damaged {
                damaged.send_replace(true);
            }
        })?
    };
    let mut workers = Vec::new();
    for (number, reader) in worker_readers.into_iter().enumerate() {
        let pipeline = pipeline.clone();
        let seed = epoch.0 ^ pipeline.clock.wall_us().rotate_left(17 + number as u32);
        workers.push(thread("worker", move || worker::work(&pipeline, reader, seed))?);
    }
    let fleet = Fleet::start(
        engine,
        artifacts,
        config.deploy.trusted_keys.clone(),
        pipeline.clone(),
        sender.clone(),
        local,
        deployments,
    )
    .await?;
    let status_listener = match config.status {
        Some(address) => {
            Some(status::bind(address).await.with_context(|| format!("cannot listen on {address} for the status"))?)
        }
        None => None,
    };
    let http = match config.http {
        Some(http) => {
            let address = http.address;
            let listener = triggers::http::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} for requests to functions"))?;
            Some((listener, http))
        }
        None => None,
    };

    // Events are taken from here on, while everything else is set up and functions are compiled. By a task, for this here
    // runs on a thread of its own, which another one would wake for each packet.
    let (outgoing, outgoing_receiver) = mpsc::channel::<Outgoing>(limits::PUBLISHES_IN_FLIGHT);
    let stop = either(stop, found_damaged.clone());
    let mut inlet = JoinSet::new();
    let (broker, unnoted) = match config.mqtt {
        Mqtt::Listen(listen) => {
            let own = BrokerInlet::bind(&listen, epoch.0).await?;
            let handle = own.handle();
            inlet.spawn(own.run(pipeline.clone(), outgoing_receiver, stop));
            // What comes back to the gateway's own functions after a power failure must be recognised.
            (Some(handle), dedup::WINDOW)
        }
        Mqtt::Connect(connect) => {
            inlet.spawn(ClientInlet::new(connect).run(pipeline.clone(), outgoing_receiver, stop));
            (None, limits::PUBLISHES_UNNOTED)
        }
    };

    let mut tasks = JoinSet::new();
    tasks.spawn(dispatcher::dispatch(dispatch_reader, sender.clone(), wakers.clone(), outgoing, unnoted));
    let (functions, functions_seen) = watch::channel(fleet.report());
    let sources = Arc::new(status::Sources {
        pipeline: pipeline.clone(),
        reader: Mutex::new(status_reader),
        meter: meter.clone(),
        broker,
        functions: functions_seen,
    });
    if let Some(listener) = status_listener {
        tasks.spawn(status::serve(listener, sources.clone()));
    }
    let turn = OutboxTurn::default();
    let keeper = Keeper {
        reader: keeper_reader,
        writer: sender.clone(),
        wakers: wakers.clone(),
        retention,
        turn: turn.clone(),
        clock: clock.clone(),
        meter: meter.clone(),
        tell_usage: config.tell_usage,
    };
    tasks.spawn(keeper.keep());
    let (link_sender, link) = watch::channel(None);
    let retry_max = config.cloud.as_ref().map_or(Duration::ZERO, |cloud| cloud.retry_max);
    if let Some(cloud) = config.cloud {
        let (data_dir, name) = (data_dir.clone(), config.gateway.name.clone());
        let uplink = Uplink {
            reader: uplink_reader,
            epoch,
            writer: sender.clone(),
            wakers: wakers.clone(),
            counters,
            turn,
            clock,
            budget: cloud.budget,
            meter: meter.clone(),
        };
        tasks.spawn(async move {
            let link = Arc::new(enrolled(&cloud, &data_dir, &name, &meter, epoch).await);
            link_sender.send_replace(Some(link.clone()));
            uplink.deliver(link, Backoff::new(Duration::from_secs(1), retry_max, epoch.0)).await;
        });
    }
    let reports =
        Reports { reader: report_reader, writer: sender.clone(), epoch, pipeline: pipeline.clone(), functions };
    tasks.spawn(govern(fleet, link, reports, retry_max));
    let queues = Queues {
        reader: queue_reader,
        epoch,
        writer: sender.clone(),
        wakers: wakers.clone(),
        pipeline: pipeline.clone(),
    };
    tasks.spawn(queues.run());
    let schedules = Schedules { reader: schedule_reader, writer: sender.clone(), pipeline: pipeline.clone() };
    tasks.spawn(schedules.run());
    tasks.spawn(blobs::collect(blobs, collect_reader, sender.clone()));
    let client = Client::new(config.requests).context("cannot set up TLS for the requests of functions")?;
    let requests = Requests {
        reader: request_reader,
        epoch,
        writer: sender.clone(),
        wakers,
        pipeline: pipeline.clone(),
        client: Arc::new(client),
    };
    tasks.spawn(requests.run());
    if let Some((listener, http)) = http {
        let transfers = Transfers::new(pipeline.clone(), sender.clone(), transfer_reader);
        tasks.spawn(triggers::http::serve(listener, http, pipeline.clone(), transfers));
    }
    for watch in config.watches {
        tasks.spawn(Watch::new(watch, pipeline.clone(), sender.clone(), &mut watch_reader)?.run());
    }
    while let Some(ended) = inlet.join_next().await {
        ended?;
    }
    tracing::info!("stopping: nothing new is taken, what is in flight is settled");
    tasks.shutdown().await;
    // The writer's connection is to be the last one, for that one carries the log over.
    drop(sources);
    tokio::task::block_in_place(|| {
        pipeline.stop();
        workers.into_iter().for_each(join);
        sender.stop();
        join(writer_thread);
    });
    if *found_damaged.borrow() {
        return Err(StoreDamaged.into());
    }
    tracing::info!("stopped");
    Ok(())
}

/// The store was found to be damaged while the agent ran. Nothing that was in flight is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store is damaged; it is recovered when the agent starts anew")]
pub struct StoreDamaged;

// True as soon as one of them is.
fn either(mut one: watch::Receiver<bool>, mut other: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let wait = async |signal: &mut watch::Receiver<bool>| {
            // A sender that is gone gives no signal any more.
            if signal.wait_for(|set| *set).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = wait(&mut one) => {}
            () = wait(&mut other) => {}
            () = sender.closed() => return,
        }
        sender.send_replace(true);
        sender.closed().await;
    });
    receiver
}

// The link, as soon as there is one.
async fn enrolled(cloud: &Cloud, data_dir: &Path, name: &str, meter: &Meter, epoch: StoreEpoch) -> Link {
    let mut backoff = Backoff::new(Duration::from_secs(1), cloud.retry_max, epoch.0);
    loop {
        match Link::open(cloud, data_dir, name, meter.clone()).await {
            Ok(link) => return link,
            Err(error) => {
                let wait = backoff.failed().max(error.retry_after().unwrap_or_default());
                if matches!(error, LinkError::Unreachable { .. }) {
                    tracing::warn!(?wait, "{error}");
                } else {
                    tracing::error!(?wait, "{error}");
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

struct Reports {
    reader: agent_store::Reader,
    writer: writer::Sender,
    epoch: StoreEpoch,
    pipeline: Arc<Pipeline>,
    functions: watch::Sender<Vec<FunctionReport>>,
}

impl Reports {
    fn commands_done(&mut self) -> Result<u64> {
        Ok(tokio::task::block_in_place(|| self.reader.commands_done())?)
    }

    // Does what the control plane asks for, each command in a transaction of its own, in order.
    async fn carry_out(&mut self, commands: Vec<Command>) -> Result<()> {
        for command in commands {
            let (number, action, letters) = (command.number, command.action, command.letters.len());
            let write = Write::Command { command, stamp: self.pipeline.clock.stamp() };
            if self.writer.write(vec![write]).await.is_none() {
                anyhow::bail!("command {number}: the store did not take it; it comes again");
            }
            tracing::info!(number, ?action, letters, "a command for dead letters was carried out");
        }
        Ok(())
    }

    fn make(&mut self, generation: u64) -> Result<Report> {
        let (mut usage, dead_letters) =
            tokio::task::block_in_place(|| anyhow::Ok((self.reader.usage()?, self.reader.dead_letter_count()?)))?;
        let waiting = usage.iter().map(|stream| stream.records).sum();
        usage.retain(|stream| stream.records > 0);
        usage.sort_unstable_by_key(|stream| std::cmp::Reverse(stream.bytes));
        usage.truncate(MAX_STREAM_REPORTS);
        let streams = usage.into_iter().map(|StreamUsage { name, records, bytes }| StreamReport {
            name: name.to_string(),
            waiting: records,
            bytes,
        });
        Ok(Report {
            agent_version: AGENT_VERSION.to_owned(),
            generation,
            uptime_s: self.pipeline.clock.agent_uptime_s(),
            epoch: self.epoch,
            waiting,
            streams: streams.collect(),
            handled: self.pipeline.counters.handled.get(),
            dead_letters,
            functions: self.functions.borrow().clone(),
        })
    }
}

/// How long one report stays current. Also how long a gateway may seem alive after it died.
const REPORT_EVERY_S: u16 = 20;
const _: () = assert!(REPORT_EVERY_S <= MAX_WAIT_S);

// Keeps what runs as it should be: asks the control plane, watches trials, reports.
async fn govern(
    mut fleet: Fleet,
    mut link: watch::Receiver<Option<Arc<Link>>>,
    mut reports: Reports,
    retry_max: Duration,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), retry_max, reports.epoch.0);
    let (mut desired, mut applied) = (Desired::default(), 0);
    let pipeline = reports.pipeline.clone();
    while let Err(error) = fleet.compile_all().await {
        tracing::error!("{error}");
        tokio::time::sleep(backoff.failed()).await;
    }
    // A trial ends whether there is a link or not, so nothing here waits but beside it.
    let mut not_before = Instant::now();
    loop {
        reports.functions.send_replace(fleet.report());
        let current = link.borrow_and_update().clone();
        let next = async {
            tokio::time::sleep_until(not_before).await;
            let Some(link) = current else {
                return match link.changed().await {
                    Ok(()) => Ok(None),
                    // There is no control plane.
                    Err(_) => std::future::pending().await,
                };
            };
            // What could not be applied is tried again soon.
            let wait_s = if applied == desired.generation { REPORT_EVERY_S } else { 1 };
            let report = Some(reports.make(applied)?);
            let request =
                Request { generation: desired.generation, wait_s, commands_done: reports.commands_done()?, report };
            let reply = link.sync(&request).await?;
            anyhow::Ok(Some((link, reply)))
        };
        let next = tokio::select! {
            next = next => next,
            // The report is out of date with it; asking again costs a request.
            () = pipeline.trial_ended.notified() => {
                if let Err(error) = fleet.settle_trials().await {
                    tracing::error!("{error}");
                }
                continue;
            }
        };
        match next {
            Ok(None) => {}
            Ok(Some((link, reply))) => {
                match reply {
                    Reply::Unchanged => backoff.succeeded(),
                    Reply::Desired(news) => {
                        backoff.succeeded();
                        desired = news;
                    }
                    // They come again until they are done, which no disk may be asked for without a pause.
                    Reply::Commands(commands) => match reports.carry_out(commands).await {
                        Ok(()) => backoff.succeeded(),
                        Err(error) => {
                            let wait = backoff.failed();
                            tracing::warn!(?wait, "{error}");
                            not_before = Instant::now() + wait;
                        }
                    },
                }
                if applied != desired.generation && fleet.apply(&desired, &link).await.is_ok() {
                    applied = desired.generation;
                }
            }
            Err(error) => {
                let wanted = error.downcast_ref().and_then(LinkError::retry_after);
                let wait = backoff.failed().max(wanted.unwrap_or_default());
                tracing::warn!(?wait, "{error}");
                not_before = Instant::now() + wait;
            }
        }
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .with_context(|| format!("cannot start the {name} thread"))
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread panicked; what it held was not acknowledged");
    }
}
