//! Kills at system calls, by strace: the agent's source knows nothing of it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Pid;

use super::trigger::kill;
use crate::wait_until;

/// How long strace may take to attach to a process. It takes milliseconds.
const ATTACHES: Duration = Duration::from_secs(5);

/// An strace that is attached to a process, and ends with it. Dropped, it lets go of it.
#[derive(Debug)]
pub(super) struct Strace {
    program: Child,
}

impl Strace {
    /// Kills a process when one of its threads comes to this system call for the `nth` time, before the call is made.
    /// Returns when the process is traced.
    pub(super) fn kill_at(process: Pid, call: &str, nth: u32) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["--quiet=all", "--follow-forks", "--output=/dev/null", "--trace", call]);
        command.args(["--inject", &format!("{call}:signal=SIGKILL:when={nth}")]);
        command.args(["--attach", &process.as_raw_nonzero().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut strace = Self { program: command.spawn().context("cannot start strace")? };
        wait_until("strace to attach", ATTACHES, || {
            match strace.program.try_wait()? {
                // The process came to the call at once, and is gone.
                Some(ended) if ended.success() => return Ok(()),
                Some(ended) => return Err(anyhow::anyhow!("it ended with {ended}")),
                None => {}
            }
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero()))?;
            anyhow::ensure!(status.contains(&format!("TracerPid:\t{}\n", strace.program.id())), "it has not yet");
            Ok(())
        })?;
        Ok(strace)
    }

    /// Waits until the process is gone. Returns false if it did not come to the call in time.
    pub(super) fn wait(&mut self, deadline: Duration) -> bool {
        wait_until("strace to end", deadline, || match self.program.try_wait() {
            Ok(Some(_)) => Ok(()),
            _ => Err("it runs"),
        })
        .is_ok()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // What it traced goes on.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Why strace cannot kill here, if it cannot: it may be missing, or the system may forbid it.
pub fn cannot_trace() -> Option<String> {
    let mut sleeper = match Command::new("sleep").arg("60").spawn() {
        Ok(sleeper) => sleeper,
        Err(error) => return Some(format!("cannot start sleep: {error}")),
    };
    let process = Pid::from_child(&sleeper);
    let traced = Strace::kill_at(process, "fdatasync", 1);
    kill(process);
    let _ = sleeper.wait();
    traced.err().map(|error| format!("{error:#}"))
}
