//! From a device's publish to the result: at 200 events a second, in peace, while a backlog drains, and beside a function
//! that burns all the fuel that it may.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::chart::{Bar, Chart};
use super::consumer::{self, Consumer, RESULTS, Which};
use super::pace::{self, Latencies};
use super::row::{Goal, Row, Samples};
use super::wire::Template;
use super::{Results, Settings, gateway, say};
use crate::{Inlet, System, World, backlog};

/// Events a second.
const RATE: f64 = 200.0;

/// Bytes of one fsync, a page of SQLite's log with its header, and how many fit into the log before it is begun anew.
const PAGE: usize = 4_096 + 24;
const PAGES: u64 = 1_000;

/// The device that is measured, which no flood has.
const DEVICE: usize = 7_777;

/// Devices whose every event burns all the fuel of a run. With one a core or more, all cores are busy with them.
const BURNERS: [usize; 2] = [1, 4];

const BURNER: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
    (func (export "edge_handle") (param i32 i32) (result i32) (loop $on (br $on)) (unreachable)))"#;

/// What a turn gave, in milliseconds.
#[derive(Clone, Debug, Default)]
struct Quantiles {
    p50: Samples,
    p99: Samples,
    // Why a turn gave nothing, if one did.
    lost: String,
}

impl Quantiles {
    fn add(&mut self, what: &str, latencies: &Latencies) {
        let (p50, p99) = (latencies.at(0.5), latencies.at(0.99));
        say(format_args!("    {what:<32} p50 {p50:.2} ms, p99 {p99:.2} ms, {} events", latencies.len()));
        self.p50.0.push(p50);
        self.p99.0.push(p99);
    }

    // A broker's round trip and an fsync, one after the other.
    fn plus(&self, other: &Self) -> Self {
        let sum = |a: &Samples, b: &Samples| a.0.iter().zip(&b.0).map(|(a, b)| a + b).collect();
        Self { p50: sum(&self.p50, &other.p50), p99: sum(&self.p99, &other.p99), lost: String::new() }
    }
}

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let count = settings.load(6_000, 600);
    let mut peers: Vec<(Which, Quantiles)> = vec![(Which::Rust, Quantiles::default())];
    peers.extend([Which::NodeRed, Which::Python].map(|which| (which, Quantiles::default())));
    peers.retain(|(which, _)| which.lacks(settings).is_none());
    let (mut trip, mut sync, mut outside) = (Quantiles::default(), Quantiles::default(), Quantiles::default());
    let (mut own, mut draining) = (Quantiles::default(), Quantiles::default());
    let mut burning = BURNERS.map(|_| Quantiles::default());
    for _ in 0..settings.runs {
        trip.add("raw round trip, mosquitto", &raw_trip(count)?);
        sync.add("one fsync", &one_sync(count)?);
        outside.add("agent, mosquitto", &through(settings, Which::Agent, count)?);
        for (which, quantiles) in &mut peers {
            quantiles.add(which.name(), &through(settings, *which, count)?);
        }
        let system = gateway::system(Inlet::Own, true)?;
        let broker = system.gateway.broker();
        warm(broker)?;
        own.add("agent, own broker", &paced(broker, count)?);
        drop(system);
        draining.add("while a backlog drains", &while_draining(settings)?);
        for (burners, quantiles) in BURNERS.iter().zip(&mut burning) {
            match beside_burners(*burners, count) {
                Ok(latencies) => quantiles.add(&format!("beside {burners} burning"), &latencies),
                // Late beyond all measure: the goal is missed, and the rest is measured all the same.
                Err(error) => quantiles.lost = format!("{error:#}"),
            }
        }
    }
    let floor = trip.plus(&sync);
    pair(results, "latency/outside-broker", &outside, "raw round trip + fsync", &floor, Some(2.0));
    pair(results, "latency/own-broker", &own, "raw round trip + fsync", &floor, Some(2.0));
    for (which, quantiles) in &peers {
        let name = format!("latency/outside-broker/{}", which.short());
        pair(results, &name, &outside, which.name(), quantiles, None);
    }
    let alone = "the same, alone";
    results.push(
        Row::new("latency/draining/p99", draining.p99.clone(), "ms")
            .against(alone, &own.p99)
            .goal(Goal::RatioAtMost(2.0)),
    );
    for (burners, quantiles) in BURNERS.iter().zip(&burning) {
        let row = Row::new(format!("latency/burning-{burners}/p99"), quantiles.p99.clone(), "ms");
        let row = row.against(alone, &own.p99).goal(Goal::RatioAtMost(2.0));
        results.push(if quantiles.lost.is_empty() { row } else { row.missed(quantiles.lost.as_str()) });
    }
    let mut bars = vec![
        Bar::new("agent, own broker", &own.p99, true),
        Bar::new("agent, mosquitto", &outside.p99, true),
        Bar::new("agent, while a backlog drains", &draining.p99, true),
    ];
    let shown = BURNERS.iter().zip(&burning).filter(|(_, quantiles)| !quantiles.p99.0.is_empty());
    bars.extend(shown.map(|(burners, quantiles)| {
        Bar::new(format!("agent, beside {burners} devices that burn"), &quantiles.p99, true)
    }));
    bars.push(Bar::new("raw round trip + fsync", &floor.p99, false));
    bars.extend(peers.iter().map(|(which, quantiles)| Bar::new(which.name(), &quantiles.p99, false)));
    results.charts.push(Chart::bars("latency", "From publish to result at 200 events/s, 99th percentile", "ms", bars));
    Ok(())
}

fn pair(results: &mut Results, name: &str, ours: &Quantiles, peer: &str, theirs: &Quantiles, goal: Option<f64>) {
    for (quantile, ours, theirs) in [("p50", &ours.p50, &theirs.p50), ("p99", &ours.p99, &theirs.p99)] {
        let row = Row::new(format!("{name}/{quantile}"), ours.clone(), "ms").against(peer, theirs);
        results.push(goal.into_iter().fold(row, |row, goal| row.goal(Goal::RatioAtMost(goal))));
    }
}

fn paced(broker: SocketAddr, count: usize) -> Result<Latencies> {
    pace::publish(broker, RESULTS, DEVICE, RATE, |sent| sent < count)
}

fn warm(broker: SocketAddr) -> Result<()> {
    paced(broker, 100).map(drop)
}

fn raw_trip(count: usize) -> Result<Latencies> {
    let world = World::new()?;
    let broker = consumer::mosquitto(&world)?;
    pace::publish(broker.address(), "sensors/#", DEVICE, RATE, |sent| sent < count)
}

fn one_sync(count: usize) -> Result<Latencies> {
    let world = World::new()?;
    let mut file = File::create(world.path("file"))?;
    let page = [7; PAGE];
    // As in SQLite's log, what is written over is there already: a file that grows would take longer.
    file.write_all(&page.repeat(PAGES as usize))?;
    file.sync_all()?;
    let mut written = 0;
    pace::at_rate(RATE, count, || {
        file.write_all_at(&page, written % PAGES * PAGE as u64)?;
        written += 1;
        Ok(file.sync_data()?)
    })
}

fn through(settings: &Settings, which: Which, count: usize) -> Result<Latencies> {
    let consumer = Consumer::start(settings, which, true)?;
    warm(consumer.broker.address())?;
    paced(consumer.broker.address(), count)
}

// With everything that waits on its way at once, for as long as it is.
fn while_draining(settings: &Settings) -> Result<Latencies> {
    let waiting = settings.load(1_000_000, 50_000) as u64;
    let mut system = gateway::system(Inlet::Own, true)?;
    system.gateway.terminate(gateway::DEADLINE)?;
    backlog::fill(&system.world, waiting, backlog::BODY)?;
    system.gateway.start()?;
    warm(system.gateway.broker())?;
    system.link.restore()?;
    // An event is not part of it unless something waits when it is sent. Whoever asks is not the one who sends: an event
    // that is sent late counts from when it should have been sent.
    let (gateway, left) = (&system.gateway, AtomicU64::new(u64::MAX));
    let latencies = thread::scope(|scope| {
        scope.spawn(|| {
            while left.load(Ordering::Relaxed) > 100 {
                thread::sleep(Duration::from_millis(100));
                left.store(gateway.status().map_or(0, |status| status.records.waiting), Ordering::Relaxed);
            }
        });
        pace::publish(gateway.broker(), RESULTS, DEVICE, RATE, |_| left.load(Ordering::Relaxed) > 100)
    })?;
    ensure!(latencies.len() > 0, "all was delivered before the first event");
    Ok(latencies)
}

// Each burner has its next event as soon as the one before was given up: there is always one to run for each.
fn beside_burners(burners: usize, count: usize) -> Result<Latencies> {
    let system = with_burner()?;
    let broker = system.gateway.broker();
    warm(broker)?;
    let burning: Vec<_> = (0..burners).map(|device| burn(broker, device)).collect::<Result<_>>()?;
    let latencies = paced(broker, count);
    let dead = system.gateway.status()?.events.dead;
    for (stream, thread) in burning {
        let _ = stream.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
    ensure!(dead > burners as u64, "only {dead} events were burnt");
    latencies
}

fn with_burner() -> Result<System> {
    gateway::system_with(Inlet::Own, |operator, world| {
        operator.push(gateway::FUNCTION)?;
        let to = format!("label:{}", crate::gateway::LABEL);
        operator.run(["deploy", gateway::FUNCTION, "--to", &to, "--config", "publish=true"])?;
        let manifest = "manifest = 1\nname = \"burner\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"burn/#\"\n";
        operator.push_file(&gateway::packed(world, "burner", &wat::parse_str(BURNER)?, manifest)?)?;
        operator.deploy("burner", &to)?;
        Ok(vec![gateway::FUNCTION.to_owned(), "burner".to_owned()])
    })
}

fn burn(broker: SocketAddr, device: usize) -> Result<(std::net::TcpStream, thread::JoinHandle<()>)> {
    let stream = pace::open(broker, &format!("burner-{device}"))?;
    let template = Template::new(&format!("burn/{device}"));
    let mut connection = stream.try_clone()?;
    let on = move || {
        let mut answer = [0; 4];
        for number in 0.. {
            let mut packet = Vec::new();
            template.write(number, &mut packet);
            if connection.write_all(&packet).and_then(|()| connection.read_exact(&mut answer)).is_err() {
                return;
            }
        }
    };
    Ok((stream, thread::spawn(on)))
}
