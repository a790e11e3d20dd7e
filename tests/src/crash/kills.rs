//! SIGKILL, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::edges::{self, House};
use super::plan::{Edge, Step, Victim};
use super::strace::Strace;
use super::trigger::{Trigger, kill};
use crate::{Report, World};

/// How long an edge may take to be reached. Under load it takes tenths of a second.
const REACHES: Duration = Duration::from_secs(5);
/// Meanwhile devices come to their end, and are started again.
const LOOKS_EVERY: Duration = Duration::from_millis(200);

/// Runs a plan: kills and starts again under load, then lets everything come to rest and compares what devices were told
/// with what the control plane has. `say` hears how far it is.
///
/// # Errors
/// Something does not start again, or does not come to rest. Names the step.
pub fn crash(seed: u64, plan: &[Step], mut say: impl FnMut(&str)) -> Result<Report> {
    let start = Instant::now();
    let (mut house, trigger) = edges::start(World::new()?)?;
    let mut report = Report { seed, ..Report::default() };
    let ran = run(&mut house, &trigger, plan, &mut report, &mut say).and_then(|()| house.judge(&mut report));
    if ran.is_err() || !report.is_clean() {
        house.world.failed();
    }
    ran.with_context(|| format!("seed {seed}"))?;
    report.took = start.elapsed();
    Ok(report)
}

fn run(
    house: &mut House,
    trigger: &Trigger,
    plan: &[Step],
    report: &mut Report,
    say: &mut impl FnMut(&str),
) -> Result<()> {
    for (index, step) in plan.iter().enumerate() {
        house.keep_load()?;
        let reached =
            execute(house, trigger, step).with_context(|| format!("step {} of {}: {step:?}", index + 1, plan.len()))?;
        if !reached {
            report.not_reached += 1;
            say(&format!("step {} was not at its edge within {REACHES:?}: {step:?}", index + 1));
        }
        report.count(format!("{:<13}  {}", step.victim, step.edge));
        if (index + 1) % 20 == 0 {
            say(&format!("{} of {} steps", index + 1, plan.len()));
        }
    }
    Ok(())
}

// Returns whether the edge was reached in time.
fn execute(house: &mut House, trigger: &Trigger, step: &Step) -> Result<bool> {
    let process = match step.victim {
        Victim::Agent => Some(house.agent_process()?),
        Victim::Cloud => Some(house.cloud_process()?),
        Victim::Connection => None,
    };
    let reached = match (step.edge, process) {
        (Edge::Time, _) => {
            std::thread::sleep(step.pause);
            process.into_iter().for_each(kill);
            true
        }
        (edge, Some(process)) if let Some(call) = edge.system_call() => {
            let mut strace = Strace::kill_at(process, call, step.nth)?;
            wait(house, || strace.wait(LOOKS_EVERY))?
        }
        _ => {
            trigger.set(step, process);
            let reached = wait(house, || trigger.wait(LOOKS_EVERY))?;
            trigger.clear();
            reached
        }
    };
    match step.victim {
        Victim::Agent => house.restart_agent()?,
        Victim::Cloud => house.restart_cloud()?,
        Victim::Connection if !reached => house.cut_devices(),
        Victim::Connection => {}
    }
    Ok(reached)
}

// Keeps the load up until an edge is reached. Returns whether it was in time.
fn wait(house: &mut House, mut reached: impl FnMut() -> bool) -> Result<bool> {
    let end = Instant::now() + REACHES;
    while !reached() {
        if Instant::now() >= end {
            return Ok(false);
        }
        house.keep_load()?;
    }
    Ok(true)
}
