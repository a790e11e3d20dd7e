//! Whether an event costs the same, and the agent is as small, after very many of them, none of which was delivered.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::chart::{Chart, Line};
use super::flood::Flood;
use super::memory::mib;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, gateway, say};
use crate::Inlet;

/// Between two looks at it.
const STEPS: usize = 10;

/// What an event cost at each step, and what the agent was like then.
#[derive(Default)]
struct Steps {
    // Microseconds of processors for an event.
    cost: Vec<f64>,
    // MiB.
    memory: Vec<f64>,
    // Events a second.
    rate: Vec<f64>,
}

type Values = fn(&Steps) -> &Vec<f64>;

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let flood = Flood { connections: 20, window: 50, total: settings.load(10_000_000, 200_000) / STEPS };
    let turns = (0..settings.runs).map(|_| turn(flood)).collect::<Result<Vec<Steps>>>()?;
    // A third of the way each, so that one disturbed step decides nothing.
    let (early, late) = (0..STEPS / 3, STEPS - STEPS / 3..STEPS);
    let part = |of: Values, part: &Range<usize>| -> Samples {
        turns.iter().map(|steps| Samples(of(steps)[part.clone()].to_vec()).median()).collect()
    };
    let rows = flood.publishes() * STEPS;
    let rated: [(_, _, Values, _); 3] = [
        ("growth/cost", "µs of CPU for an event", |steps| &steps.cost, Goal::RatioAtMost(1.15)),
        ("growth/memory", "MiB", |steps| &steps.memory, Goal::RatioAtMost(1.1)),
        ("growth/rate", "events/s", |steps| &steps.rate, Goal::RatioAtLeast(0.85)),
    ];
    for (name, unit, values, goal) in rated {
        let row = Row::new(name, part(values, &late), unit).against("the first third", &part(values, &early));
        results.push(row.goal(goal).note(format!("the last third of {rows} events, all of which wait in the outbox")));
    }
    let Some(last) = turns.last() else { return Ok(()) };
    let at = |values: &[f64]| -> Vec<(f64, f64)> {
        (1..).map(|step| (step * flood.publishes()) as f64).zip(values.iter().copied()).collect()
    };
    results.charts.push(Chart::lines(
        "growth",
        "Cost and memory with the number of events, none of them delivered",
        "events",
        vec![Line::new("µs of CPU for an event", at(&last.cost)), Line::new("MiB resident", at(&last.memory))],
    ));
    Ok(())
}

fn turn(flood: Flood) -> Result<Steps> {
    let system = gateway::system(Inlet::Own, false)?;
    let (broker, agent) = (system.gateway.broker(), system.gateway.agent()?);
    // The first of them pay for what is not in any cache yet.
    Flood { total: 20_000, ..flood }.run(broker)?;
    let mut steps = Steps::default();
    for _ in 0..STEPS {
        let before = agent.cpu()?;
        let (_, took) = flood.run(broker)?;
        let events = flood.publishes() as f64;
        let cost = (agent.cpu()?.saturating_sub(before)).as_secs_f64() * 1e6 / events;
        let (memory, rate) = (mib(agent.memory()?), events / took.as_secs_f64());
        let rows = system.gateway.status()?.records.waiting;
        say(format_args!(
            "    {rows:>9} records wait: {cost:.1} µs of CPU for an event, {memory:.1} MiB, {rate:.0} events/s"
        ));
        steps.cost.push(cost);
        steps.memory.push(memory);
        steps.rate.push(rate);
    }
    let rows = system.gateway.status()?.records.waiting;
    ensure!(rows >= (flood.publishes() * STEPS) as u64, "{rows} records of {} events", flood.publishes() * STEPS);
    Ok(steps)
}
