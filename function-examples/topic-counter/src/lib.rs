#![doc = include_str!("../README.md")]

use std::collections::BTreeMap;

use function_sdk::{Context, Error, Fields, Json, Result, function};
use serde::{Deserialize, Serialize};

/// Most groups and most kinds of one group. With names of [`MAX_NAME_BYTES`] the state stays within its 64 KiB, whatever
/// the devices send.
const MAX_GROUPS: usize = 32;
const MAX_KINDS: usize = 16;

/// Where a name of a group or kind is cut.
const MAX_NAME_BYTES: usize = 64;

/// What is beyond the limits.
const OTHER: &str = "other";

/// The counts since the last summary, and the summary itself.
#[derive(Default, Serialize, Deserialize)]
struct Counts {
    /// Microseconds since 1970-01-01 UTC.
    from: u64,
    /// Microseconds since 1970-01-01 UTC.
    to: u64,
    events: u32,
    groups: BTreeMap<String, BTreeMap<String, u32>>,
}

#[function]
fn on_event(payload: Fields<'_>, cx: &mut Context) -> Result {
    let (every, separator) = (cx.config("every")?, cx.config::<String>("separator")?);
    if !(1..=1_000_000).contains(&every) || separator.is_empty() {
        let message = format!(
            "the configuration has every = {every} and separator = {separator:?}; allowed are 1 to 1000000 and a text"
        );
        return Err(Error::new(message));
    }
    let event = cx.event();
    let group = match payload.has("group") {
        true => payload.text("group")?,
        false => event.device.split_once(&separator).map_or(event.device, |(group, _)| group),
    };
    let kind = event.topic.rsplit('/').next().unwrap_or_default();

    let mut counts: Counts = cx.state("counts")?.unwrap_or_default();
    counts.add(group, kind, event.time_us);
    if counts.events >= every {
        cx.emit("counts", &Json(&counts))?;
        counts = Counts::default();
    }
    cx.set_state("counts", &counts)
}

impl Counts {
    fn add(&mut self, group: &str, kind: &str, time_us: u64) {
        if self.events == 0 {
            self.from = time_us;
        }
        self.to = time_us;
        self.events += 1;
        let kinds = bounded(&mut self.groups, group, MAX_GROUPS);
        *bounded(kinds, kind, MAX_KINDS) += 1;
    }
}

/// The entry of this name, or of [`OTHER`] if there is no room for one more; that one is always kept free.
fn bounded<'m, V: Default>(map: &'m mut BTreeMap<String, V>, name: &str, most: usize) -> &'m mut V {
    let name = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
    let room = map.len() + usize::from(!map.contains_key(OTHER)) < most;
    let name = if room || map.contains_key(name) { name } else { OTHER };
    map.entry(name.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use function_sdk::testing::Gateway;

    use super::*;

    fn gateway(every: u32) -> Gateway {
        Gateway::new(on_event_handler).manifest(include_str!("../function.toml")).config("every", every)
    }

    #[test]
    fn topics_and_devices_are_joined_in_one_summary() {
        let mut gateway = gateway(5);
        gateway.set_time_us(10_000_000);
        let events = [
            ("line1-oven", "sensors/line1-oven/temperature", "{}"),
            ("line2-oven", "sensors/line2-oven/temperature", "{}"),
            ("line1-press", "machines/press/state", r#"{"state":"on"}"#),
            ("spare", "sensors/spare/temperature", r#"{"group":"line1"}"#),
            ("line1-oven", "sensors/line1-oven/temperature", "{}"),
        ];
        let emitted: Vec<_> = events
            .iter()
            .flat_map(|(device, topic, payload)| gateway.event(device, topic, payload).expect_ok().emitted)
            .collect();
        assert_eq!(emitted.len(), 1);
        assert_eq!(
            emitted[0].text(),
            r#"{"from":10000000,"to":14000000,"events":5,"groups":{"line1":{"state":1,"temperature":3},"line2":{"temperature":1}}}"#
        );
        // The next summary begins anew.
        let state: Counts = gateway.state("any", "any", "counts").unwrap();
        assert_eq!((state.events, state.groups.len()), (0, 0));
    }

    #[test]
    fn every_event_is_counted_within_bounds_whatever_devices_send() {
        let mut gateway = gateway(10_000);
        for n in 0..2000 {
            let topic = format!("sensors/x/{}{}", n % 40, "k".repeat(100));
            gateway.event(&format!("{}ä{n}", "g".repeat(63)), &topic, "{}").expect_ok();
            gateway.event(&format!("group{n}-x"), &topic, "{}").expect_ok();
        }
        let state: Counts = gateway.state("any", "any", "counts").unwrap();
        assert_eq!(state.groups.len(), MAX_GROUPS);
        assert!(state.groups.values().all(|kinds| kinds.len() <= MAX_KINDS));
        assert_eq!(state.groups.values().flat_map(BTreeMap::values).sum::<u32>(), 4000);
        assert!(state.groups[OTHER].values().sum::<u32>() > 1000);
    }

    #[test]
    fn a_group_that_is_no_text_is_refused() {
        let run = gateway(1).event("d", "sensors/d/t", r#"{"group":7}"#);
        assert_eq!(run.result.unwrap_err(), "the payload has no text \"group\"; it has: group");
    }
}
