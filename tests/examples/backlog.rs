//! What a backlog costs: the start, the first event, memory, and how fast it drains.
//!
//! ```sh
//! cargo xtask functions && cargo build --release
//! cargo run --release -p system-tests --example backlog -- 1000000
//! ```
#![allow(clippy::print_stdout, reason = "it reports on the terminal")]

use anyhow::{Context as _, Result};
use system_tests::backlog::{BODY, measure};

const STARTS: usize = 9;

fn main() -> Result<()> {
    let waiting = std::env::args().nth(1).unwrap_or_else(|| "1000000".to_owned());
    let waiting: u64 = waiting.parse().context("how many records wait is a whole number")?;
    println!(
        "{:>10} {:>10} {:>12} {:>12} {:>10} {:>12}",
        "waiting", "start", "first event", "peak memory", "drain", "records/s"
    );
    for waiting in [0, waiting] {
        let figures = measure(waiting, BODY, STARTS)?;
        println!(
            "{waiting:>10} {:>7.1} ms {:>9.2} ms {:>8.1} MiB {:>8.1} s {:>12.0}",
            figures.start.as_secs_f64() * 1e3,
            figures.first_event.as_secs_f64() * 1e3,
            figures.peak as f64 / f64::from(1 << 20),
            figures.drain.as_secs_f64(),
            waiting as f64 / figures.drain.as_secs_f64()
        );
    }
    Ok(())
}
