//! What a plug-in is given of an event.

use std::borrow::Cow;
use std::fmt::Write as _;

use agent_core::Event;

use super::ExtismInput;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes of the input.
pub(crate) fn of(event: &Event, input: ExtismInput) -> Cow<'_, [u8]> {
    match input {
        ExtismInput::Payload => Cow::Borrowed(&event.payload),
        ExtismInput::Event => Cow::Owned(json(event).into_bytes()),
    }
}

/// The whole event: `payload` if it is UTF-8, else `payload_base64` (RFC 4648, section 4).
fn json(event: &Event) -> String {
    let mut out = format!("{{\"kind\":{},\"time_us\":{}", event.kind as u32, event.time_us);
    match &event.identity {
        // Writing to a text does not fail.
        Some(identity) => {
            let _ = write!(out, ",\"identity\":{{\"boot\":{},\"sequence\":{}}}", identity.boot, identity.sequence);
        }
        None => out.push_str(",\"identity\":null"),
    }
    text(&mut out, "device", &event.device);
    text(&mut out, "topic", &event.topic);
    match std::str::from_utf8(&event.payload) {
        Ok(payload) => text(&mut out, "payload", payload),
        Err(_) => text(&mut out, "payload_base64", &base64(&event.payload)),
    }
    out.push('}');
    out
}

/// A field that is a text (RFC 8259, section 7).
fn text(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, ",\"{name}\":\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let six = number >> (18 - 6 * at) & 63;
            out.push(if at <= three.len() { char::from(BASE64[six as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use agent_core::Identity;
    use function_abi::EventKind;

    use super::*;

    fn event(payload: &[u8], identity: Option<Identity>) -> Event {
        Event {
            kind: EventKind::Mqtt,
            device: "d\"1\n".into(),
            topic: "a/ä\\".into(),
            payload: payload.into(),
            identity,
            time_us: 7,
        }
    }

    #[test]
    fn an_event_is_an_object_of_all_that_it_has() {
        let identity = Some(Identity { source: "d".into(), boot: u64::MAX, sequence: 1 });
        assert_eq!(
            json(&event(b"{\"a\":1}\x7f", identity)),
            "{\"kind\":0,\"time_us\":7,\"identity\":{\"boot\":18446744073709551615,\"sequence\":1},\
             \"device\":\"d\\\"1\\u000a\",\"topic\":\"a/ä\\\\\",\"payload\":\"{\\\"a\\\":1}\x7f\"}"
        );
        let binary = json(&event(&[0xff, 0xfe], None));
        assert!(binary.contains("\"identity\":null") && binary.ends_with(",\"payload_base64\":\"//4=\"}"), "{binary}");
    }

    /// The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
