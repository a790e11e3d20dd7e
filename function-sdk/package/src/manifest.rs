//! What a function is called, when it runs, and what it may do: `function.toml`.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;

use crate::blob::BlobPattern;
use crate::checked::{self, Mistakes, Rule, Table, Value, integer, one_of, parsed, text};
use crate::config::{ConfigValue, config_value};
use crate::extism::{Extism, extism, not_allowed};
use crate::host::AllowedHost;
use crate::names::{
    check_filter, check_function_name, check_metric_name, check_secret_name, check_stream_name, check_twin_name,
    pattern_matches,
};
use crate::trigger::{Trigger, blob_pattern, queue_name};

/// The version of the manifest's format that this crate reads.
const FORMAT: i64 = 1;

/// Most triggers: each is matched against every event's topic.
const MAX_TRIGGERS: usize = 32;

/// Most entries of each list in `[allow]`: each is matched against every effect.
const MAX_ALLOWED: usize = 64;

/// Most metrics. Each may take some tens of kilobytes on the gateway and in every report of it, if a function observes as
/// different values as it can.
const MAX_METRICS: usize = 32;

/// Most configuration keys.
const MAX_CONFIG: usize = 64;

/// A checked `function.toml`. [`Manifest::parse`] says all that may stand in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `[a-z][a-z0-9-]{0,63}`.
    pub name: String,
    /// Semantic version (semver 2.0.0).
    pub version: Version,
    /// One sentence for whoever looks at a list of functions.
    pub description: Option<String>,
    /// What runs in order and shares state.
    pub partition: Partition,
    /// When it runs; at least one.
    pub triggers: Vec<Trigger>,
    /// What becomes of an event on which it fails.
    pub retry: Retry,
    /// What a run may use up.
    pub limits: Limits,
    /// What it may reach.
    pub allow: Allow,
    /// What a deployment may set, with the defaults.
    pub config: BTreeMap<String, ConfigValue>,
    /// For an Extism plug-in: what its call means.
    pub extism: Option<Extism>,
}

/// Which events run one after the other and see the same state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Partition {
    /// Those of one device.
    #[default]
    Device,
    /// Those of one topic.
    Topic,
    /// All events of the function.
    Function,
}

/// What becomes of an event on which a function fails or traps. An HTTP request is not tried again: whoever sent it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often the event is given to the function, 1 to 100. Default 1: then it goes to the dead letters at once.
    pub tries: u32,
    /// How long the first retry waits at least, in milliseconds, 100 to 3,600,000; each further one waits twice as long as
    /// the one before, at most an hour. Default 1,000.
    pub backoff_ms: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { tries: 1, backoff_ms: 1_000 }
    }
}

/// What one run may use up; beyond it the run ends as a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Interpreter steps, 10,000 to 10,000,000,000. Default 50,000,000: some 60 ms of a laptop's core, a thousand times
    /// what a small function needs.
    pub fuel: u64,
    /// Linear memory in KiB, 64 (one Wasm page) to 262,144. Default 1,024.
    pub memory_kib: u32,
    /// Effects of a run, 0 to 4,096. Default 64.
    pub effects: u32,
    /// Bytes of all effects of a run together in KiB, 1 to 1,024. Default 256, the size of a large MQTT message;
    /// more than the most would not fit into one message to the control plane.
    pub output_kib: u32,
    /// Bytes of one state value in KiB, 1 to 1,024. Default 64.
    pub state_value_kib: u32,
    /// Bytes of the keys and values of all its state, over all partitions, in KiB, 1 to 1,048,576. Default 4,096: room for
    /// some ten thousand devices with a few numbers each.
    pub state_kib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 50_000_000, memory_kib: 1024, effects: 64, output_kib: 256, state_value_kib: 64, state_kib: 4096 }
    }
}

/// What a function may reach: nothing that is not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// Cloud streams; a `*` at the end stands for any rest.
    pub streams: Vec<String>,
    /// Topic filters under which it may publish.
    pub publish: Vec<String>,
    /// Queues that it may put messages into.
    pub queues: Vec<String>,
    /// Secrets of the gateway that it may read.
    pub secrets: Vec<String>,
    /// Properties of devices that it may report; a `*` at the end stands for any rest.
    pub twin: Vec<String>,
    /// Names under which it may count and observe.
    pub metrics: Vec<String>,
    /// Blobs that it may store and delete.
    pub blobs: Vec<BlobPattern>,
    /// Blobs that it may read, besides those of its triggers.
    pub blobs_read: Vec<BlobPattern>,
    /// Hosts that it may send requests to.
    pub hosts: Vec<AllowedHost>,
    /// Functions, beside itself, that may get the answers.
    pub answers: Vec<String>,
}

impl Allow {
    /// Whether it may emit to this stream.
    pub fn stream(&self, name: &str) -> bool {
        self.streams.iter().any(|allowed| pattern_matches(allowed, name))
    }

    /// Whether it may report this property.
    pub fn property(&self, name: &str) -> bool {
        self.twin.iter().any(|allowed| pattern_matches(allowed, name))
    }
}

impl Manifest {
    /// Reads and checks the text of a manifest; `file` is its name in messages.
    ///
    /// ```
    /// # let text = r##"
    /// manifest = 1                      # version of this format
    /// name = "threshold-alert"          # a-z, 0-9 and hyphens, 1 to 64 of them, a letter first
    /// version = "1.2.0"                 # semver
    /// description = "Alerts on heat"    # optional
    /// partition = "device"              # "device" (default), "topic" or "function": what runs in order and shares state
    ///
    /// [[trigger]]                       # at least one, each of one kind
    /// mqtt = "sensors/+/temperature"    # a topic filter
    ///
    /// [[trigger]]
    /// http = "POST /limits/{device}"    # a route of the gateway's HTTP server; the function's answer is the response
    /// deadline_ms = 10_000              # how long a request waits for it
    ///
    /// [[trigger]]
    /// cron = "0 7 * * MON-FRI"          # minute, hour, day of the month, month, day of the week; seconds in front if six
    /// name = "morning"                  # no two schedules of a function have the same; default "schedule"
    /// zone = "Europe/Vienna"            # IANA time zone; default "UTC"
    /// missed = "once"                   # what passed while the gateway was off: "skip", "once" (default) or "all"
    ///
    /// [[trigger]]
    /// queue = "to-check"                # what functions put into this queue; a queue has one reader
    ///
    /// [[trigger]]
    /// device = "disconnected"           # a device of the gateway's own broker: "connected", "disconnected" or "both"
    ///
    /// [[trigger]]
    /// blob = "images/*"                 # a blob that is stored: its name, or the beginning of it; the bucket as a whole
    ///
    /// [retry]                           # what becomes of an event on which it fails
    /// tries = 5                         # 1 by default: then it goes to the dead letters at once
    /// backoff_ms = 1_000                # how long the first retry waits; each further one twice as long, at most an hour
    ///
    /// [limits]                          # optional, as is each key; `Limits` has the ranges
    /// fuel = 50_000_000
    /// memory_kib = 1024
    /// effects = 64
    /// output_kib = 256
    /// state_value_kib = 64
    /// state_kib = 4096
    ///
    /// [allow]                           # nothing is allowed unless it is named
    /// streams = ["alerts", "temp-*"]    # cloud streams
    /// publish = ["alerts/#"]            # topic filters
    /// queues = ["to-check"]             # queues that it may put messages into
    /// secrets = ["weather-key"]         # secrets of the gateway that it may read
    /// twin = ["battery", "net.*"]       # properties of the event's device that it may report
    /// metrics = ["rejected", "celsius"] # what it counts and observes; at most 32 names of a-z, 0-9, dots and underscores
    /// blobs = ["thumbs/*"]              # blobs that it may store and delete
    /// blobs_read = ["masks/*"]          # blobs that it may read, besides those of its triggers
    /// hosts = ["*.example.org", "10.0.0.5:8080"]   # hosts that it may send requests to; with a port if it is not the scheme's
    /// answers = ["webhook-log"]         # functions, beside itself, that may get the answers to them
    ///
    /// [config]                          # what a deployment may set: a key and its default
    /// limit = 30.0
    ///
    /// [extism]                          # only for an Extism plug-in: what its call means
    /// function = "handle"               # the export that is called; this one by default
    /// input = "payload"                 # "payload" (default), or "event": a JSON object of all that it has
    /// stream = "alerts"                 # where an output that is not empty is emitted to, and
    /// topic = "alerts/plugin"           # where it is published to; one of the two at least
    /// # "##;
    /// # let manifest = function_package::Manifest::parse("function.toml", text).unwrap();
    /// # assert!(manifest.allow.stream("temp-1") && !manifest.allow.stream("temp"));
    /// # assert_eq!(manifest.limits, function_package::Limits::default());
    /// ```
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        checked::read(file, text, body)
    }
}

fn body(root: &mut Table<'_, '_>) -> Option<Manifest> {
    let format = root.required("manifest", integer(FORMAT..=FORMAT));
    let name = root.required("name", parsed_text("a name", check_function_name));
    let version = root.required("version", version());
    let description = root.optional("description", text(1..=512));
    let partition = root.optional(
        "partition",
        one_of(&[("device", Partition::Device), ("topic", Partition::Topic), ("function", Partition::Function)]),
    );
    let triggers = root.tables("trigger", 1..=MAX_TRIGGERS, Trigger::read);
    check_names(root, &triggers);
    let retry = root.table("retry", |t| {
        let default = Retry::default();
        Some(Retry {
            tries: t.optional("tries", integer(1..=100)).unwrap_or(default.tries),
            backoff_ms: t.optional("backoff_ms", integer(100..=3_600_000)).unwrap_or(default.backoff_ms),
        })
    });
    let limits = root.table("limits", |t| Some(limits(t)));
    let allow = root.table("allow", |t| {
        Some(Allow {
            streams: t.list("streams", 0..=MAX_ALLOWED, allowed_stream()),
            publish: t.list("publish", 0..=MAX_ALLOWED, topic_filter()),
            queues: t.list("queues", 0..=MAX_ALLOWED, queue_name()),
            secrets: t.list(
                "secrets",
                0..=MAX_ALLOWED,
                parsed_text("a secret such as \"weather-key\"", check_secret_name),
            ),
            twin: t.list("twin", 0..=MAX_ALLOWED, property()),
            metrics: t.list(
                "metrics",
                0..=MAX_METRICS,
                parsed_text("a metric such as \"rejected\"", check_metric_name),
            ),
            blobs: t.list("blobs", 0..=MAX_ALLOWED, blob_pattern()),
            blobs_read: t.list("blobs_read", 0..=MAX_ALLOWED, blob_pattern()),
            hosts: t.list("hosts", 0..=MAX_ALLOWED, allowed_host()),
            answers: t.list("answers", 0..=MAX_ALLOWED, parsed_text("a function's name", check_function_name)),
        })
    });
    let config = root.table("config", |t| Some(t.entries(MAX_CONFIG, config_key, config_value())));
    let extism = root.optional_table("extism", extism);
    if let (Some(extism), Some(allow)) = (&extism, &allow)
        && let Some(mistake) = not_allowed(extism, allow)
    {
        root.mistake("extism.stream", mistake);
    }
    format?;
    Some(Manifest {
        name: name?,
        version: version?,
        description,
        partition: partition.unwrap_or_default(),
        triggers,
        retry: retry?,
        limits: limits?,
        allow: allow?,
        config: config?,
        extism,
    })
}

/// Moments are remembered by the names of their schedules.
fn check_names(root: &mut Table<'_, '_>, triggers: &[Trigger]) {
    let mut names = BTreeSet::new();
    for trigger in triggers {
        if let Trigger::Schedule { name, .. } = trigger
            && !names.insert(name)
        {
            root.mistake("trigger", format!("has two schedules with the name \"{name}\"; give each a name of its own"));
        }
    }
}

fn limits(t: &mut Table<'_, '_>) -> Limits {
    let default = Limits::default();
    Limits {
        fuel: t.optional("fuel", integer(10_000..=10_000_000_000)).unwrap_or(default.fuel),
        memory_kib: t.optional("memory_kib", integer(64..=262_144)).unwrap_or(default.memory_kib),
        effects: t.optional("effects", integer(0..=4096)).unwrap_or(default.effects),
        output_kib: t.optional("output_kib", integer(1..=crate::MAX_OUTPUT_KIB)).unwrap_or(default.output_kib),
        state_value_kib: t.optional("state_value_kib", integer(1..=1024)).unwrap_or(default.state_value_kib),
        state_kib: t.optional("state_kib", integer(1..=1_048_576)).unwrap_or(default.state_kib),
    }
}

pub(crate) fn parsed_text<E: std::fmt::Display>(
    allowed: &str,
    check: impl Fn(&str) -> Result<(), E>,
) -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    parsed(allowed, move |text| check(text).map(|()| text.to_owned()))
}

pub(crate) fn topic_filter() -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    parsed_text("a topic filter such as \"sensors/+/temperature\"", check_filter)
}

fn allowed_host() -> Rule<impl Fn(&Value<'_>) -> Result<AllowedHost, String>> {
    parsed("a host such as \"api.example.org\", \"*.example.org\" or \"10.0.0.5:8080\"", str::parse)
}

fn allowed_stream() -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    let check = |name: &str| match name.strip_suffix('*') {
        Some("") => Ok(()),
        Some(prefix) => check_stream_name(prefix),
        None => check_stream_name(name),
    };
    parsed_text("a stream such as \"alerts\", or \"temp-*\" for all that begin so", check)
}

fn property() -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    let check = |name: &str| match name.strip_suffix('*') {
        Some("") => Ok(()),
        Some(prefix) => check_twin_name(prefix),
        None => check_twin_name(name),
    };
    parsed_text("a property such as \"battery\", or \"net.*\" for all that begin so", check)
}

fn version() -> Rule<impl Fn(&Value<'_>) -> Result<Version, String>> {
    parsed("a semantic version such as \"1.2.0\", at most 64 bytes", |text| match text.len() {
        0..=64 => Version::parse(text).map_err(|error| error.to_string()),
        len => Err(format!("has {len} bytes")),
    })
}

fn config_key(key: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if (1..=64).contains(&key.len()) && key.bytes().all(good) {
        return Ok(());
    }
    Err("is no configuration key; allowed are 1 to 64 letters a-z, digits, hyphens and underscores".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "manifest = 1\nname = 'f'\nversion = '0.1.0-rc.1'\n[[trigger]]\nmqtt = '#'\n";

    fn mistakes(text: &str) -> String {
        Manifest::parse("function.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_has_a_default_and_nothing_is_allowed() {
        let manifest = Manifest::parse("function.toml", SMALL).unwrap();
        assert_eq!(manifest.partition, Partition::Device);
        assert_eq!(manifest.limits, Limits::default());
        assert_eq!(manifest.triggers, [Trigger::Mqtt { filter: "#".into() }]);
        assert!(!manifest.allow.stream("a") && manifest.allow.publish.is_empty());
        assert!(manifest.config.is_empty() && manifest.description.is_none());
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text = "manifest = 2\nname = \"Bad Name\"\nversion = \"1.2\"\npartion = \"topic\"\npartition = \"all\"\n\
                    [[trigger]]\nmqtt = \"a/#/b\"\n[[trigger]]\n[limits]\nfuel = 5\n[allow]\nstreams = [\"a b\"]\n\
                    [config]\nWrong = 1\nlist = []\n";
        assert_eq!(
            mistakes(text),
            "function.toml:1:12: manifest: is 2; allowed is a whole number from 1 to 1\n\
             function.toml:2:9: name: is \"Bad Name\": a function's name begins with a letter a-z and has 1 to 64 letters \
             a-z, digits and hyphens; allowed is a name\n\
             function.toml:3:12: version: is \"1.2\": unexpected end of input while parsing minor version number; \
             allowed is a semantic version such as \"1.2.0\", at most 64 bytes\n\
             function.toml:4:1: partion: is not known here; did you mean \"partition\"? allowed are: allow, config, \
             description, extism, limits, manifest, name, partition, retry, trigger, version\n\
             function.toml:5:14: partition: is \"all\"; allowed is \"device\" or \"topic\" or \"function\"\n\
             function.toml:7:9: trigger[1].mqtt: is \"a/#/b\": \"#\" must stand alone in the last level, as in \
             \"a/b/#\"; allowed is a topic filter such as \"sensors/+/temperature\"\n\
             function.toml:8:1: trigger[2]: has 0 kinds; allowed is one of mqtt, http, cron, queue, device and blob\n\
             function.toml:10:8: limits.fuel: is 5; allowed is a whole number from 10000 to 10000000000\n\
             function.toml:12:13: allow.streams[1]: is \"a b\": a stream's name has 1 to 64 letters, digits, dots, \
             hyphens and underscores; allowed is a stream such as \"alerts\", or \"temp-*\" for all that begin so\n\
             function.toml:14:1: config.Wrong: is no configuration key; allowed are 1 to 64 letters a-z, digits, \
             hyphens and underscores\n\
             function.toml:15:8: config.list: is a list or a table; allowed is a text of at most 4096 bytes, a finite \
             number, true or false"
        );
    }

    #[test]
    fn blobs_are_named_with_their_bucket() {
        let text =
            format!("{SMALL}[[trigger]]\nblob = 'images/*'\n[allow]\nblobs = ['thumbs/a']\nblobs_read = ['m/*']\n");
        let manifest = Manifest::parse("function.toml", &text).unwrap();
        assert!(matches!(&manifest.triggers[1], Trigger::Blob { pattern } if pattern.matches("images/1")));
        assert!(manifest.allow.blobs[0].matches("thumbs/a") && manifest.allow.blobs_read[0].matches("m/x"));
        let wrong = format!(
            "{SMALL}[[trigger]]\nblob = '*'\n[[trigger]]\nhttp = 'GET /blobs/{{x}}'\n[allow]\nblobs = ['a/../b']\n"
        );
        let found = mistakes(&wrong);
        for line in [
            "function.toml:7:9: trigger[2].blob: is \"*\": \"\" does not begin with a bucket",
            "function.toml:9:9: trigger[3].http: is \"GET /blobs/{x}\": its path begins with \"/blobs\", where the gateway itself",
            "function.toml:11:11: allow.blobs[1]: is \"a/../b\": \"a/../b\" has the part",
        ] {
            assert!(found.contains(line), "{found}");
        }
    }

    #[test]
    fn hosts_and_who_gets_their_answers_are_checked() {
        let allow =
            Manifest::parse("f", &format!("{SMALL}[allow]\nhosts = ['*.a.org:81']\nanswers = ['g']\n")).unwrap().allow;
        assert_eq!((allow.hosts[0].to_string().as_str(), allow.answers), ("*.a.org:81", vec!["g".to_owned()]));
        let found = mistakes(&format!("{SMALL}[allow]\nhosts = ['https://a.org', '127.1']\nanswers = ['G']\n"));
        let begins = [
            "function.toml:7:11: allow.hosts[1]: is \"https://a.org\": the port \"//a.org\" is none",
            "function.toml:7:28: allow.hosts[2]: is \"127.1\": the host \"127.1\" is none",
            "function.toml:8:13: allow.answers[1]: is \"G\": a function's name begins with",
        ];
        for (line, begin) in found.lines().zip(begins) {
            assert!(line.starts_with(begin), "{line}\n{begin}");
        }
        assert_eq!(found.lines().count(), 3, "{found}");
    }

    #[test]
    fn an_empty_manifest_says_what_is_required() {
        let found = mistakes("");
        for key in ["manifest", "name", "version", "trigger"] {
            assert!(found.contains(&format!("function.toml:1:1: {key}: ")), "{found}");
        }
        assert_eq!(found.lines().count(), 4);
    }

    #[test]
    fn configuration_keeps_the_type_of_its_default() {
        let text = format!("{SMALL}[config]\na = 1\nb = 1.0\nc = 'x'\nd = false\n");
        let config = Manifest::parse("function.toml", &text).unwrap().config;
        let values: Vec<_> = config.into_values().collect();
        assert_eq!(
            values,
            [
                ConfigValue::Integer(1),
                ConfigValue::Float(1.0),
                ConfigValue::Text("x".into()),
                ConfigValue::Boolean(false)
            ]
        );
        assert!(mistakes(&format!("{SMALL}[config]\na = inf\n")).contains("config.a: is inf"));
    }
}
