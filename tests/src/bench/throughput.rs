//! Events from mosquitto through a function to the disk, and further: how many a second.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::chart::{Bar, Chart};
use super::collect::Collector;
use super::consumer::{Consumer, RESULTS, Which};
use super::flood::Flood;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, say};

/// How long all results may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// One measured turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    rate: f64,
    // Seconds of processors for a million events, the consumer's alone.
    cpu: f64,
    // MiB, at most.
    memory: f64,
}

/// Outside broker, function, `synchronous=FULL`, acknowledgement.
pub(super) fn stored(settings: &Settings, results: &mut Results) -> Result<()> {
    let subjects = [Which::Agent, Which::Rust, Which::NodeRed, Which::Python];
    let goals = [
        (Which::Rust, Goal::RatioAtLeast(0.6)),
        (Which::NodeRed, Goal::RatioAtLeast(10.0)),
        (Which::Python, Goal::RatioAtLeast(10.0)),
    ];
    rows("throughput", "Events a second to SQLite, durable", settings, results, &subjects, &goals, false)
}

/// The same, and the result published.
pub(super) fn published(settings: &Settings, results: &mut Results) -> Result<()> {
    let subjects = [Which::Agent, Which::Rust, Which::NodeRedMemory, Which::ThinEdge, Which::NodeRed, Which::Python];
    let goals = [
        (Which::Rust, Goal::RatioAtLeast(0.9)),
        (Which::NodeRedMemory, Goal::RatioAtLeast(1.0)),
        (Which::ThinEdge, Goal::RatioAtLeast(1.0)),
        (Which::NodeRed, Goal::RatioAtLeast(1.0)),
        (Which::Python, Goal::RatioAtLeast(1.0)),
    ];
    rows("published", "Events a second to SQLite and published", settings, results, &subjects, &goals, true)
}

fn rows(
    name: &'static str,
    title: &'static str,
    settings: &Settings,
    results: &mut Results,
    subjects: &[Which],
    goals: &[(Which, Goal)],
    publish: bool,
) -> Result<()> {
    let mut turns: BTreeMap<&str, Vec<Turn>> = BTreeMap::new();
    for _ in 0..settings.runs {
        for which in subjects.iter().filter(|which| which.lacks(settings).is_none()) {
            let turn = measure(settings, *which, publish)?;
            say(format_args!("    {:<22} {:>8.0} events/s", which.name(), turn.rate));
            turns.entry(which.name()).or_default().push(turn);
        }
    }
    let of = |which: Which, what: fn(&Turn) -> f64| -> Samples {
        turns.get(which.name()).into_iter().flatten().map(what).collect()
    };
    let rates = of(Which::Agent, |turn| turn.rate);
    for (which, goal) in goals {
        let row = Row::new(format!("{name}/{}", which.short()), rates.clone(), "events/s");
        let row = row.against(which.name(), &of(*which, |turn| turn.rate)).goal(*goal);
        results.push(row.note(which.lacks(settings).unwrap_or_default()));
    }
    for (what, unit, value) in [
        ("cpu", "s of CPU for 1 M", (|turn| turn.cpu) as fn(&Turn) -> f64),
        ("memory", "MiB at most", |turn| turn.memory),
    ] {
        for (which, _) in goals.iter().filter(|(which, _)| which.lacks(settings).is_none()) {
            let row = Row::new(format!("{name}/{what}/{}", which.short()), of(Which::Agent, value), unit);
            results.push(row.against(which.name(), &of(*which, value)));
        }
    }
    let bars = subjects.iter().filter_map(|which| {
        let rates = of(*which, |turn| turn.rate);
        (!rates.0.is_empty()).then(|| Bar::new(which.name(), &rates, *which == Which::Agent))
    });
    results.charts.push(Chart::bars(name, title, "events/s", bars.collect()));
    Ok(())
}

fn measure(settings: &Settings, which: Which, publish: bool) -> Result<Turn> {
    // Long enough for each: the slow ones get a part, for what is measured is a rate.
    let total = match which {
        Which::Agent | Which::Rust | Which::NodeRedMemory | Which::ThinEdge => settings.load(200_000, 20_000),
        Which::NodeRed | Which::Python => settings.load(20_000, 4_000),
    };
    let consumer = Consumer::start(settings, which, publish)?;
    let broker = consumer.broker.address();
    // Where results are the only sign of what was handled, one who counts them is there already.
    let collect = publish && !which.keeps_nothing();
    let collector = if collect { Some(Collector::start(broker, &[RESULTS], "bench-collector")?) } else { None };
    let (before, cpu) = (consumer.handled()?, consumer.cpu()?);
    let flood = Flood { connections: 20, window: 50, total };
    let (began, _) = flood.run(broker)?;
    let events = flood.publishes();
    let mut took = consumer.wait_for(events as u64, before)?.duration_since(began);
    if let Some(collector) = collector {
        let arrived = collector.finish(events, DEADLINE)?;
        let last = arrived.last().map_or(began, |(_, at)| *at);
        took = took.max(last.duration_since(began));
    }
    let cpu = consumer.cpu()?.saturating_sub(cpu);
    Ok(Turn {
        rate: events as f64 / took.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / events as f64,
        memory: consumer.peak_memory()? as f64 / f64::from(1 << 20),
    })
}
