//! What the system costs, beside what its peers cost, on the same machine in the same minutes: `cargo xtask bench`.
//!
//! Whoever is compared takes turns, so that what disturbs one disturbs all; the ratio is that of each turn, and the median
//! of all turns counts. The load comes from `flood` (as much as is taken) and `pace` (at a rate of its own, so that
//! who is late is not spared); what is made of it is seen by `collect`. Peers are set up as their documentation advises.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

mod acks;
mod chart;
mod cold;
mod collect;
mod consumer;
mod flood;
mod gateway;
mod growth;
mod https;
mod latency;
mod memory;
mod pace;
mod page;
mod routing;
pub mod row;
mod size;
mod throughput;
mod uplink;
mod wire;

use chart::Chart;
use row::Row;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A tenth of the load or less: to see that all works.
    pub quick: bool,
    /// Turns that everybody has.
    pub runs: usize,
    /// Only these benchmarks; all if there are none.
    pub only: Vec<String>,
    /// The folder that the peers were installed into.
    pub peers: PathBuf,
}

impl Settings {
    /// This many, or fewer if it must be quick.
    fn load(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    fn node_red(&self) -> PathBuf {
        self.peers.join("node-red")
    }

    fn python(&self) -> PathBuf {
        self.peers.join("python")
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Results {
    /// The rows, in the order of [`NAMES`].
    pub rows: Vec<Row>,
    /// What is drawn.
    charts: Vec<Chart>,
}

impl Results {
    fn push(&mut self, row: Row) {
        say(format_args!("    {}", page::line(&row)));
        self.rows.push(row);
    }
}

struct Bench {
    name: &'static str,
    run: fn(&Settings, &mut Results) -> Result<()>,
}

const ALL: [Bench; 10] = [
    Bench { name: "throughput", run: throughput::stored },
    Bench { name: "published", run: throughput::published },
    Bench { name: "acks", run: acks::run },
    Bench { name: "latency", run: latency::run },
    Bench { name: "cold", run: cold::run },
    Bench { name: "memory", run: memory::run },
    Bench { name: "routing", run: routing::run },
    Bench { name: "growth", run: growth::run },
    Bench { name: "uplink", run: uplink::run },
    Bench { name: "size", run: size::run },
];

/// The names of all benchmarks.
pub const NAMES: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = ALL[at].name;
        at += 1;
    }
    names
};

/// Runs what is to be run. What fails is a row, too, and does not keep the others from being measured.
pub fn run(settings: &Settings) -> Results {
    let mut results = Results::default();
    let chosen = |bench: &&Bench| settings.only.is_empty() || settings.only.iter().any(|name| name == bench.name);
    for Bench { name, run } in ALL.iter().filter(chosen) {
        say(format_args!("==> {name}"));
        if let Err(error) = run(settings, &mut results) {
            results.push(Row::skipped(*name, format!("it failed: {error:#}")));
        }
    }
    results
}

impl Results {
    /// Prints the table, and writes `results.json` and the charts into a folder.
    ///
    /// # Errors
    /// The disk does not take them.
    pub fn report(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let json = serde_json::to_string_pretty(&self.rows)? + "\n";
        std::fs::write(folder.join("results.json"), json).context("cannot write results.json")?;
        for chart in &self.charts {
            let file = folder.join(format!("{}.svg", chart.name));
            std::fs::write(&file, chart.svg()).with_context(|| format!("cannot write {}", file.display()))?;
        }
        say(page::table(&self.rows));
        Ok(())
    }

    /// Writes the table and the charts into `docs/`.
    ///
    /// # Errors
    /// The page has no place for the table, or the disk does not take it.
    pub fn write_docs(&self, settings: &Settings) -> Result<()> {
        page::write(settings, &self.rows, &self.charts)
    }
}

/// Says something, where progress is said.
fn say(line: impl fmt::Display) {
    use std::io::Write as _;
    // There is nobody left to tell if it fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}
