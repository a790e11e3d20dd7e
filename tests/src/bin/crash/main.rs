//! Tries to break the promise, for as long as it is told to.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use system_tests::chaos::{Storm, endure};
use system_tests::crash::{cannot_cut_power, cannot_trace, crash, draw, power_cut};
use system_tests::simulation::simulate;
use system_tests::{Cloud, Edgectl, World};

#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kills the agent and the control plane under load, at every edge of an event's way
    Crash {
        /// How many processes are killed
        #[arg(long, default_value_t = 100)]
        kills: usize,
        /// Of the plan [default: another each time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Cuts the power of the gateway's disk under load
    PowerCut {
        /// How often
        #[arg(long, default_value_t = 20)]
        cuts: usize,
        /// Of the moments [default: another each time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Lets the ways between devices, gateway and control plane do what bad networks do
    Chaos {
        /// How often each fault strikes
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Of the order of the faults [default: another each time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs the sync protocol over a link that does everything that links do, in virtual time
    Simulate {
        /// How many gateways, each with a seed of its own
        #[arg(long, default_value_t = 100)]
        runs: u64,
        /// Of the first one; the others count on from it [default: another each time]
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

// Returns whether all was as it must be.
fn run(command: Command) -> Result<bool> {
    let report = match command {
        Command::Crash { kills, seed } => {
            let seed = seed.unwrap_or_else(from_the_clock);
            let untraced = cannot_trace();
            if let Some(reason) = &untraced {
                say(format_args!("skipping kills at system calls: strace cannot trace here ({reason})"));
            }
            say(format_args!("{kills} kills, seed {seed}"));
            crash(seed, &draw(seed, kills, untraced.is_none()), progress)?
        }
        Command::PowerCut { cuts, seed } => {
            if let Some(reason) = cannot_cut_power() {
                bail!("the power cannot be cut here; it takes root, loop devices and ext4: {reason}");
            }
            let seed = seed.unwrap_or_else(from_the_clock);
            say(format_args!("{cuts} power cuts, seed {seed}"));
            power_cut(seed, cuts, progress)?
        }
        Command::Chaos { rounds, seed } => {
            let seed = seed.unwrap_or_else(from_the_clock);
            say(format_args!("{rounds} rounds of every fault, seed {seed}"));
            endure(seed, &Storm::draw(seed, rounds))?
        }
        Command::Simulate { runs, seed } => return simulate_all(runs, seed.unwrap_or_else(from_the_clock)),
    };
    say(&report);
    Ok(report.is_clean())
}

fn simulate_all(runs: u64, seed: u64) -> Result<bool> {
    let mut world = World::new()?;
    let all_clean = simulate_in(&world, runs, seed);
    if !matches!(all_clean, Ok(true)) {
        world.failed();
    }
    all_clean
}

fn simulate_in(world: &World, runs: u64, seed: u64) -> Result<bool> {
    let cloud = Cloud::start(world)?;
    let operator = Edgectl::new(world, &cloud)?;
    let mut all_clean = true;
    for seed in seed..seed.saturating_add(runs) {
        let report = simulate(&cloud, &operator, seed)?;
        say(&report);
        all_clean &= report.is_clean();
    }
    Ok(all_clean)
}

fn from_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn progress(line: &str) {
    say(line);
}

fn say(line: impl Display) {
    // There is nobody left to tell if it fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}
