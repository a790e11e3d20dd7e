//! Whether an event costs the same, and the agent is as small, after very many of them, none of which was delivered.

use anyhow::{Result, ensure};

use super::chart::{Chart, Line};
use super::flood::Flood;
use super::memory::mib;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, gateway, say};
use crate::Inlet;

/// Between two looks at it.
const STEPS: usize = 10;

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let system = gateway::system(Inlet::Own, false)?;
    let (broker, agent) = (system.gateway.broker(), system.gateway.agent()?);
    let flood = Flood { connections: 20, window: 50, total: settings.load(10_000_000, 200_000) / STEPS };
    // The first of them pay for what is not in any cache yet.
    Flood { total: 20_000, ..flood }.run(broker)?;
    let (mut cost, mut memory, mut rate) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let before = agent.cpu()?;
        let (_, took) = flood.run(broker)?;
        let events = flood.publishes() as f64;
        cost.push((agent.cpu()?.saturating_sub(before)).as_secs_f64() * 1e6 / events);
        memory.push(mib(agent.memory()?));
        rate.push(events / took.as_secs_f64());
        let rows = system.gateway.status()?.records.waiting;
        say(format_args!(
            "    {rows:>9} records wait: {:.1} µs of CPU for an event, {:.1} MiB, {:.0} events/s",
            cost[cost.len() - 1],
            memory[memory.len() - 1],
            rate[rate.len() - 1]
        ));
    }
    let rows = system.gateway.status()?.records.waiting;
    ensure!(rows >= (flood.publishes() * STEPS) as u64, "{rows} records of {} events", flood.publishes() * STEPS);
    // A third of the way each, so that one disturbed step decides nothing.
    let (early, late) = (0..STEPS / 3, STEPS - STEPS / 3..STEPS);
    let part = |of: &[f64], part: std::ops::Range<usize>| Samples(vec![Samples(of[part].to_vec()).median()]);
    for (name, unit, values, goal) in [
        ("growth/cost", "µs of CPU for an event", &cost, Goal::RatioAtMost(1.15)),
        ("growth/memory", "MiB", &memory, Goal::RatioAtMost(1.1)),
        ("growth/rate", "events/s", &rate, Goal::RatioAtLeast(0.85)),
    ] {
        let row = Row::new(name, part(values, late.clone()), unit);
        let row = row.against("the first third", &part(values, early.clone())).goal(goal);
        results.push(row.note(format!("the last third of {rows} events, all of which wait in the outbox")));
    }
    let at = |values: &[f64]| -> Vec<(f64, f64)> {
        (1..).map(|step| (step * flood.publishes()) as f64).zip(values.iter().copied()).collect()
    };
    results.charts.push(Chart::lines(
        "growth",
        "Cost and memory with the number of events, none of them delivered",
        "events",
        vec![Line::new("µs of CPU for an event", at(&cost)), Line::new("MiB resident", at(&memory))],
    ));
    Ok(())
}
