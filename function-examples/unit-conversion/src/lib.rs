#![doc = include_str!("../README.md")]

use function_sdk::{Context, Json, PublishFlags, Result, function};
use serde::{Deserialize, Serialize};

/// What the sensor says.
#[derive(Deserialize)]
struct Reading {
    time: String,
    fahrenheit: f64,
}

/// What goes to local subscribers.
#[derive(Serialize)]
struct Converted<'a> {
    time: &'a str,
    celsius: f64,
}

/// What goes to the cloud: there the topic is not seen, so it names the device.
#[derive(Serialize)]
struct Record<'a> {
    device: &'a str,
    time: &'a str,
    celsius: f64,
}

#[function]
fn on_reading(reading: Json<Reading>, cx: &mut Context) -> Result {
    let (device, time, celsius) = (cx.event().device, &reading.time, celsius(reading.fahrenheit));
    let latest = PublishFlags { qos: 1, retain: true };
    cx.publish_with(&format!("celsius/{device}"), &Json(Converted { time, celsius }), latest)?;
    cx.emit("temperature", &Json(Record { device, time, celsius }))
}

fn celsius(fahrenheit: f64) -> f64 {
    ((fahrenheit - 32.0) / 1.8 * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::Gateway;

    use super::*;

    fn gateway() -> Gateway {
        Gateway::new(on_reading_handler).manifest(include_str!("../function.toml"))
    }

    #[test]
    fn a_reading_is_converted_published_and_emitted() {
        let payload = r#"{"time":"2013-07-04 00:00:00","fahrenheit":69.88083514,"battery":3.1}"#;
        let run = gateway().event("s1", "sensors/s1/temperature", payload).expect_ok();
        assert_eq!(run.published[0].topic, "celsius/s1");
        assert_eq!(run.published[0].text(), r#"{"time":"2013-07-04 00:00:00","celsius":21.0449}"#);
        assert!(run.published[0].flags.retain);
        assert_eq!(run.emitted[0].stream, "temperature");
        assert_eq!(run.emitted[0].text(), r#"{"device":"s1","time":"2013-07-04 00:00:00","celsius":21.0449}"#);
    }

    #[test]
    fn the_fixed_points_of_the_scales_are_right() {
        assert_eq!([32.0, 212.0, -40.0].map(celsius), [0.0, 100.0, -40.0]);
    }

    #[test]
    fn another_payload_is_refused_and_shown() {
        let run = gateway().event("s1", "sensors/s1/temperature", r#"{"time":"12:00","celsius":21}"#);
        assert!(run.result.unwrap_err().contains("missing field `fahrenheit`"));
        assert!(run.published.is_empty() && run.emitted.is_empty());
    }
}
