//! The power of the gateway's disk is cut, again and again.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::disk::Disk;
use super::edges::{self, House};
use super::plan::Dice;
use crate::{Report, World, wait_until};

/// Cuts the power of the disk with the gateway's data, kills the agent, starts it on what is left, and so on under load;
/// then lets everything come to rest and compares what devices were told with what the control plane has. `say` hears how
/// far it is.
///
/// # Errors
/// The agent does not start again, or something does not come to rest. Names the cut.
pub fn power_cut(seed: u64, cuts: usize, mut say: impl FnMut(&str)) -> Result<Report> {
    let start = Instant::now();
    let world = World::new()?;
    // Where `Gateway` puts its data.
    let disk = Disk::new(world.path("gateway.img"), world.path("gateway"))?;
    let (house, _) = edges::start(world)?;
    let mut mounted = Mounted { house, disk };
    let mut report = Report { seed, ..Report::default() };
    let ran = mounted.run(seed, cuts, &mut report, &mut say).and_then(|()| mounted.house.judge(&mut report));
    if ran.is_err() || !report.is_clean() {
        mounted.house.world.failed();
    }
    ran.with_context(|| format!("seed {seed}"))?;
    report.took = start.elapsed();
    Ok(report)
}

struct Mounted {
    // Before the house: what is mounted in the world's folder must be gone when that is removed.
    disk: Disk,
    house: House,
}

impl Mounted {
    fn run(&mut self, seed: u64, cuts: usize, report: &mut Report, say: &mut impl FnMut(&str)) -> Result<()> {
        let mut dice = Dice::new(seed);
        for number in 1..=cuts {
            self.house.keep_load()?;
            std::thread::sleep(Duration::from_micros(dice.below(500_000)));
            let (cut, errors) = (Cut::ALL[dice.below(2) as usize], Duration::from_micros(dice.below(100_000)));
            self.cut(cut, errors).with_context(|| format!("cut {number} of {cuts}, {}", cut.name()))?;
            report.count(format!("power cuts, {}", cut.name()));
            if number % 10 == 0 {
                say(&format!("{number} of {cuts} cuts"));
            }
        }
        Ok(())
    }

    // The agent is stopped before the power goes. For where an fdatasync is under way then, Linux (6.18) lets it return
    // without an error now and then, though what it was to sync is gone; a machine without power lets nothing return.
    fn cut(&mut self, cut: Cut, errors: Duration) -> Result<()> {
        let agent = self.house.agent_process()?;
        kill_process(agent, Signal::STOP)?;
        match cut {
            Cut::AtOnce => {
                let until = Instant::now() + STANDS;
                // Without a pause, so that it is hit in what it does.
                while let Err(error) = stands_still(agent, "TD") {
                    ensure!(Instant::now() < until, "the agent does not stop: {error}");
                }
                self.disk.cut()?;
            }
            Cut::ThenErrors => {
                wait_until("the agent to stand still", STANDS, || stands_still(agent, "T"))?;
                self.disk.cut()?;
                kill_process(agent, Signal::CONT)?;
                std::thread::sleep(errors);
            }
        }
        self.house.gateway.kill9();
        self.disk.restore()?;
        self.house.restart_agent()
    }
}

/// What the agent sees of a cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Nothing. It may hit the agent in the middle of a write or a sync.
    AtOnce,
    /// A disk that answers with errors only, on which it goes on for a while: it must acknowledge nothing then.
    ThenErrors,
}

impl Cut {
    const ALL: [Self; 2] = [Self::AtOnce, Self::ThenErrors];

    fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::ThenErrors => "with errors first",
        }
    }
}

/// How long a process may take to stop. A sync that is under way ends before.
const STANDS: Duration = Duration::from_secs(10);

// Whether every thread of a process is in one of these states (proc_pid_stat(5)), and one at least is stopped. Then all are to be:
// a stop is not for a process but for each of its threads, from when the first of them heard of the signal. One in a write
// or a sync (D) will not come back from it.
fn stands_still(process: Pid, states: &str) -> Result<()> {
    let mut stopped = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // The name before it, in parentheses, may hold anything.
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
        ensure!(state.is_some_and(|state| states.contains(state)), "a thread is in state {state:?}");
        stopped += usize::from(state == Some('T'));
    }
    ensure!(stopped > 0, "no thread is stopped");
    Ok(())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Who uses a disk keeps it mounted.
        self.house.gateway.kill9();
    }
}
