//! What it takes to find the functions that want an event.

use std::hint::black_box;
use std::time::Instant;

use agent_core::Filter;
use agent_core::router::Router;
use anyhow::{Result, ensure};

use super::chart::{Bar, Chart};
use super::row::{Goal, Row, Samples};
use super::{Results, Settings};

/// Filters in one table.
const TABLES: [usize; 4] = [1, 100, 10_000, 100_000];

/// Levels of topics, in a table of 10,000 filters.
const DEPTHS: [usize; 4] = [2, 4, 8, 16];

/// Topics that take turns: more than fit into the nearest caches together with their paths through the table.
const TOPICS: usize = 1_024;

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let routings = settings.load(2_000_000, 200_000);
    let measure = |tables: &[(Router<u32>, Vec<String>)]| -> Result<Vec<Samples>> {
        let mut times = vec![Samples::default(); tables.len()];
        for _ in 0..settings.runs {
            for ((table, topics), times) in tables.iter().zip(&mut times) {
                times.0.push(nanoseconds(table, topics, routings)?);
            }
        }
        Ok(times)
    };
    let tables = TABLES.map(|filters| plant(filters, 4));
    let times = measure(&tables)?;
    for (filters, times_here) in TABLES.iter().zip(&times).skip(1) {
        let row = Row::new(format!("routing/{filters}-filters"), times_here.clone(), "ns for a topic");
        results.push(row.against("1 filter", &times[0]).goal(Goal::RatioAtMost(4.0)));
    }
    let bars = TABLES.iter().zip(&times).map(|(filters, times)| Bar::new(format!("{filters} filters"), times, true));
    results.charts.push(Chart::bars(
        "routing",
        "Finding the functions of a topic of four levels",
        "ns",
        bars.collect(),
    ));
    let deep = measure(&DEPTHS.map(|depth| plant(10_000, depth)))?;
    for (depth, times) in DEPTHS.iter().zip(&deep).skip(1) {
        let row = Row::new(format!("routing/{depth}-levels"), times.clone(), "ns for a topic");
        results.push(row.against("2 levels", &deep[0]).note("10,000 filters"));
    }
    Ok(())
}

/// A table of so many filters with so many levels, and topics of which each is wanted once. A plant has lines with machines
/// with sensors, some 50 of each where there are many.
fn plant(filters: usize, depth: usize) -> (Router<u32>, Vec<String>) {
    let mut table = Router::default();
    let wide = (filters as f64).powf(1.0 / (depth as f64 - 1.0)).ceil().max(1.0) as usize;
    let name = |mut number: usize, last: &str| {
        let mut levels = Vec::new();
        for level in 1..depth {
            levels.push(format!("level-{level}-{}", number % wide));
            number /= wide;
        }
        levels.push(last.to_owned());
        levels.join("/")
    };
    for number in 0..filters {
        // A filter that names all levels, and one in four for whatever a sensor says.
        let last = if number.is_multiple_of(4) { "+" } else { "temperature" };
        let filter = Filter::new(&name(number, last)).expect("these are filters");
        table.insert(&filter, number as u32);
    }
    let step = (filters / TOPICS).max(1);
    let topics = (0..TOPICS).map(|topic| name(topic * step % filters, "temperature")).collect();
    (table, topics)
}

fn nanoseconds(table: &Router<u32>, topics: &[String], routings: usize) -> Result<f64> {
    let (mut found, mut wanted) = (Vec::new(), 0);
    let begun = Instant::now();
    for topic in topics.iter().cycle().take(routings) {
        found.clear();
        table.route(black_box(topic), &mut found);
        wanted += black_box(&found).len();
    }
    let took = begun.elapsed();
    ensure!(wanted == routings, "{wanted} functions for {routings} topics");
    Ok(took.as_nanos() as f64 / routings as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_wanted_once() {
        for (filters, depth) in [(1, 4), (100, 4), (10_000, 2), (10_000, 16)] {
            let (table, topics) = plant(filters, depth);
            assert!(nanoseconds(&table, &topics, 2 * TOPICS).is_ok(), "{filters} filters, {depth} levels");
            assert!(topics.iter().all(|topic| topic.split('/').count() == depth), "{depth} levels");
        }
    }
}
