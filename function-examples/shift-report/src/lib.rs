#![doc = include_str!("../README.md")]

use function_sdk::{Context, Error, Event, EventKind, Fields, FromEvent, Json, Result, function};
use serde::{Deserialize, Serialize};

/// Most sensors that are told apart: with their names the report then still fits in one state value of 64 KiB.
const MAX_SENSORS: usize = 200;

/// Longest name of a sensor that is told apart.
const MAX_NAME_BYTES: usize = 128;

/// The name under which the others are counted.
const OTHERS: &str = "others";

#[derive(Default, Serialize, Deserialize)]
struct Report {
    sensors: Vec<Sensor>,
}

#[derive(Serialize, Deserialize)]
struct Sensor {
    device: String,
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
}

#[function]
fn on_event(event: Event<'_>, cx: &mut Context) -> Result {
    let mut report: Report = cx.state("report")?.unwrap_or_default();
    match event.kind {
        EventKind::Mqtt => {
            let field: String = cx.config("field")?;
            report.add(event.device, Fields::from_event(event)?.number(&field)?);
            cx.set_state("report", &report)
        }
        EventKind::Http => cx.respond_with(200, &[("content-type", "application/json")], &Json(&report)),
        EventKind::Schedule => {
            cx.emit("shifts", &Json(&report))?;
            cx.set_state("report", &Report::default())
        }
        other => Err(Error::new(format!("there is no trigger for an event of the kind {other:?}"))),
    }
}

impl Report {
    fn add(&mut self, device: &str, value: f64) {
        let known = self.sensors.iter().any(|sensor| sensor.device == device);
        let room = self.sensors.len() < MAX_SENSORS && device.len() <= MAX_NAME_BYTES;
        let name = if known || room { device } else { OTHERS };
        match self.sensors.iter_mut().find(|sensor| sensor.device == name) {
            Some(sensor) => {
                sensor.count += 1;
                sensor.min = sensor.min.min(value);
                sensor.max = sensor.max.max(value);
                sensor.mean += (value - sensor.mean) / sensor.count as f64;
            }
            None => {
                self.sensors.push(Sensor { device: name.to_owned(), count: 1, min: value, max: value, mean: value })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::Gateway;

    use super::*;

    fn gateway() -> Gateway {
        Gateway::new(on_event_handler).manifest(include_str!("../function.toml"))
    }

    fn read(gateway: &mut Gateway, device: &str, value: f64) {
        let payload = format!(r#"{{"fahrenheit": {value}}}"#);
        gateway.event(device, &format!("sensors/{device}/temperature"), payload).expect_ok();
    }

    #[test]
    fn the_report_is_there_on_request_and_emitted_at_the_end_of_the_shift() {
        let mut gateway = gateway();
        for (device, value) in [("s1", 70.0), ("s2", 50.0), ("s1", 71.0)] {
            read(&mut gateway, device, value);
        }
        let expected = r#"{"sensors":[{"device":"s1","count":2,"min":70.0,"max":71.0,"mean":70.5},{"device":"s2","count":1,"min":50.0,"max":50.0,"mean":50.0}]}"#;
        let response = gateway.request("GET", "/shift", "").expect_ok().response.unwrap();
        assert_eq!((response.status, str::from_utf8(&response.body).unwrap()), (200, expected));
        let run = gateway.moment("shift", 0).expect_ok();
        assert_eq!(run.emitted[0].text(), expected);
        let response = gateway.request("GET", "/shift", "").expect_ok().response.unwrap();
        assert_eq!(response.body, br#"{"sensors":[]}"#);
    }

    #[test]
    fn many_sensors_are_counted_together() {
        let mut gateway = gateway();
        for number in 0..MAX_SENSORS + 3 {
            read(&mut gateway, &format!("s{number}"), 1.0);
        }
        let report: Report = gateway.state("s0", "", "report").unwrap();
        let others = report.sensors.last().unwrap();
        assert_eq!((report.sensors.len(), others.device.as_str(), others.count), (MAX_SENSORS + 1, OTHERS, 3));
    }

    #[test]
    fn a_payload_without_the_field_is_refused() {
        let run = gateway().event("s1", "sensors/s1/temperature", r#"{"celsius": 1}"#);
        assert!(run.result.unwrap_err().contains("fahrenheit"));
    }
}
