//! Programs that run in a world.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait_until;

/// A program in a process group of its own, killed when this is dropped, and also when the program that holds this is
/// killed itself.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    guard: Child,
    log: PathBuf,
    output: PathBuf,
}

// Reads until whoever started it closes the pipe or dies, then kills the group.
const GUARD: &str = "read -r _; kill -s KILL -- \"-$0\"";

impl Process {
    /// Starts a program. What it prints goes to `NAME.log` (standard error) and `NAME.out` in the folder `logs`; a name
    /// that is used again goes on there.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let (log, output) = (logs.join(format!("{name}.log")), logs.join(format!("{name}.out")));
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))
        };
        command.process_group(0).stdin(Stdio::null()).stderr(open(&log)?).stdout(open(&output)?);
        let cannot = |program: &Command| format!("cannot start {name} ({})", program.get_program().display());
        let mut child = command.spawn().with_context(|| cannot(&command))?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, &child.id().to_string()]);
        guard.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        match guard.spawn() {
            Ok(guard) => Ok(Self { name: name.to_owned(), child, guard, log, output }),
            Err(error) => {
                let _ = child.kill();
                Err(error).with_context(|| cannot(&guard))
            }
        }
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it printed on its standard output.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn output(&self) -> Result<String> {
        fs::read_to_string(&self.output).with_context(|| format!("cannot read {}", self.output.display()))
    }

    /// How many bytes of memory it had resident at most.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        self.memory_as("VmHWM:")
    }

    /// How many bytes of memory it has resident.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> Result<u64> {
        self.memory_as("VmRSS:")
    }

    // By a line of proc_pid_status(5).
    fn memory_as(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        let found: u64 = found.with_context(|| format!("{path} does not tell {name} of {}", self.name))?.parse()?;
        Ok(found * 1024)
    }

    /// How long processors worked for it, in user and in kernel mode, exact to 10 ms.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // proc_pid_stat(5). Behind the name, which may hold anything, come fields 3 and on; utime and stime are 14 and 15.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
        // USER_HZ is 100 on every architecture that we know.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Whether it does something of its own on SIGTERM, in place of dying of it.
    ///
    /// # Errors
    /// It is gone.
    pub fn catches_sigterm(&self) -> Result<bool> {
        const SIGTERM: u32 = 15;
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // proc_pid_status(5): bit 0 is signal 1.
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        let caught = caught.with_context(|| format!("{path} does not tell what {} catches", self.name))?;
        Ok(caught & (1 << (SIGTERM - 1)) != 0)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL: it has no chance to do anything any more. Returns when it is gone.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM: it is asked to end.
    ///
    /// # Errors
    /// It is gone already.
    pub fn terminate(&self) -> Result<()> {
        let status = Command::new("sh").args(["-c", "kill -s TERM \"$0\"", &self.child.id().to_string()]).status();
        let sent = status.is_ok_and(|status| status.success());
        anyhow::ensure!(sent, "cannot send SIGTERM to {}; has it ended before?", self.name);
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait_until(&what, deadline, || self.ended().ok_or("it runs"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: when the program is gone, its number can become another's.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        self.kill();
    }
}

/// The end of every log in a folder, for whoever must find out what went wrong.
pub(crate) fn tails(logs: &Path, lines: usize) -> io::Result<String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(logs)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let mut all = String::new();
    for path in paths {
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        let skipped = text.lines().count().saturating_sub(lines);
        let name = path.file_stem().unwrap_or_default().display().to_string();
        all += &format!("---- {name} ({skipped} lines above)\n");
        text.lines().skip(skipped).for_each(|line| all += &format!("{line}\n"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn sleeper(logs: &Path) -> Process {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::start("sleeper", command, logs).unwrap()
    }

    #[test]
    fn a_program_is_killed_when_whoever_started_it_is_gone() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = sleeper(logs.path());
        assert!(process.ended().is_none());
        // What the system does with the pipe when we are killed.
        drop(process.guard.stdin.take());
        assert_eq!(process.wait(DEADLINE).unwrap().signal(), Some(9));
    }

    #[test]
    fn a_program_can_be_asked_to_end_and_leaves_its_output() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = sleeper(logs.path());
        process.terminate().unwrap();
        assert_eq!(process.wait(DEADLINE).unwrap().signal(), Some(15));

        let mut command = Command::new("sh");
        command.args(["-c", "echo said; echo logged >&2; exit 3"]);
        let mut process = Process::start("speaker", command, logs.path()).unwrap();
        assert_eq!(process.wait(DEADLINE).unwrap().code(), Some(3));
        assert_eq!(process.output().unwrap(), "said\n");
        assert!(tails(logs.path(), 9).unwrap().ends_with("---- speaker (0 lines above)\nlogged\n"));
    }
}
