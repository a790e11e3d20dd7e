//! Which functions want an event.

use agent_core::Filter;
use agent_core::router::Router;
use divan::{Bencher, black_box};

/// A quarter of the filters have a wildcard, the topic is wanted once.
#[divan::bench(args = [1, 100, 10_000, 100_000])]
fn route(bencher: Bencher, filters: u32) {
    let mut table = Router::default();
    for number in 0..filters {
        let last = if number.is_multiple_of(4) { "+" } else { "temperature" };
        let filter = format!("line-{}/machine-{}/sensor-{number}/{last}", number % 50, number % 40);
        table.insert(&Filter::new(&filter).expect("a filter"), number);
    }
    let middle = filters / 2;
    let topic = format!("line-{}/machine-{}/sensor-{middle}/temperature", middle % 50, middle % 40);
    let mut found = Vec::new();
    bencher.bench_local(|| {
        found.clear();
        table.route(black_box(&topic), &mut found);
        assert_eq!(found.len(), 1);
    });
}

/// The plan with all filters, as a deployment builds it anew.
#[divan::bench(args = [100, 10_000], sample_count = 20)]
fn build(bencher: Bencher, filters: u32) {
    let filters: Vec<Filter> = (0..filters)
        .map(|number| Filter::new(&format!("line-{}/machine-{number}/+", number % 50)).expect("a filter"))
        .collect();
    bencher.bench_local(|| {
        let mut table = Router::default();
        for (number, filter) in (0..).zip(&filters) {
            table.insert(filter, number);
        }
        table
    });
}
