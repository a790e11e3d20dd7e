//! Acknowledgements a second: ours mean "on disk", mosquitto's "in memory".

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use agent_broker::{Broker, Inbound, Ingest, Options};
use anyhow::{Result, ensure};
use tokio::sync::oneshot;

use super::chart::{Bar, Chart};
use super::flood::Flood;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, consumer, gateway, say};
use crate::{Inlet, World};

/// Messages between the broker and the committer. More than all windows together, so that `submit` never waits.
const CHANNEL: usize = 1 << 16;

/// Messages of one commit at most.
const GROUP: usize = 4_096;

/// Connections, window, and the goal of the whole agent.
const SHAPES: [(usize, usize, Option<f64>); 3] = [(1_000, 1, Some(0.5)), (100, 10, None), (1, 100, Some(0.25))];

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    for (connections, window, goal) in SHAPES {
        let total = settings.load(200_000, 20_000);
        let flood = Flood { connections, window, total };
        let shape = format!("{connections}x{window}");
        let (mut agent, mut alone, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.runs {
            memory.push(of_mosquitto(flood)?);
            agent.push(of_agent(flood)?);
            alone.push(of_broker(flood)?);
            let last = |values: &[f64]| values.last().copied().unwrap_or_default();
            say(format_args!(
                "    {shape}: mosquitto {:.0}, agent {:.0}, its broker {:.0} acks/s",
                last(&memory),
                last(&agent),
                last(&alone)
            ));
        }
        let [agent, alone, memory] = [agent, alone, memory].map(Samples);
        let peer = "mosquitto, from memory";
        let row = Row::new(format!("acks/{shape}"), agent.clone(), "acks/s").against(peer, &memory);
        results.push(goal.into_iter().fold(row, |row, goal| row.goal(Goal::RatioAtLeast(goal))));
        let row = Row::new(format!("acks/{shape}/broker-alone"), alone.clone(), "acks/s").against(peer, &memory);
        results.push(row.note("the broker without functions and store, an fsync for each group of acknowledgements"));
        let bars = vec![
            Bar::new("agent: function, record, on disk", &agent, true),
            Bar::new("its broker alone, on disk", &alone, true),
            Bar::new(peer, &memory, false),
        ];
        let title = format!("Acknowledgements a second, {connections} connections with a window of {window}");
        results.charts.push(Chart::bars(format!("acks-{shape}"), title, "acks/s", bars));
    }
    Ok(())
}

fn rate(flood: Flood, broker: SocketAddr) -> Result<f64> {
    // What comes first pays for what is not yet in any cache.
    Flood { total: flood.total / 20, ..flood }.run(broker)?;
    let (_, took) = flood.run(broker)?;
    Ok(flood.publishes() as f64 / took.as_secs_f64())
}

fn of_mosquitto(flood: Flood) -> Result<f64> {
    let world = World::new()?;
    let broker = consumer::mosquitto(&world)?;
    rate(flood, broker.address())
}

fn of_agent(flood: Flood) -> Result<f64> {
    let system = gateway::system(Inlet::Own, false)?;
    let before = system.gateway.status()?.records.waiting;
    let rate = rate(flood, system.gateway.broker())?;
    // An acknowledgement without a record would be worth nothing.
    let records = system.gateway.status()?.records.waiting - before;
    ensure!(records >= flood.publishes() as u64, "{records} records of {} events", flood.publishes());
    Ok(rate)
}

/// The broker in this process, with an application that appends each group of messages to a file and calls fdatasync before
/// it accepts them.
fn of_broker(flood: Flood) -> Result<f64> {
    let world = World::new()?;
    let file = File::create(world.path("messages"))?;
    let options = Options { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..Options::default() };
    // It has a runtime of its own, as it would have a process of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let broker = runtime.block_on(Broker::bind(options))?;
    let address = broker.local_addr();
    let (sender, inbox) = sync_channel(CHANNEL);
    let committer = thread::spawn(move || commit(&inbox, file));
    let (stop, stopped) = oneshot::channel::<()>();
    let run = runtime.spawn(broker.run(Arc::new(Commits(sender)), async {
        let _ = stopped.await;
    }));
    let rate = rate(flood, address)?;
    drop(stop);
    runtime.block_on(run)?;
    committer.join().map_err(|_| anyhow::anyhow!("the committer panicked"))??;
    Ok(rate)
}

/// Hands messages to the committing thread.
struct Commits(SyncSender<Inbound>);

impl Ingest for Commits {
    async fn submit(&self, inbound: Inbound) {
        // A message that is dropped is not acknowledged, so the measurement fails instead of being wrong.
        let _ = self.0.try_send(inbound);
    }
}

/// Writes what waits, syncs once, accepts all of it.
fn commit(inbox: &Receiver<Inbound>, mut file: File) -> std::io::Result<()> {
    let mut group = Vec::new();
    let mut bytes = Vec::new();
    while let Ok(first) = inbox.recv() {
        group.push(first);
        group.extend(inbox.try_iter().take(GROUP - 1));
        bytes.clear();
        for inbound in &group {
            bytes.extend_from_slice(inbound.topic.as_bytes());
            bytes.extend_from_slice(&inbound.payload);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        for inbound in group.drain(..) {
            inbound.ack.accept();
        }
    }
    Ok(())
}
