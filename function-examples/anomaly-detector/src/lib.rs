#![doc = include_str!("../README.md")]

mod detector;
mod time;

use function_sdk::{Context, Error, Fields, Json, Result, function};
use serde::Serialize;

pub use detector::{Anomaly, Detector, Settings, Test};
use time::seconds_of;

/// Largest value: beyond it the squares that are learned would overflow long before anything real does.
const MAX_VALUE: f64 = 1e100;

#[derive(Serialize)]
struct Report<'a> {
    device: &'a str,
    time: &'a str,
    field: &'a str,
    value: f64,
    expected: f64,
    test: Test,
    score: f64,
}

/// Takes one reading of a sensor.
///
/// # Errors
/// The payload has no such number, or the configuration is out of range.
#[function]
pub fn on_reading(reading: Fields<'_>, cx: &mut Context) -> Result {
    let settings =
        Settings { sensitivity: cx.config("sensitivity")?, learn: cx.config("learn")?, quiet: cx.config("quiet")? };
    if !(0.1..=10.0).contains(&settings.sensitivity) {
        return Err(Error::new(format!("sensitivity is {}; allowed is 0.1 to 10", settings.sensitivity)));
    }
    let field: String = cx.config("field")?;
    let (time, value) = (reading.text("time")?, reading.number(&field)?);
    if value.abs() > MAX_VALUE {
        return Err(Error::new(format!("{field} is {value:e}; allowed is up to {MAX_VALUE:e}")));
    }
    let event = cx.event();
    let seconds = seconds_of(time).unwrap_or((event.time_us / 1_000_000) as i64);

    let mut detector: Detector = cx.state("detector")?.unwrap_or_default();
    let anomaly = detector.step(seconds, value, &settings);
    cx.set_state("detector", &detector)?;
    if let Some(Anomaly { expected, test, score }) = anomaly {
        let report = Report { device: event.device, time, field: &field, value, expected, test, score };
        cx.emit_urgent("anomalies", &Json(report))?;
    }
    Ok(())
}
