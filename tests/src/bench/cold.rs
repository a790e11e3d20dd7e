//! What comes first: the first event of an agent that starts, and of a function that was deployed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::flood::Flood;
use super::gateway::{self, Probe};
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, say, wire};
use crate::gateway::LABEL;
use crate::{Inlet, System, wait_until};

/// Functions of the agent that starts.
const FUNCTIONS: usize = 100;

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let (starts, all) = starts(settings.runs.max(settings.load(9, 3)))?;
    let row = Row::new("cold/start-100-functions", starts, "ms").goal(Goal::Below(150.0));
    results.push(row.note("from exec to the PUBACK of the first event, its record on disk"));
    let row = Row::new("cold/start-all-functions", all, "ms");
    results.push(row.note("from exec until each function has handled an event"));
    let (first, second) = first_and_second(settings.load(60, 5))?;
    let row = Row::new("cold/first-event", first, "ms").against("its second event", &second);
    results.push(row.goal(Goal::RatioAtMost(1.2)).note("from PUBLISH to PUBACK, right after the deployment"));
    Ok(())
}

/// A gateway with so many functions, each with these filters of its number; the topic of device 0 is the first's.
pub(super) fn with_functions(count: usize, filters: impl Fn(usize) -> Vec<String>) -> Result<System> {
    gateway::system_with(Inlet::Own, |operator, world| {
        let names: Vec<String> = (0..count).map(|number| format!("reading-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            operator.push_file(&gateway::renamed(world, name, &filters(number))?)?;
            operator.deploy(name, &format!("label:{LABEL}"))?;
        }
        Ok(names)
    })
}

/// From exec until one function has handled an event, and until each has.
fn starts(count: usize) -> Result<(Samples, Samples)> {
    let mut system = with_functions(FUNCTIONS, |number| vec![wire::topic(number)])?;
    let (mut times, mut all) = (Samples::default(), Samples::default());
    for number in 0..count {
        // Another one each time: none is the one that comes first by chance.
        let topic = wire::topic(number * FUNCTIONS / count);
        system.gateway.terminate(gateway::DEADLINE)?;
        let (broker, begun) = (system.gateway.broker(), Instant::now());
        system.gateway.launch()?;
        // Not by `wait_until`, which looks too seldom for this.
        let mut probe = loop {
            match Probe::new(broker) {
                Ok(probe) => break probe,
                Err(error) => ensure!(begun.elapsed() < gateway::DEADLINE, "the agent does not listen: {error:#}"),
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        probe.event(&topic)?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        // Before its functions are there an event would be acknowledged without effect.
        let handled = wait_until("the status", gateway::DEADLINE, || system.gateway.status())?.events.handled;
        ensure!(handled == 1, "{handled} functions handled the first event");
        times.0.push(took);
        Flood { connections: FUNCTIONS, window: 1, total: FUNCTIONS }.run(broker)?;
        let each = begun.elapsed().as_secs_f64() * 1e3;
        let handled = wait_until("the status", gateway::DEADLINE, || system.gateway.status())?.events.handled;
        ensure!(handled == 1 + FUNCTIONS as u64, "{handled} events were handled");
        all.0.push(each);
        say(format_args!("    after a start with {FUNCTIONS} functions: first event {took:.1} ms, all {each:.1}"));
    }
    Ok((times, all))
}

fn first_and_second(deployments: usize) -> Result<(Samples, Samples)> {
    let system = with_functions(1, |number| vec![wire::topic(number)])?;
    let mut names = vec!["reading-0".to_owned()];
    let mut probe = Probe::new(system.gateway.broker())?;
    let (mut first, mut second) = (Samples::default(), Samples::default());
    system.link.restore()?;
    for number in 1..=deployments {
        let name = format!("reading-{number}");
        let topic = wire::topic(number);
        let file = gateway::renamed(&system.world, &name, std::slice::from_ref(&topic))?;
        system.operator.push_file(&file)?;
        system.operator.deploy(&name, &format!("label:{LABEL}"))?;
        names.push(name);
        let running: Vec<&str> = names.iter().map(String::as_str).collect();
        system.gateway.wait_for_functions(&running, gateway::DEADLINE)?;
        // The connection and the store are as warm as they are between two events.
        for _ in 0..5 {
            probe.event(&wire::topic(0))?;
        }
        first.0.push(probe.event(&topic)?.as_secs_f64() * 1e3);
        second.0.push(probe.event(&topic)?.as_secs_f64() * 1e3);
    }
    Ok((first, second))
}
