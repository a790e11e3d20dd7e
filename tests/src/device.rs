//! Devices: the thermostat of `firmware-examples`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::recording::Recording;
use crate::{Process, World, binary, wait_until};

/// What a device does.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Its name.
    pub device: String,
    /// The broker.
    pub broker: SocketAddr,
    /// The recording that it replays; none: the one that the project carries. It never measures a simulated room, whose
    /// readings it would drop while it cannot send them.
    pub recording: Option<PathBuf>,
    /// Readings per second.
    pub rate: f64,
    /// It ends after this many, or at the recording's end.
    pub limit: Option<usize>,
}

/// A device that runs. It counts its boots in the world, so one of the same name can be started again.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The program.
    pub process: Process,
}

/// How far a device has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Readings that it gave to its session.
    pub published: u64,
    /// Of these, acknowledged by the gateway.
    pub acknowledged: u64,
}

/// What a device says at its end.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Its name.
    pub device: String,
    /// Its boot epoch.
    pub boot: u32,
    /// Readings that it gave to its session: their sequences are 1 to this.
    pub published: u64,
    /// Of these, acknowledged by the gateway.
    pub acknowledged: u64,
    /// Readings that were sent again.
    pub resent: u64,
    /// Connections after the first.
    pub reconnects: u64,
}

impl Device {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(world: &World, replay: &Replay) -> Result<Self> {
        let Replay { device, broker, recording, rate, limit } = replay;
        let mut command = Command::new(binary("thermostat-host")?);
        command.args(["--verbose", "--report", "json", "--device", device]);
        command.args(["--broker", &broker.to_string(), "--rate", &rate.to_string()]);
        // On a busy machine acknowledgements take their time.
        command.args(["--drain", "30"]);
        command.arg("--boot-file").arg(world.path(&format!("{device}.boot")));
        command.arg("--replay").arg(match recording {
            Some(recording) => recording.clone(),
            None => Recording::of_the_project()?.file,
        });
        if let Some(limit) = limit {
            command.args(["--limit", &limit.to_string()]);
        }
        let process = Process::start(device, command, &world.logs())?;
        Ok(Self { name: device.clone(), process })
    }

    /// How far it has come, as it says about once a second.
    pub fn progress(&self) -> Progress {
        let log = std::fs::read_to_string(self.process.log()).unwrap_or_default();
        log.lines().rev().find_map(progress).unwrap_or_default()
    }

    /// Has it end, and waits for that, with everything acknowledged.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(&mut self, deadline: Duration) -> Result<Summary> {
        // One that has only just started would die of the signal.
        wait_until("the device to listen for SIGTERM", deadline, || {
            anyhow::ensure!(self.process.ended().is_some() || self.process.catches_sigterm()?, "it does not");
            Ok(())
        })?;
        if self.process.ended().is_none() {
            self.process.terminate()?;
        }
        self.finish(deadline)
    }

    /// Waits until it ends, with everything acknowledged.
    ///
    /// # Errors
    /// It does not.
    pub fn finish(&mut self, deadline: Duration) -> Result<Summary> {
        let status = self.process.wait(deadline)?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        let output = self.process.output()?;
        let summary = output.lines().last().and_then(|line| serde_json::from_str(line).ok());
        summary.with_context(|| format!("the summary of {} is not as expected: {output}", self.name))
    }
}

// A line such as `… progress published=12 acknowledged=11 pending=1`.
fn progress(line: &str) -> Option<Progress> {
    let field = |name: &str| {
        let rest = line.split(name).nth(1)?;
        rest.split(' ').next()?.parse().ok()
    };
    Some(Progress { published: field(" published=")?, acknowledged: field(" acknowledged=")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_tells_its_progress_in_its_log() {
        let line = "2026-11-24T03:08:00Z  INFO thermostat_host::device: progress published=12 acknowledged=9 pending=3";
        assert_eq!(progress(line), Some(Progress { published: 12, acknowledged: 9 }));
        assert_eq!(progress("2026-11-24T03:08:00Z  INFO thermostat_host::device: connected port=1"), None);
    }
}
