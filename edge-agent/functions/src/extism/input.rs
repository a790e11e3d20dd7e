//! What a plug-in is given of an event.

use std::borrow::Cow;

use agent_core::Event;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_package::ExtismInput;
use serde::Serialize;

/// The whole event: `payload` if it is UTF-8, else `payload_base64` (RFC 4648, section 4).
#[derive(Serialize)]
struct Input<'a> {
    kind: u32,
    time_us: u64,
    identity: Option<Identity>,
    device: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    attributes: &'a [(String, String)],
}

#[derive(Serialize)]
struct Identity {
    boot: u64,
    sequence: u64,
}

/// The bytes of the input.
pub(crate) fn of(event: &Event, input: ExtismInput) -> Cow<'_, [u8]> {
    match input {
        ExtismInput::Payload => Cow::Borrowed(&event.payload),
        ExtismInput::Event => Cow::Owned(json(event)),
    }
}

fn json(event: &Event) -> Vec<u8> {
    let payload = std::str::from_utf8(&event.payload).ok();
    let input = Input {
        kind: event.kind as u32,
        time_us: event.time_us,
        identity: event.identity.as_ref().map(|of| Identity { boot: of.boot, sequence: of.sequence }),
        device: &event.device,
        topic: &event.topic,
        payload,
        payload_base64: payload.is_none().then(|| STANDARD.encode(&event.payload)),
        attributes: &event.attributes,
    };
    serde_json::to_vec(&input).expect("texts and numbers become JSON, and a Vec takes any number of bytes")
}

#[cfg(test)]
mod tests {
    use function_abi::EventKind;

    use super::*;

    fn event(payload: &[u8], identity: Option<agent_core::Identity>) -> String {
        let event = Event {
            identity,
            attributes: vec![("method".into(), "GET".into())],
            ..Event::new(EventKind::Http, "d\"1\n", "a/ä\\", payload, 7)
        };
        String::from_utf8(json(&event)).unwrap()
    }

    #[test]
    fn an_event_is_an_object_of_all_that_it_has() {
        let identity = Some(agent_core::Identity { source: "d".into(), boot: u64::MAX, sequence: 1 });
        assert_eq!(
            event(b"{\"a\":1}\x7f", identity),
            "{\"kind\":1,\"time_us\":7,\"identity\":{\"boot\":18446744073709551615,\"sequence\":1},\
             \"device\":\"d\\\"1\\n\",\"topic\":\"a/ä\\\\\",\"payload\":\"{\\\"a\\\":1}\x7f\",\
             \"attributes\":[[\"method\",\"GET\"]]}"
        );
        let binary = event(&[0xff, 0xfe], None);
        assert!(binary.contains("\"identity\":null") && binary.contains(",\"payload_base64\":\"//4=\","), "{binary}");
    }
}
