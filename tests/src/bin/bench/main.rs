//! Measures the system beside its peers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use system_tests::bench::{NAMES, Settings, run};

/// Measures what the system costs, beside what its peers cost on this machine in the same minutes.
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Args {
    /// A tenth of the load or less: to see that all works
    #[arg(long)]
    quick: bool,
    /// Turns that everybody has [default: 3, or 1 if it must be quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: Option<u32>,
    /// Only this benchmark; may be given several times
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    only: Vec<String>,
    /// Write table and charts into docs/
    #[arg(long)]
    write_docs: bool,
    /// Where the peers are, and where results.json and the charts go
    #[arg(long)]
    folder: PathBuf,
}

fn main() -> ExitCode {
    match measure(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // There is nobody left to tell if it fails.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: Args) -> Result<()> {
    let Args { quick, runs, only, write_docs, folder } = args;
    ensure!(!write_docs || only.is_empty(), "--write-docs writes the whole table, and so goes not with --only");
    let runs = runs.unwrap_or(if quick { 1 } else { 3 }) as usize;
    let settings = Settings { quick, runs, only, peers: folder.join("peers") };
    let results = run(&settings);
    results.report(&folder)?;
    if write_docs {
        results.write_docs(&settings)?;
    }
    Ok(())
}
