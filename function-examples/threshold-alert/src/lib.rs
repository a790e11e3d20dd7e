#![doc = include_str!("../README.md")]

use function_sdk::{Context, Error, Fields, Json, Result, function};
use serde::Serialize;

/// A change of state.
#[derive(Serialize)]
struct Alert<'a> {
    device: &'a str,
    time: &'a str,
    state: &'a str,
    field: &'a str,
    value: f64,
    unit: &'a str,
    limit: f64,
}

#[function]
fn on_reading(reading: Fields<'_>, cx: &mut Context) -> Result {
    let (field, unit) = (cx.config::<String>("field")?, cx.config::<String>("unit")?);
    let (high, low) = (cx.config::<f64>("high")?, cx.config::<f64>("low")?);
    if low > high {
        return Err(Error::new(format!("the configuration has low = {low} above high = {high}")));
    }
    let (time, value) = (reading.text("time")?, reading.number(&field)?);

    let raised: bool = cx.state("raised")?.unwrap_or(false);
    let (state, limit) = match raised {
        false if value > high => ("raised", high),
        true if value < low => ("cleared", low),
        _ => return Ok(()),
    };
    cx.set_state("raised", &!raised)?;
    let device = cx.event().device;
    cx.emit_urgent("alerts", &Json(Alert { device, time, state, field: &field, value, unit: &unit, limit }))
}

#[cfg(test)]
mod tests {
    use function_sdk::Priority;
    use function_sdk::testing::Gateway;

    use super::*;

    const TOPIC: &str = "sensors/s1/temperature";

    fn gateway() -> Gateway {
        Gateway::new(on_reading_handler).manifest(include_str!("../function.toml"))
    }

    fn alerts(gateway: &mut Gateway, device: &str, values: &[f64]) -> Vec<String> {
        let mut alerts = Vec::new();
        for value in values {
            let payload = format!(r#"{{"time":"t","fahrenheit":{value}}}"#);
            let run = gateway.event(device, TOPIC, payload).expect_ok();
            alerts.extend(run.emitted.iter().map(|alert| {
                assert_eq!((alert.stream.as_str(), alert.priority), ("alerts", Priority::High));
                alert.text().to_owned()
            }));
        }
        alerts
    }

    #[test]
    fn one_alert_is_raised_and_cleared_however_the_value_trembles() {
        let found = alerts(&mut gateway(), "s1", &[79.0, 80.0, 80.5, 79.0, 81.0, 77.0, 80.1, 76.9, 76.0, 79.9]);
        assert_eq!(
            found,
            [
                r#"{"device":"s1","time":"t","state":"raised","field":"fahrenheit","value":80.5,"unit":"°F","limit":80.0}"#,
                r#"{"device":"s1","time":"t","state":"cleared","field":"fahrenheit","value":76.9,"unit":"°F","limit":77.0}"#
            ]
        );
    }

    #[test]
    fn each_device_has_its_own_alert() {
        let mut gateway = gateway();
        assert_eq!(alerts(&mut gateway, "s1", &[90.0, 91.0]).len(), 1);
        assert_eq!(alerts(&mut gateway, "s2", &[90.0]).len(), 1);
    }

    #[test]
    fn another_field_and_unit_are_a_matter_of_configuration() {
        let mut gateway = gateway().config("field", "bar").config("unit", "bar").config("high", 6).config("low", 5.5);
        let run = gateway.event("p1", TOPIC, r#"{"time":"t","bar":6.25,"fahrenheit":200}"#).expect_ok();
        assert!(run.emitted[0].text().contains(r#""field":"bar","value":6.25,"unit":"bar","limit":6.0"#));
        let run = gateway.event("p1", TOPIC, r#"{"time":"t","fahrenheit":200}"#);
        assert_eq!(run.result.unwrap_err(), "the payload has no number \"bar\"; it has: time, fahrenheit");
    }

    #[test]
    fn thresholds_in_the_wrong_order_are_refused() {
        let run = gateway().config("low", 90).event("s1", TOPIC, r#"{"time":"t","fahrenheit":1}"#);
        assert_eq!(run.result.unwrap_err(), "the configuration has low = 90 above high = 80");
    }
}
