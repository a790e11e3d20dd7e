//! What the commands say, and how they fail.

use std::fmt::Display;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// How a command ends.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program that failed has said why.
    Said,
    /// This has not been said yet.
    Because(String),
}

impl Failure {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self::Because(reason.into())
    }
}

/// Refuses arguments of a command that takes none.
pub(crate) fn no_arguments(arguments: &[String]) -> Outcome {
    match arguments.first() {
        None => Ok(()),
        Some(argument) => Err(Failure::because(format!("{argument:?} is not known here; see --help"))),
    }
}

/// Prints a line where cargo prints its own, so that they stay in order.
pub(crate) fn say(line: impl Display) {
    // There is nobody left to tell if it fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Does something under a heading, and says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    say(format_args!("\n==> {name}"));
    let start = Instant::now();
    let done = work();
    let took = seconds(start.elapsed());
    say(match done {
        Ok(_) => format!("    {name}: {took}"),
        Err(_) => format!("    {name}: failed after {took}"),
    });
    done
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..100 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}
