//! The real sensor file, through the function as a gateway calls it.

use anomaly_detector::on_reading_handler;
use function_sdk::Priority;
use function_sdk::testing::Gateway;

const READINGS: &str = include_str!("../../../tests/data/ambient_temperature_system_failure.csv");
const WINDOWS: &str = include_str!("../../../tests/data/ambient_temperature_system_failure.windows.json");

#[allow(dead_code, reason = "shown when the test fails")]
#[derive(serde::Deserialize, Debug)]
struct Report {
    device: String,
    time: String,
    test: String,
    score: f64,
}

#[test]
fn both_labelled_windows_are_hit_with_few_reports_elsewhere() {
    judge(|fahrenheit| fahrenheit);
}

#[test]
fn the_unit_does_not_matter() {
    judge(|fahrenheit| 1e6 * (fahrenheit - 32.0) / 1.8);
}

fn judge(unit: fn(f64) -> f64) {
    let mut gateway = Gateway::new(on_reading_handler).manifest(include_str!("../function.toml"));
    let mut reports: Vec<Report> = Vec::new();
    let mut count = 0;
    for line in READINGS.lines().skip(1) {
        let (time, value) = line.split_once(',').unwrap();
        let value = unit(value.parse().unwrap());
        let payload = format!(r#"{{"time":"{time}","fahrenheit":{value}}}"#);
        let run = gateway.event("office", "sensors/office/temperature", payload).expect_ok();
        reports.extend(run.emitted.iter().map(|record| {
            assert_eq!((record.stream.as_str(), record.priority), ("anomalies", Priority::High));
            record.json::<Report>()
        }));
        count += 1;
    }
    assert_eq!(count, 7267);
    assert!(reports.iter().all(|report| report.device == "office" && report.score >= 1.0));

    // Times of one form are in order as texts.
    let windows: Vec<(String, String)> = serde_json::from_str(WINDOWS).unwrap();
    let within = |report: &&Report, (from, to): &(String, String)| *from <= report.time && report.time <= *to;
    let hits: Vec<usize> =
        windows.iter().map(|window| reports.iter().filter(|report| within(report, window)).count()).collect();
    let elsewhere: Vec<&Report> =
        reports.iter().filter(|report| !windows.iter().any(|window| within(report, window))).collect();
    assert!(hits.iter().all(|hits| (1..=3).contains(hits)), "{reports:#?}");
    assert!(elsewhere.len() <= 5, "{elsewhere:#?}"); // 0.7 in 1,000
}
