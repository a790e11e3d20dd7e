//! When a function runs: the entries `[[trigger]]` of a manifest.

use crate::blob::BlobPattern;
use crate::checked::{Rule, Table, Value, integer, one_of, parsed, text};
use crate::manifest::{parsed_text, topic_filter};
use crate::names::{check_function_name, check_stream_name};
use crate::route::Route;
use crate::schedule::Schedule;

/// When a function runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// An MQTT message whose topic matches.
    Mqtt {
        /// A valid topic filter.
        filter: String,
    },
    /// A request to a route of the gateway's HTTP server; the function's answer is the response.
    Http {
        /// Method and path.
        route: Route,
        /// How long the request waits for the answer, in milliseconds. Default 10,000.
        deadline_ms: u32,
    },
    /// Moments of a calendar.
    Schedule {
        /// What it is called; no two of a function have the same name.
        name: String,
        /// The moments.
        schedule: Schedule,
        /// What becomes of those that pass while the gateway is off.
        missed: Missed,
    },
    /// Messages that functions put into this queue. A queue has one reader.
    Queue {
        /// The queue.
        queue: String,
    },
    /// A device connects to the gateway's own broker, or is gone.
    Device {
        /// Which of the two; `None`: both.
        change: Option<Presence>,
    },
    /// A blob is stored, or another content under its name.
    Blob {
        /// Which ones.
        pattern: BlobPattern,
    },
}

/// What becomes of moments that passed while the gateway was off, or could not run the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The last of them is made up for, once.
    #[default]
    Once,
    /// Each is made up for, in order; of more than a thousand the last thousand.
    All,
}

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// It connected.
    Connected,
    /// It is gone.
    Disconnected,
}

impl Presence {
    /// Its name, which is also the topic of the event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

const KINDS: &str = "one of mqtt, http, cron, queue, device and blob";

/// How long a request waits if nothing is said.
const DEADLINE_MS: u32 = 10_000;

impl Trigger {
    pub(crate) fn read(t: &mut Table<'_, '_>) -> Option<Self> {
        let mqtt = t.optional("mqtt", topic_filter());
        let http =
            t.optional("http", parsed("a method and a path such as \"POST /devices/{id}\"", str::parse::<Route>));
        let cron = t.optional("cron", text(1..=200));
        let queue = t.optional("queue", queue_name());
        let device = t.optional(
            "device",
            one_of(&[
                ("connected", Some(Presence::Connected)),
                ("disconnected", Some(Presence::Disconnected)),
                ("both", None),
            ]),
        );
        let blob = t.optional("blob", blob_pattern());
        let kinds = ["mqtt", "http", "cron", "queue", "device", "blob"].into_iter().filter(|key| t.has(key)).count();
        let deadline_ms = t.optional("deadline_ms", integer(100..=300_000));
        let name = t.optional("name", parsed_text("a name", check_function_name));
        let zone = t.optional("zone", text(1..=64));
        let missed =
            t.optional("missed", one_of(&[("skip", Missed::Skip), ("once", Missed::Once), ("all", Missed::All)]));
        if kinds != 1 {
            t.mistake("", format!("has {kinds} kinds; allowed is {KINDS}"));
            return None;
        }
        for (key, with) in [("deadline_ms", "http"), ("name", "cron"), ("zone", "cron"), ("missed", "cron")] {
            if t.has(key) && !t.has(with) {
                t.mistake(key, format!("belongs to \"{with}\"; take it out"));
            }
        }
        if let Some(filter) = mqtt {
            return Some(Self::Mqtt { filter });
        }
        if let Some(route) = http {
            return Some(Self::Http { route, deadline_ms: deadline_ms.unwrap_or(DEADLINE_MS) });
        }
        if let Some(queue) = queue {
            return Some(Self::Queue { queue });
        }
        if let Some(change) = device {
            return Some(Self::Device { change });
        }
        if let Some(pattern) = blob {
            return Some(Self::Blob { pattern });
        }
        let (cron, name) = (cron?, name.unwrap_or_else(|| "schedule".to_owned()));
        match Schedule::parse(&cron, zone.as_deref().unwrap_or("UTC")) {
            Ok(schedule) => Some(Self::Schedule { name, schedule, missed: missed.unwrap_or_default() }),
            Err(error) => {
                t.mistake(error.key(), error.to_string());
                None
            }
        }
    }
}

/// The name of a queue: as that of a stream.
pub(crate) fn queue_name() -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    parsed_text("a queue such as \"to-send\"", |name| {
        check_stream_name(name).map_err(|_| "a queue's name has 1 to 64 letters, digits, dots, hyphens and underscores")
    })
}

/// Which blobs.
pub(crate) fn blob_pattern() -> Rule<impl Fn(&Value<'_>) -> Result<BlobPattern, String>> {
    parsed("a blob such as \"images/gate.jpg\", or \"images/*\" for all that begin so", str::parse)
}
