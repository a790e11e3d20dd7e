//! Tries to break the promise, for as long as it is told to.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use system_tests::crash::{Report, cannot_cut_power, cannot_trace, crash, draw, power_cut};

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
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(report) => {
            say(&report);
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Report> {
    match command {
        Command::Crash { kills, seed } => {
            let seed = seed.unwrap_or_else(from_the_clock);
            let untraced = cannot_trace();
            if let Some(reason) = &untraced {
                say(format_args!("skipping kills at system calls: strace cannot trace here ({reason})"));
            }
            say(format_args!("{kills} kills, seed {seed}"));
            crash(seed, &draw(seed, kills, untraced.is_none()), progress)
        }
        Command::PowerCut { cuts, seed } => {
            if let Some(reason) = cannot_cut_power() {
                bail!("the power cannot be cut here; it takes root, loop devices and ext4: {reason}");
            }
            let seed = seed.unwrap_or_else(from_the_clock);
            say(format_args!("{cuts} power cuts, seed {seed}"));
            power_cut(seed, cuts, progress)
        }
    }
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
