//! `cargo xtask bench`.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cargo::{self, cannot_start, cargo, run as run_program, target_dir, workspace};
use crate::report::{Failure, Outcome, step};
use crate::{cross, peers, setup};

pub(crate) const HELP: &str = "\
Usage: cargo xtask bench [--quick] [--runs N] [--only NAME]… [--write-docs]

Builds everything for release, and measures what an event, a record, a start and an agent cost, beside what they cost with
mosquitto, Node-RED, Python and Rust written by hand. All run on this machine and take turns. The peers are installed into
bench/ of the target directory; one that cannot be is left out, with a word. It takes an hour or so, and means something
only while nothing else runs; docs/performance.md says what is measured, and how.

Prints a table with the ratios and the goals, and the machine. bench/results.json in the target directory has the same, with
every run; the charts lie beside it.

  --quick       a tenth of the load or less, some minutes: to see that all works, not to compare
  --runs N      turns that everybody has (3; with --quick 1)
  --only NAME   only this benchmark: throughput, published, acks, latency, cold, memory, routing, growth, uplink or size. May
                be given several times
  --write-docs  put the table and the charts into docs/performance.md
";

/// Functions that are deployed, with their folders.
const FUNCTIONS: [&str; 2] = ["tests/reading", "function-examples/unit-conversion"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    check(arguments)?;
    setup::wasm()?;
    let folder = target_dir()?.join("bench");
    step("peers", || peers::install(&folder.join("peers")))?;
    step("build", || run_program(cargo().args(["build", "--release", "--workspace", "--locked", cargo::BINARIES])))?;
    step("functions", functions)?;
    step("another processor", cross::build)?;
    // It takes our place, so that Ctrl-C reaches it alone, and it has the last word.
    let mut bench = Command::new(release("bench")?);
    bench.args(arguments).arg("--folder").arg(&folder).env("PATH", setup::path());
    let error = bench.exec();
    Err(cannot_start(bench.get_program(), &error))
}

// A mistake is better said before the build than after it. The names of benchmarks are known to the benchmark alone.
fn check(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.as_slice().first()) {
            ("--quick" | "--write-docs", _) => continue,
            ("--runs", Some(runs)) if runs.parse::<u8>().is_ok_and(|runs| (1..=99).contains(&runs)) => {}
            ("--runs", _) => return Err(Failure::because("--runs wants a number from 1 to 99")),
            ("--only", Some(name)) if !name.starts_with('-') => {}
            ("--only", _) => return Err(Failure::because("--only wants the name of a benchmark; see --help")),
            _ => return Err(Failure::because(format!("{argument:?} is not known here; see --help"))),
        }
        arguments.next();
    }
    Ok(())
}

fn functions() -> Outcome {
    let packages = target_dir()?.join("functions");
    for folder in FUNCTIONS {
        let name = Path::new(folder).file_name().unwrap_or_default();
        let mut edgectl = cargo::command(release("edgectl")?);
        edgectl.args(["fn", "build"]).arg(workspace().join(folder)).stdout(Stdio::null());
        run_program(edgectl.arg("--out").arg(packages.join(name).with_extension("wasm")))?;
    }
    Ok(())
}

/// A binary of the workspace, built for release.
fn release(name: &str) -> Outcome<PathBuf> {
    Ok(target_dir()?.join("release").join(name))
}
