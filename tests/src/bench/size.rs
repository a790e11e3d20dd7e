//! How large the agent's program is, and whether it runs on another processor.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::gateway::Probe;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, wire};
use crate::{Port, Process, World, binary};

/// The target that is built for a small gateway, in the names of Rust.
const TARGET: &str = "aarch64-unknown-linux-musl";
const EMULATOR: &str = "qemu-aarch64-static";

/// An emulated processor is slow.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn run(_: &Settings, results: &mut Results) -> Result<()> {
    let program = binary("edge-agent")?;
    results.push(size("size/edge-agent", &program)?);
    let folder = program.parent().and_then(|release| release.parent()).context("the agent lies in no folder")?;
    let other = folder.join(TARGET).join("release/edge-agent");
    let name = format!("size/{TARGET}");
    if !other.is_file() {
        results.push(Row::skipped(name, format!("there is no build for it ({} is missing)", other.display())));
        return Ok(());
    }
    results.push(size(&name, &other)?);
    let name = format!("size/{TARGET}/first-event");
    match Command::new(EMULATOR).arg("-version").output() {
        Ok(_) => {
            let took = first_event(other)?.as_secs_f64() * 1e3;
            let note = format!("it runs: from its start under {EMULATOR} to its first PUBACK");
            results.push(Row::new(name, Samples(vec![took]), "ms").note(note));
        }
        Err(error) => results.push(Row::skipped(name, format!("there is no {EMULATOR}: {error}"))),
    }
    Ok(())
}

fn size(name: &str, program: &PathBuf) -> Result<Row> {
    let bytes = std::fs::metadata(program).with_context(|| format!("cannot look at {}", program.display()))?.len();
    Ok(Row::new(name, Samples(vec![bytes as f64 / 1e6]), "MB").goal(Goal::Below(15.0)))
}

// Without a control plane: there is no function, and so the event goes as far as the broker.
fn first_event(program: PathBuf) -> Result<Duration> {
    let world = World::new()?;
    let port = Port::free()?;
    let config = format!("[gateway]\ndata_dir = \"data\"\n\n[mqtt.listen]\naddress = \"{}\"\n", port.address());
    let config = world.write("gateway.toml", config)?;
    let mut command = Command::new(EMULATOR);
    command.arg(program).args(["run", "--config"]).arg(config);
    let begun = Instant::now();
    let mut process = Process::start("gateway", command, &world.logs())?;
    loop {
        if let Ok(mut probe) = Probe::new(port.address()) {
            probe.event(&wire::topic(0))?;
            return Ok(begun.elapsed());
        }
        ensure!(
            process.ended().is_none() && begun.elapsed() < DEADLINE,
            "it does not start; see {}",
            process.log().display()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
