#![doc = include_str!("../README.md")]

use function_sdk::{Context, Event, EventKind, Json, Request, Result, function};
use serde::Serialize;
use serde_json::value::RawValue;

/// What the webhook is told.
#[derive(Serialize)]
struct Told<'a> {
    device: &'a str,
    topic: &'a str,
    time_us: u64,
    alert: Alert<'a>,
}

/// A payload.
#[derive(Serialize)]
#[serde(untagged)]
enum Alert<'a> {
    Json(&'a RawValue),
    Text(String),
}

/// What is said of an alert that the webhook does not know of.
#[derive(Serialize)]
struct Failure<'a> {
    device: &'a str,
    topic: &'a str,
    status: Option<u16>,
    error: Option<&'a str>,
    attempts: u32,
}

#[function]
fn on_event(event: Event<'_>, cx: &mut Context) -> Result {
    match event.kind {
        EventKind::Answer => answered(event, cx),
        _ => tell(event, cx),
    }
}

fn tell(event: Event<'_>, cx: &mut Context) -> Result {
    let (url, tries) = (cx.config::<String>("url")?, cx.config::<u32>("tries")?);
    let alert = match serde_json::from_slice(event.payload) {
        Ok(json) => Alert::Json(json),
        Err(_) => Alert::Text(String::from_utf8_lossy(event.payload).into_owned()),
    };
    let told = Told { device: event.device, topic: event.topic, time_us: event.time_us, alert };
    // The tag says which alert the answer is about; it has no room for more of a long topic.
    let tag = &event.topic[..event.topic.floor_char_boundary(1_024)];
    cx.request(Request::new(url).json(&told)?.tries(tries).tag(tag));
    Ok(())
}

fn answered(event: Event<'_>, cx: &mut Context) -> Result {
    let number = |name: &str| event.attribute(name).and_then(|value| value.parse().ok());
    let (status, error) = (number("status"), event.attribute("error"));
    if error.is_none() && status.is_some_and(|status| (200..300).contains(&status)) {
        return Ok(());
    }
    let attempts = event.attribute("attempts").and_then(|value| value.parse().ok()).unwrap_or(0);
    let topic = event.attribute("tag").unwrap_or_default();
    cx.emit_urgent("webhook-failures", &Json(Failure { device: event.device, topic, status, error, attempts }))
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::Gateway;

    use super::*;

    const URL: &str = "https://hooks.example.org/alerts";

    fn gateway() -> Gateway {
        Gateway::new(on_event_handler).manifest(include_str!("../function.toml"))
    }

    #[test]
    fn every_alert_is_posted_whatever_it_is() {
        let mut gateway = gateway().config("tries", 3);
        for (payload, alert) in [(r#"{"a": 1}"#, r#"{"a": 1}"#), ("too \"hot\"", r#""too \"hot\"""#)] {
            let run = gateway.event("d", "alerts/kitchen", payload).expect_ok();
            let [request] = &run.requested[..] else { panic!("{run:?}") };
            let body = String::from_utf8(request.body.clone()).unwrap();
            assert!(body.starts_with(r#"{"device":"d","topic":"alerts/kitchen","time_us":17"#), "{body}");
            assert!(body.ends_with(&format!(r#","alert":{alert}}}"#)), "{body}");
            assert_eq!(request.url, URL);
            let said = ["method", "header.content-type", "tries", "tag"].map(|name| request.get(name));
            assert_eq!(said, [None, Some("application/json"), Some("3"), Some("alerts/kitchen")]);
        }
    }

    #[test]
    fn only_what_failed_for_good_is_told_to_the_cloud() {
        let mut gateway = gateway();
        let mut failure = |attributes: &[(&str, &str)]| {
            let run = gateway.answer("d", URL, &[attributes, &[("tag", "alerts/a")]].concat(), "").expect_ok();
            run.emitted.first().map(|record| record.text().to_owned())
        };
        assert_eq!(failure(&[("status", "204")]), None);
        assert_eq!(
            failure(&[("status", "404")]).unwrap(),
            r#"{"device":"d","topic":"alerts/a","status":404,"error":null,"attempts":1}"#
        );
        assert_eq!(
            failure(&[("error", "gave up"), ("attempts", "10")]).unwrap(),
            r#"{"device":"d","topic":"alerts/a","status":null,"error":"gave up","attempts":10}"#
        );
    }

    #[test]
    fn another_host_must_be_allowed() {
        let run = gateway().config("url", "https://evil.example/").event("d", "alerts/a", "x");
        assert!(run.result.unwrap_err().contains("name it in function.toml under [allow] hosts"));
    }
}
