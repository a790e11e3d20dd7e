//! `edgectl fn bench`: what each event of a file costs.

use std::path::PathBuf;

use serde::Serialize;

use super::fixtures;
use crate::args::Bench;
use crate::failure::Failure;
use crate::local::{Fixture, How, Local, title};
use crate::out::{Out, Paint, table};
use crate::source::Source;

/// Most times that are kept, 8 bytes each.
const MAX_TIMES: usize = 10_000_000;

/// Events in the table; `--json` has all.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct Report<'a> {
    function: &'a str,
    version: String,
    /// Whether this program was built with optimisation, as gateways are.
    optimised: bool,
    files: Vec<Measured>,
    total: Total,
}

#[derive(Serialize)]
struct Measured {
    file: PathBuf,
    runs: usize,
    events: Vec<Cost>,
    /// Events that the function does not see: no trigger matches, or they are duplicates.
    passed_over: usize,
}

/// What one event costs. Fuel and memory are the same in every run.
#[derive(Clone, Serialize)]
struct Cost {
    event: usize,
    #[serde(skip)]
    title: String,
    topic: String,
    device: String,
    failed: bool,
    fuel: u64,
    memory_bytes: usize,
    time_ns: Times,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Times {
    min: u64,
    median: u64,
    p99: u64,
}

#[derive(Serialize)]
struct Total {
    events: usize,
    failed: usize,
    passed_over: usize,
    fuel: u64,
    fuel_max: u64,
    memory_bytes_max: usize,
    /// The sum of the medians.
    time_ns: u64,
    events_per_second: f64,
}

pub(crate) fn bench(out: &Out, bench: &Bench) -> Result<(), Failure> {
    let source = Source::new(&bench.given.source, bench.given.install_target);
    let package = source.package()?;
    let paths = match bench.events.as_slice() {
        [] => fixtures(&source, &package, None, "--events")?,
        paths => paths.to_vec(),
    };
    let mut files = Vec::new();
    for path in paths {
        let fixture = Fixture::read(&path)?;
        let mut local = Local::load(&package, fixture.setting(&bench.given.over), fixture.seed)?;
        files.push(measure(&mut local, &fixture, bench.runs as usize));
    }
    let manifest = package.manifest();
    let report = Report {
        function: &manifest.name,
        version: manifest.version.to_string(),
        optimised: !cfg!(debug_assertions),
        total: Total::of(&files),
        files,
    };
    if report.total.events == 0 {
        return Err(Failure::NothingSeen { function: manifest.name.clone() });
    }
    out.value(&report, || show(out, &report))
}

fn measure(local: &mut Local, fixture: &Fixture, runs: usize) -> Measured {
    let runs = runs.min(MAX_TIMES / fixture.events.len().max(1)).max(1);
    let mut times = vec![Vec::with_capacity(runs); fixture.events.len()];
    let mut events = Vec::new();
    // One more before, whose times do not count: memory is fetched, and branches are learned.
    for run in 0..=runs {
        local.reset(fixture.seed);
        for (index, event) in fixture.events.iter().enumerate() {
            let ran = local.run(event);
            if run > 0 && ran.was_run() {
                times[index].push(u64::try_from(ran.took.as_nanos()).unwrap_or(u64::MAX));
            }
            if run == 0 && ran.was_run() {
                events.push(Cost {
                    event: index + 1,
                    title: title(index + 1, event),
                    topic: event.topic.to_string(),
                    device: event.device.to_string(),
                    failed: matches!(ran.how, How::Failed(_)),
                    fuel: ran.fuel,
                    memory_bytes: ran.memory_bytes,
                    time_ns: Times { min: 0, median: 0, p99: 0 },
                });
            }
        }
    }
    for cost in &mut events {
        cost.time_ns = Times::of(&mut times[cost.event - 1]);
    }
    let passed_over = fixture.events.len() - events.len();
    Measured { file: fixture.path.clone(), runs, events, passed_over }
}

impl Times {
    /// Of at least one time.
    fn of(times: &mut [u64]) -> Self {
        times.sort_unstable();
        // The smallest that so many of a hundred are not above.
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self { min: times[0], median: at(50), p99: at(99) }
    }
}

impl Total {
    fn of(files: &[Measured]) -> Self {
        let all = || files.iter().flat_map(|file| &file.events);
        let (events, time_ns) = (all().count(), all().map(|cost| cost.time_ns.median).sum::<u64>());
        Self {
            events,
            failed: all().filter(|cost| cost.failed).count(),
            passed_over: files.iter().map(|file| file.passed_over).sum(),
            fuel: all().map(|cost| cost.fuel).sum(),
            fuel_max: all().map(|cost| cost.fuel).max().unwrap_or(0),
            memory_bytes_max: all().map(|cost| cost.memory_bytes).max().unwrap_or(0),
            time_ns,
            events_per_second: if time_ns == 0 { 0.0 } else { events as f64 * 1e9 / time_ns as f64 },
        }
    }
}

fn show(out: &Out, report: &Report<'_>) -> String {
    let micros = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
    let mut text = String::new();
    for file in &report.files {
        let mut dearest = file.events.clone();
        if dearest.len() > SHOWN {
            dearest.sort_by_key(|cost| std::cmp::Reverse(cost.fuel));
            dearest.truncate(SHOWN);
            dearest.sort_by_key(|cost| cost.event);
        }
        let which = match file.events.len() {
            all if all > SHOWN => format!("the {SHOWN} dearest of {all} events; --json has all"),
            all => format!("{all} events"),
        };
        let name = out.paint(Paint::Head, file.file.display());
        text.push_str(&format!("{name}: {which}, {} runs\n", file.runs));
        let rows = dearest.iter().map(|cost| {
            let Times { min, median, p99 } = cost.time_ns;
            let short: String = cost.title.chars().take(60).collect();
            let memory = format!("{}", cost.memory_bytes >> 10);
            let ended = if cost.failed { "trap" } else { "" };
            [cost.fuel.to_string(), micros(min), micros(median), micros(p99), memory, ended.to_owned(), short]
        });
        text.push_str(&table(["FUEL", "MIN µs", "MEDIAN µs", "P99 µs", "KiB", "", "EVENT"], rows));
        text.push('\n');
    }
    let Total { events, failed, passed_over, fuel, fuel_max, memory_bytes_max, time_ns, events_per_second } =
        report.total;
    text.push_str(&format!(
        "{events} events, {failed} of them traps; {passed_over} that it does not see\nfuel:    {} for an event, {fuel_max} at \
         most\nmemory:  {} KiB at most\ntime:    {} µs for an event: {events_per_second:.0} events a second on one core",
        fuel / events as u64,
        memory_bytes_max >> 10,
        micros(time_ns / events as u64)
    ));
    if !report.optimised {
        text.push_str(
            "\nThis edgectl was built without optimisation: times are longer than on a gateway, fuel is the same.",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        assert_eq!(Times::of(&mut [5]), Times { min: 5, median: 5, p99: 5 });
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(Times::of(&mut hundred), Times { min: 1, median: 50, p99: 99 });
    }
}
