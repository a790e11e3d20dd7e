//! `[extism]` in a manifest: what the call of an Extism plug-in means.

use crate::checked::{Table, one_of, parsed, text};
use crate::manifest::{Allow, parsed_text};
use crate::names::{check_filter, check_stream_name};

/// What the call of an Extism plug-in means: such a module knows neither events nor effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extism {
    /// The export that is called, of type `() -> i32` or `() -> ()`.
    pub function: String,
    /// What its input is.
    pub input: ExtismInput,
    /// The stream to which an output that is not empty is emitted, with normal priority.
    pub stream: Option<String>,
    /// The topic to which an output that is not empty is published, with QoS 1, not retained.
    pub topic: Option<String>,
}

/// What the input of a plug-in is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtismInput {
    /// The payload as it is.
    #[default]
    Payload,
    /// A JSON object of the whole event.
    Event,
}

impl Default for Extism {
    fn default() -> Self {
        Self { function: "handle".to_owned(), input: ExtismInput::default(), stream: None, topic: None }
    }
}

/// Reads the table.
pub(crate) fn extism(t: &mut Table<'_, '_>) -> Option<Extism> {
    let default = Extism::default();
    let function = t.optional("function", text(1..=256)).unwrap_or(default.function);
    let input = t
        .optional("input", one_of(&[("payload", ExtismInput::Payload), ("event", ExtismInput::Event)]))
        .unwrap_or(default.input);
    let stream = parsed_text("a stream such as \"alerts\"", check_stream_name);
    let topic = parsed("a topic such as \"alerts/line1\", without wildcards", topic);
    let extism = Extism { function, input, stream: t.optional("stream", stream), topic: t.optional("topic", topic) };
    if extism.stream.is_none() && extism.topic.is_none() {
        t.mistake("", "names neither a stream nor a topic, so the output would go nowhere");
    }
    Some(extism)
}

fn topic(text: &str) -> Result<String, String> {
    check_filter(text).map_err(|error| error.to_string())?;
    if text.contains(['+', '#']) { Err("has a wildcard".to_owned()) } else { Ok(text.to_owned()) }
}

/// What is wrong with the two together, if anything is.
pub(crate) fn not_allowed(extism: &Extism, allow: &Allow) -> Option<String> {
    let stream = extism.stream.as_ref().filter(|stream| !allow.stream(stream))?;
    Some(format!("emits to the stream {stream:?}, which is not under [allow] streams"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn manifest(extism: &str) -> Result<Option<Extism>, String> {
        let text = format!(
            "manifest = 1\nname = 'f'\nversion = '1.0.0'\n[[trigger]]\nmqtt = '#'\n[allow]\nstreams = ['out-*']\n{extism}"
        );
        Manifest::parse("f", &text).map(|manifest| manifest.extism).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_plug_in_says_what_its_call_means() {
        assert_eq!(manifest(""), Ok(None));
        let (stream, topic) = (Some("out-1".to_owned()), Some("a/b".to_owned()));
        let least = Extism { function: "handle".to_owned(), input: ExtismInput::Payload, stream, topic: None };
        assert_eq!(manifest("[extism]\nstream = 'out-1'"), Ok(Some(least.clone())));
        let all = "[extism]\nfunction = 'run'\ninput = 'event'\nstream = 'out-1'\ntopic = 'a/b'";
        let full = Extism { function: "run".to_owned(), input: ExtismInput::Event, topic, ..least };
        assert_eq!(manifest(all), Ok(Some(full)));
    }

    #[test]
    fn an_output_that_goes_nowhere_is_a_mistake() {
        let mistake = |extism: &str, part: &str| {
            let found = manifest(extism).unwrap_err();
            assert!(found.contains(part), "{found}");
        };
        mistake("[extism]\n", "extism: names neither a stream nor a topic");
        mistake(
            "[extism]\nstream = 'other'",
            "extism.stream: emits to the stream \"other\", which is not under [allow]",
        );
        mistake("[extism]\ntopic = 'a/+'", "extism.topic: is \"a/+\": has a wildcard");
        mistake(
            "[extism]\ninput = 'all'\ntopic = 'a'",
            "extism.input: is \"all\"; allowed is \"payload\" or \"event\"",
        );
    }
}
