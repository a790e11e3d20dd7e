//! All that is counted, as a page for Prometheus (text format 0.0.4,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! What functions count and observe stands in two families, under the function's and the metric's own names as labels: so
//! neither has to be made a name of Prometheus, which could then be that of another one.

use std::fmt::Write as _;

use agent_broker::Stats;
use agent_store::{StreamUsage, Sums};
use sync_protocol::usage::{Counts, Part};

use crate::counters::Counters;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What stands on the page beside [`Counters`] and [`Sums`].
pub(super) struct Numbers<'a> {
    pub(super) uptime_s: u64,
    pub(super) in_flight: usize,
    pub(super) link_bytes: u64,
    pub(super) dead_letters: u64,
    pub(super) messages: u64,
    pub(super) streams: &'a [StreamUsage],
    pub(super) broker: Option<Stats>,
}

/// The page.
pub(super) fn page(counters: &Counters, numbers: &Numbers<'_>, totals: &Sums) -> String {
    let mut page = Page::default();
    page.agent(counters, numbers);
    if let Some(stats) = &numbers.broker {
        page.broker(stats);
    }
    page.functions(totals.parts());
    page.0
}

#[derive(Default)]
struct Page(String);

/// What a function's counts have for a family.
type Value = fn(&Counts) -> f64;

#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Page {
    /// A family begins: its lines follow at once.
    fn family(&mut self, name: &str, of: Type, help: &str) {
        let of = match of {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {of}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut text = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{label}=\"{}\"", if index == 0 { "" } else { "," }, escaped(value));
        }
        let text = if labels.is_empty() { text } else { format!("{{{text}}}") };
        self.line(format_args!("{name}{text} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A String takes what it is given.
        let _ = writeln!(self.0, "{line}");
    }

    fn single(&mut self, name: &str, of: Type, help: &str, value: u64) {
        self.family(name, of, help);
        self.sample(name, &[], value as f64);
    }

    fn agent(&mut self, counters: &Counters, numbers: &Numbers<'_>) {
        self.family("edge_agent_info", Type::Gauge, "The agent's version.");
        self.sample("edge_agent_info", &[("version", crate::link::AGENT_VERSION)], 1.0);
        let gauges = [
            ("edge_agent_uptime_seconds", "Time since the agent started.", numbers.uptime_s),
            ("edge_events_in_flight", "Events that are received and not on disk.", numbers.in_flight as u64),
            ("edge_dead_letters", "Events in the dead letters.", numbers.dead_letters),
            ("edge_messages_waiting", "Events that wait for functions as messages.", numbers.messages),
            ("edge_link_month_bytes", "Bytes over the link in this month (UTC).", numbers.link_bytes),
        ];
        for (name, help, value) in gauges {
            self.single(name, Type::Gauge, help, value);
        }
        let counts = [
            ("edge_events_received_total", "Events that came in.", &counters.received),
            ("edge_events_committed_total", "Events that are on disk with all effects.", &counters.committed),
            ("edge_runs_handled_total", "Runs whose effects are on disk.", &counters.handled),
            ("edge_runs_duplicate_total", "Runs left out for events handled before.", &counters.duplicates),
            ("edge_runs_dead_total", "Events that went to the dead letters.", &counters.dead),
            ("edge_runs_retried_total", "Runs that failed and are tried again.", &counters.retried),
            ("edge_events_unmatched_total", "Events that no function wanted.", &counters.unmatched),
            ("edge_events_unidentified_total", "Events without the identity they should have.", &counters.unidentified),
            ("edge_records_delivered_total", "Records the control plane confirmed.", &counters.delivered),
            ("edge_store_resets_total", "Commits that failed.", &counters.resets),
            ("edge_sync_alarms_total", "Answers that contradicted what is known.", &counters.alarms),
        ];
        for (name, help, counter) in counts {
            self.single(name, Type::Counter, help, counter.get());
        }
        for (name, help, of) in [
            (
                "edge_records_waiting",
                "Records that wait for the control plane.",
                stream_records as fn(&StreamUsage) -> u64,
            ),
            ("edge_records_waiting_bytes", "Bytes of records that wait.", stream_bytes),
        ] {
            self.family(name, Type::Gauge, help);
            for stream in numbers.streams {
                self.sample(name, &[("stream", &stream.name)], of(stream) as f64);
            }
        }
    }

    fn broker(&mut self, stats: &Stats) {
        let gauges = [
            ("edge_broker_connections", "Connections of devices.", stats.connections),
            ("edge_broker_sessions", "Sessions of devices.", stats.sessions),
            ("edge_broker_retained", "Retained messages.", stats.retained),
        ];
        for (name, help, value) in gauges {
            self.single(name, Type::Gauge, help, value);
        }
        let counts = [
            ("edge_broker_publishes_total", "Messages that devices published.", stats.publishes_in),
            ("edge_broker_acknowledged_total", "Messages that were acknowledged.", stats.acks_out),
            ("edge_broker_delivered_total", "Messages that were sent to subscribers.", stats.delivered),
            ("edge_broker_dropped_total", "Messages that were dropped for a subscriber.", stats.dropped),
            ("edge_broker_refused_total", "Connections that were refused.", stats.refused),
            ("edge_broker_denied_total", "What a rule denied.", stats.denied),
            ("edge_broker_turned_away_total", "Connections there was no room for.", stats.turned_away),
        ];
        for (name, help, value) in counts {
            self.single(name, Type::Counter, help, value);
        }
    }

    fn functions(&mut self, parts: &[Part]) {
        let sums: Vec<(&str, Counts)> = parts
            .iter()
            .map(|part| {
                let mut sum = Counts::default();
                part.devices.values().for_each(|counts| sum.add(counts));
                (part.function.as_str(), sum)
            })
            .collect();
        let families: [(&str, Type, &str, Value); 7] = [
            ("edge_function_invocations_total", Type::Counter, "Runs.", |of| of.invocations as f64),
            ("edge_function_failures_total", Type::Counter, "Runs that failed or were ended.", |of| of.failed as f64),
            ("edge_function_fuel_total", Type::Counter, "Units of fuel.", |of| of.fuel as f64),
            ("edge_function_busy_seconds_total", Type::Counter, "Time spent on runs.", |of| of.busy_ns as f64 / 1e9),
            ("edge_function_memory_peak_bytes", Type::Gauge, "Most memory of one run.", |of| {
                of.memory_peak_bytes as f64
            }),
            ("edge_function_bytes_in_total", Type::Counter, "Bytes of payloads and attributes.", |of| {
                of.bytes_in as f64
            }),
            ("edge_function_bytes_out_total", Type::Counter, "Bytes of effects.", |of| of.bytes_out as f64),
        ];
        for (name, of, help, value) in families {
            self.family(name, of, help);
            for (function, sum) in &sums {
                self.sample(name, &[("function", function)], value(sum));
            }
        }
        let name = "edge_function_counter_total";
        self.family(name, Type::Counter, "What functions count.");
        for part in parts {
            for (counter, value) in &part.counters {
                self.sample(name, &[("function", &part.function), ("name", counter)], *value);
            }
        }
        self.family("edge_function_observed", Type::Histogram, "What functions observe.");
        for part in parts {
            for (observed, values) in &part.histograms {
                let labels = [("function", part.function.as_str()), ("name", observed.as_str())];
                for (bound, count) in values.octaves() {
                    let [function, name] = labels;
                    let bound = bound.to_string();
                    self.sample("edge_function_observed_bucket", &[function, name, ("le", &bound)], count as f64);
                }
                let [function, name] = labels;
                let count = values.count() as f64;
                self.sample("edge_function_observed_bucket", &[function, name, ("le", "+Inf")], count);
                self.sample("edge_function_observed_sum", &labels, values.sum());
                self.sample("edge_function_observed_count", &labels, count);
            }
        }
    }
}

fn stream_records(stream: &StreamUsage) -> u64 {
    stream.records
}

fn stream_bytes(stream: &StreamUsage) -> u64 {
    stream.bytes
}

/// A label's value: a backslash, a quote and the end of a line are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sync_protocol::usage::Histogram;

    use super::*;

    fn parts() -> Vec<Part> {
        let mut celsius = Histogram::of(-3.0).unwrap();
        for value in [0.5, 3.0, 3.5, 40.0] {
            celsius.merge(&Histogram::of(value).unwrap());
        }
        let counts = Counts { invocations: 3, failed: 1, busy_ns: 2_500_000_000, ..Counts::default() };
        vec![Part {
            hour: 0,
            function: "mean".into(),
            devices: [(String::new(), counts)].into(),
            counters: [("odd\"name\\\n".into(), 1.5)].into(),
            histograms: [("celsius".into(), celsius)].into(),
        }]
    }

    #[test]
    fn every_line_is_of_the_family_above_it() {
        let mut page = Page::default();
        let numbers = Numbers {
            uptime_s: 1,
            in_flight: 2,
            link_bytes: 3,
            dead_letters: 4,
            messages: 5,
            streams: &[StreamUsage { name: "temp".into(), records: 7, bytes: 8 }],
            broker: None,
        };
        page.agent(&Counters::default(), &numbers);
        page.broker(&Stats::default());
        page.functions(&parts());
        let (mut family, mut families) = (String::new(), BTreeSet::new());
        for line in page.0.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} comes twice");
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, of) = of.split_once(' ').unwrap();
                assert_eq!((name, name.ends_with("_total")), (family.as_str(), of == "counter"));
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} in {family}"));
                assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            }
        }
    }

    #[test]
    fn functions_are_shown_with_what_they_measure() {
        let mut page = Page::default();
        page.functions(&parts());
        for line in [
            "edge_function_invocations_total{function=\"mean\"} 3",
            "edge_function_failures_total{function=\"mean\"} 1",
            "edge_function_busy_seconds_total{function=\"mean\"} 2.5",
            r#"edge_function_counter_total{function="mean",name="odd\"name\\\n"} 1.5"#,
            "edge_function_observed_bucket{function=\"mean\",name=\"celsius\",le=\"0.5\"} 2",
            "edge_function_observed_bucket{function=\"mean\",name=\"celsius\",le=\"4\"} 4",
            "edge_function_observed_bucket{function=\"mean\",name=\"celsius\",le=\"64\"} 5",
            "edge_function_observed_bucket{function=\"mean\",name=\"celsius\",le=\"+Inf\"} 5",
            "edge_function_observed_sum{function=\"mean\",name=\"celsius\"} 44",
            "edge_function_observed_count{function=\"mean\",name=\"celsius\"} 5",
        ] {
            assert!(page.0.lines().any(|found| found == line), "{line}\n{}", page.0);
        }
    }
}
