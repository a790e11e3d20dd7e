//! The function of the benchmark: what every peer does with an event is this.

use function_sdk::{Context, Json, PublishFlags, Result, ToBytes as _, function};
use serde::{Deserialize, Serialize};

/// What the sensor says.
#[derive(Deserialize)]
struct Reading {
    time: u64,
    fahrenheit: f64,
}

/// What is recorded, and published.
#[derive(Serialize)]
struct Converted<'a> {
    device: &'a str,
    time: u64,
    celsius: f64,
    alarm: bool,
}

#[function]
fn on_reading(Json(Reading { time, fahrenheit }): Json<Reading>, cx: &mut Context) -> Result {
    let device = cx.event().topic.split('/').nth(1).unwrap_or_default();
    let alarm = fahrenheit > cx.config::<f64>("limit")?;
    let converted = Json(Converted { device, time, celsius: celsius(fahrenheit), alarm });
    // Written once, as the peers do.
    let converted = converted.to_bytes()?;
    if cx.config("publish")? {
        cx.publish_with(&format!("results/{device}"), &*converted, PublishFlags { qos: 1, retain: false })?;
    }
    cx.emit("readings", &*converted)
}

fn celsius(fahrenheit: f64) -> f64 {
    ((fahrenheit - 32.0) / 1.8 * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::Gateway;

    use super::*;

    #[test]
    fn a_reading_is_converted_compared_and_recorded() {
        let mut gateway = Gateway::new(on_reading_handler).manifest(include_str!("../function.toml"));
        let run = gateway.event("d", "sensors/s1/temperature", r#"{"time":7,"fahrenheit":98.6}"#).expect_ok();
        assert_eq!(run.emitted[0].text(), r#"{"device":"s1","time":7,"celsius":37.0,"alarm":true}"#);
        assert!(run.published.is_empty());

        let mut gateway = gateway.config("publish", true);
        let run = gateway.event("d", "sensors/s1/temperature", r#"{"time":8,"fahrenheit":32}"#).expect_ok();
        assert_eq!(run.emitted[0].text(), r#"{"device":"s1","time":8,"celsius":0.0,"alarm":false}"#);
        assert_eq!((run.published[0].topic.as_str(), run.published[0].text()), ("results/s1", run.emitted[0].text()));
    }
}
