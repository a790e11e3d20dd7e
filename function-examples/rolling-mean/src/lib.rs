#![doc = include_str!("../README.md")]

use std::collections::VecDeque;

use function_sdk::{Context, Error, Fields, Json, Result, function};
use serde::{Deserialize, Serialize};

/// Most readings in a window: with times of [`MAX_TIME_BYTES`] they still fit in one state value of 64 KiB.
const MAX_WINDOW: usize = 500;

/// Longest text that is taken as a time.
const MAX_TIME_BYTES: usize = 64;

/// What lasts between two readings.
#[derive(Default, Serialize, Deserialize)]
struct Window {
    /// Oldest first.
    readings: VecDeque<(String, f64)>,
    /// Readings since the last record.
    since: u32,
}

/// What goes to the cloud.
#[derive(Serialize)]
struct Mean<'a> {
    device: &'a str,
    field: &'a str,
    from: &'a str,
    to: &'a str,
    count: usize,
    mean: f64,
    min: f64,
    max: f64,
}

#[function]
fn on_reading(reading: Fields<'_>, cx: &mut Context) -> Result {
    let field: String = cx.config("field")?;
    let (size, every) = (cx.config("window")?, cx.config("every")?);
    if !(1..=MAX_WINDOW).contains(&size) || !(1..=1_000_000).contains(&every) {
        return Err(Error::new(format!(
            "the configuration has window = {size} and every = {every}; allowed are 1 to {MAX_WINDOW} and 1 to 1000000"
        )));
    }
    let (time, value) = (reading.text("time")?, reading.number(&field)?);
    if time.len() > MAX_TIME_BYTES {
        return Err(Error::new(format!("the time has {} bytes; allowed are {MAX_TIME_BYTES}", time.len())));
    }

    let mut window: Window = cx.state("window")?.unwrap_or_default();
    window.readings.push_back((time.to_owned(), value));
    // More than one too many after the window was made smaller.
    window.readings.drain(..window.readings.len().saturating_sub(size));
    window.since += 1;
    if window.since >= every {
        window.since = 0;
        let mean = window.mean(cx.event().device, &field);
        cx.emit("means", &Json(mean))?;
    }
    cx.set_state("window", &window)
}

impl Window {
    fn mean<'a>(&'a self, device: &'a str, field: &'a str) -> Mean<'a> {
        let time = |reading: Option<&'a (String, f64)>| reading.map_or("", |(time, _)| time);
        let values = || self.readings.iter().map(|(_, value)| *value);
        let count = self.readings.len();
        Mean {
            device,
            field,
            from: time(self.readings.front()),
            to: time(self.readings.back()),
            count,
            mean: values().sum::<f64>() / count as f64,
            min: values().fold(f64::INFINITY, f64::min),
            max: values().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::Gateway;

    use super::*;

    const TOPIC: &str = "sensors/s1/temperature";

    fn gateway(window: usize, every: usize) -> Gateway {
        let manifest = include_str!("../function.toml");
        Gateway::new(on_reading_handler).manifest(manifest).config("window", window).config("every", every)
    }

    fn send(gateway: &mut Gateway, device: &str, n: u32) -> Vec<String> {
        let payload = format!(r#"{{"time":"{n:02}","fahrenheit":{n}}}"#);
        let run = gateway.event(device, TOPIC, payload).expect_ok();
        run.emitted.iter().map(|mean| mean.text().to_owned()).collect()
    }

    #[test]
    fn one_record_in_every_few_readings_covers_the_window() {
        let mut gateway = gateway(4, 3);
        let records: Vec<_> = (1..=9).flat_map(|n| send(&mut gateway, "s1", n)).collect();
        let tail = |count, from, to, mean: &str, min, max| {
            format!(
                r#"{{"device":"s1","field":"fahrenheit","from":"{from}","to":"{to}","count":{count},"mean":{mean},"min":{min},"max":{max}}}"#
            )
        };
        assert_eq!(
            records,
            [
                tail(3, "01", "03", "2.0", "1.0", "3.0"),
                tail(4, "03", "06", "4.5", "3.0", "6.0"),
                tail(4, "06", "09", "7.5", "6.0", "9.0")
            ]
        );
    }

    #[test]
    fn devices_do_not_mix() {
        let mut gateway = gateway(10, 2);
        assert!(send(&mut gateway, "s1", 1).is_empty() && send(&mut gateway, "s2", 100).is_empty());
        assert!(send(&mut gateway, "s1", 3)[0].contains(r#""mean":2.0"#));
    }

    #[test]
    fn the_largest_window_fits_in_the_state() {
        let mut gateway = gateway(MAX_WINDOW, MAX_WINDOW);
        let payload = format!(r#"{{"time":"{}","fahrenheit":1}}"#, "x".repeat(MAX_TIME_BYTES));
        let emitted: usize =
            (0..2 * MAX_WINDOW).map(|_| gateway.event("s1", TOPIC, &payload).expect_ok().emitted.len()).sum();
        assert_eq!(emitted, 2);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let run = gateway(0, 1).event("s1", TOPIC, r#"{"time":"t","fahrenheit":1}"#);
        assert!(run.result.unwrap_err().contains("window = 0"));
        let long = format!(r#"{{"time":"{}","fahrenheit":1}}"#, "x".repeat(65));
        assert!(gateway(1, 1).event("s1", TOPIC, long).result.unwrap_err().contains("65 bytes"));
    }
}
