//! The agent's configuration file, checked as a whole before anything starts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::Filter;
use agent_core::retention::Retention;
use agent_functions::Secrets;
use function_package::checked::{self, Mistakes, Table, integer, one_of, parsed, text};
use function_package::{PublicKey, check_bucket};

use crate::inlet::identity::{Entry, MAX_DEPTH, MAX_ENTRIES, Mapping, Place};

mod access;
mod outbox;
mod requests;
mod secrets;

pub use requests::Requests;

/// What an operator decided, checked: every value is within its range, and nothing contradicts anything else.
#[derive(Debug)]
pub struct Config {
    /// The gateway itself.
    pub gateway: Gateway,
    /// Where events come from.
    pub mqtt: Mqtt,
    /// The control plane, if there is one.
    pub cloud: Option<Cloud>,
    /// What becomes of records that wait for it.
    pub retention: Retention,
    /// Whose functions may be deployed.
    pub deploy: Deploy,
    /// How often the control plane is told what functions used.
    pub tell_usage: Duration,
    /// Where the agent tells how it is, if anywhere.
    pub status: Option<SocketAddr>,
    /// Where functions answer requests, if anywhere.
    pub http: Option<Http>,
    /// What only functions may know that name it.
    pub secrets: Secrets,
    /// How much room blobs may take.
    pub blobs: Blobs,
    /// Folders whose files become blobs.
    pub watches: Vec<Watch>,
    /// What functions may send requests to.
    pub requests: Requests,
    /// Functions that are part of this gateway, not deployed to it.
    pub functions: Vec<LocalFunction>,
}

/// The gateway itself.
#[derive(Debug)]
pub struct Gateway {
    /// What it calls itself, for people.
    pub name: String,
    /// Where its store, its identity and its functions lie.
    pub data_dir: PathBuf,
    /// Threads that run functions.
    pub workers: usize,
}

/// Where events come from.
#[derive(Debug)]
pub enum Mqtt {
    /// The gateway's own broker.
    Listen(Listen),
    /// A broker that somebody else runs.
    Connect(Connect),
}

/// The gateway's own broker.
#[derive(Debug)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// User names and passwords of devices; none: everybody may connect.
    pub users: BTreeMap<String, Secret>,
    /// What they may publish and subscribe to; none: everything.
    pub rules: Vec<agent_broker::Rule>,
    /// Largest packet, in bytes.
    pub max_packet_bytes: u32,
    /// Where the identity of foreign devices' events lies.
    pub mapping: Arc<Mapping>,
}

/// A broker that somebody else runs.
#[derive(Debug)]
pub struct Connect {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Client identifier: the broker keeps the session, and so what came while the agent was off, under it.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// Which level of a topic names the device, from 1; none: the whole topic stands for it.
    pub device_level: Option<usize>,
    /// Largest packet, in bytes.
    pub max_packet_bytes: u32,
    /// Where the identity of foreign devices' events lies.
    pub mapping: Arc<Mapping>,
}

/// The control plane.
#[derive(Debug)]
pub struct Cloud {
    /// Its address, without a path.
    pub url: String,
    /// File that holds the claim token; needed until the gateway is enrolled.
    pub claim_file: Option<PathBuf>,
    /// Longest wait between two attempts to reach it.
    pub retry_max: Duration,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How much goes to it and comes from it.
    pub budget: Budget,
}

/// How much may go over the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Bytes in a second, for records.
    pub bytes_per_second: Option<u64>,
    /// Bytes in a calendar month (UTC); records wait when it is used up.
    pub bytes_per_month: Option<u64>,
}

/// Where functions answer requests.
#[derive(Debug)]
pub struct Http {
    /// Address and port.
    pub address: SocketAddr,
    /// What every request must have as its bearer token; none: everybody may ask.
    pub token: Option<Secret>,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
}

/// How much room blobs may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blobs {
    /// Bytes of one.
    pub max_bytes: u64,
    /// Bytes of all contents.
    pub quota_bytes: u64,
}

/// A folder whose files become blobs.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The folder.
    pub folder: PathBuf,
    /// The bucket that they go to, under their path below the folder. No two folders have the same.
    pub bucket: String,
    /// What the names of the files begin and end with; `None`: all of them are meant.
    pub files: Option<(String, String)>,
    /// How long a file must rest until it counts as complete.
    pub settle: Duration,
    /// What becomes of a file that was stored.
    pub after: After,
    /// The media type of all of them.
    pub content_type: Option<String>,
}

/// What becomes of a file that was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
}

impl Watch {
    /// Whether a file of this path is meant, by what stands behind its last slash.
    pub fn is_meant(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.files.as_ref().is_none_or(|(begin, end)| {
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        })
    }
}

/// Whose functions may be deployed.
#[derive(Debug, Default)]
pub struct Deploy {
    /// Keys of the publishers that are trusted. None: nothing can be deployed.
    pub trusted_keys: Vec<PublicKey>,
}

/// A function that is part of the gateway.
#[derive(Debug)]
pub struct LocalFunction {
    /// Its file.
    pub path: PathBuf,
    /// Configuration that differs from its manifest's defaults.
    pub config: BTreeMap<String, String>,
}

/// A value that never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}; give its path with --config", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It holds mistakes; each has a line of its own.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// Names every mistake in it with file, line, key and what is allowed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Ok(Self::parse(&path.display().to_string(), &text, base)?)
    }

    fn parse(file: &str, toml: &str, base: &Path) -> Result<Self, Mistakes> {
        checked::read(file, toml, |root| {
            let gateway = root.table("gateway", |t| gateway(t, base));
            let mapping = Arc::new(mapping(root));
            let mqtt = root.table("mqtt", |t| mqtt(t, &mapping));
            let cloud = root.optional_table("cloud", |t| cloud(t, base));
            let retention = outbox::retention(root);
            let deploy = root.table("deploy", |t| {
                let key = parsed("a public key, edge-public-key-v1:…, as `edgectl key new` writes it", str::parse);
                Some(Deploy { trusted_keys: t.list("trusted_keys", 0..=16, key) })
            });
            let status = root.table("status", |t| Some(t.optional("listen", address())));
            let usage = root.table("usage", |t| Some(t.optional("every_s", integer(1..=3_600)).unwrap_or(300)));
            let http = root.optional_table("http", http);
            let secrets = root.table("secrets", |t| Some(secrets::secrets(t, base)));
            let blobs = root.table("blobs", |t| {
                // A function asks for the size of one as an i32.
                let max = t.optional("max_mib", integer(1..=2_047)).unwrap_or(DEFAULT_BLOB_MIB);
                let quota = t.optional("quota_mib", integer(1..=100_000_000)).unwrap_or(DEFAULT_BLOBS_MIB);
                Some(Blobs { max_bytes: max << 20, quota_bytes: quota << 20 })
            });
            let watches = watches(root, base);
            let requests = root.table("requests", |t| Some(requests::read(t)));
            let functions = root.tables("function", 0..=1_000, |t| {
                let path = t.required("path", text(1..=4_096));
                let config = t.table("config", |t| {
                    let values = t.entries(100, |_| Ok(()), function_package::config_value());
                    Some(values.into_iter().map(|(key, value)| (key, value.to_string())).collect())
                });
                Some(LocalFunction { path: base.join(path?), config: config? })
            });
            Some(Self {
                gateway: gateway?,
                mqtt: mqtt?,
                cloud,
                retention: retention?,
                deploy: deploy?,
                tell_usage: Duration::from_secs(usage?),
                status: status?,
                http,
                secrets: secrets?,
                blobs: blobs?,
                watches,
                requests: requests?,
                functions,
            })
        })
    }
}

fn gateway(t: &mut Table<'_, '_>, base: &Path) -> Option<Gateway> {
    let name = t.optional("name", text(1..=64)).unwrap_or_else(|| "gateway".to_owned());
    let data_dir = t.required("data_dir", text(1..=4_096));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = t.optional("workers", integer(1..=64)).unwrap_or(cores.min(64));
    Some(Gateway { name, data_dir: base.join(data_dir?), workers })
}

fn mapping(root: &mut Table<'_, '_>) -> Mapping {
    let place = || {
        let allowed = "\"topic:N\", a level of the topic, or \"json:a.b\", a field of the payload at most";
        parsed(format!("{allowed} {MAX_DEPTH} keys deep"), str::parse)
    };
    let entries = root.tables("identity", 0..=MAX_ENTRIES, |t| {
        let topic = t.required("topic", parsed("a topic filter such as \"sensors/+/reading\"", Filter::new));
        let device = t.optional("device", place());
        let sequence = t.required("sequence", place());
        let boot = t.optional("boot", place());
        let topic = topic?;
        for (key, place) in [("device", &device), ("sequence", &sequence), ("boot", &boot)] {
            if let Some(place) = place.as_ref().filter(|place: &&Place| !place.fits(&topic)) {
                t.mistake(key, format!("is \"{place}\", but no topic that matches \"{topic}\" has so many levels"));
            }
        }
        Some(Entry { topic, device, sequence: sequence?, boot })
    });
    for (index, entry) in entries.iter().enumerate() {
        if entries[..index].iter().any(|earlier| earlier.topic == entry.topic) {
            root.mistake(
                "identity",
                format!("has two entries for \"{}\"; the first that matches counts, so take one out", entry.topic),
            );
        }
    }
    Mapping(entries)
}

fn mqtt(t: &mut Table<'_, '_>, mapping: &Arc<Mapping>) -> Option<Mqtt> {
    // Whether they are there at all, mistakes or not.
    let (mut listens, mut connects) = (false, false);
    let listen = t.optional_table("listen", |t| {
        listens = true;
        let address = t.required("address", address());
        let users = t.table("users", |t| Some(t.entries(10_000, |_| Ok(()), password())));
        let max_packet_bytes = t.optional("max_packet_bytes", packet_bytes()).unwrap_or(DEFAULT_PACKET_BYTES);
        let users = users.unwrap_or_default();
        let rules = access::rules(t, &users);
        Some(Listen { address: address?, users, rules, max_packet_bytes, mapping: mapping.clone() })
    });
    let connect = t.optional_table("connect", |t| {
        connects = true;
        let host = t.required("host", text(1..=253));
        let port = t.optional("port", integer(1..=65_535)).unwrap_or(1883);
        // 23 characters is what every MQTT 3.1.1 broker must take (section 3.1.3.1); longer ones are common.
        let client_id = t.required("client_id", text(1..=128));
        let user = t.optional("user", text(1..=256));
        let password = t.optional("password", password());
        if password.is_some() && user.is_none() {
            t.mistake("password", "stands without \"user\"; set both or neither");
        }
        let device_level = t.optional("device_level", integer(1..=agent_core::topic::MAX_LEVELS));
        let max_packet_bytes = t.optional("max_packet_bytes", packet_bytes()).unwrap_or(DEFAULT_PACKET_BYTES);
        let login = user.map(|user| (user, password.unwrap_or(Secret(String::new()))));
        Some(Connect {
            host: host?,
            port,
            client_id: client_id?,
            login,
            device_level,
            max_packet_bytes,
            mapping: mapping.clone(),
        })
    });
    if listens && connects {
        t.mistake("connect", "stands beside \"listen\"; an agent has its own broker or uses another one, not both");
    } else if !listens && !connects {
        t.mistake(
            "",
            "needs [mqtt.listen] with \"address\" for the gateway's own broker, or [mqtt.connect] with \"host\" and \
             \"client_id\" for another one",
        );
    }
    listen.map(Mqtt::Listen).or(connect.map(Mqtt::Connect))
}

fn watches(root: &mut Table<'_, '_>, base: &Path) -> Vec<Watch> {
    let watches = root.tables("watch", 0..=MAX_WATCHES, |t| {
        let folder = t.required("folder", text(1..=4_096));
        let bucket = t.required(
            "bucket",
            parsed("a bucket such as \"imports\"", |name: &str| check_bucket(name).map(|()| name.to_owned())),
        );
        let files = t.optional(
            "files",
            parsed("a name with one \"*\" such as \"*.csv\"", |pattern: &str| {
                let (begin, end) = pattern.split_once('*').ok_or("has no \"*\"")?;
                if end.contains('*') || pattern.contains('/') {
                    return Err("has more than one \"*\", or a \"/\"");
                }
                Ok((begin.to_owned(), end.to_owned()))
            }),
        );
        let settle_ms = t.optional("settle_ms", integer(100..=3_600_000)).unwrap_or(DEFAULT_SETTLE_MS);
        let after = t.optional("after", one_of(&[("keep", After::Keep), ("delete", After::Delete)]));
        let content_type = t.optional("type", text(1..=255));
        Some(Watch {
            folder: base.join(folder?),
            bucket: bucket?,
            files,
            settle: Duration::from_millis(settle_ms),
            after: after.unwrap_or_default(),
            content_type,
        })
    });
    for (index, watch) in watches.iter().enumerate() {
        if watches[..index].iter().any(|earlier| earlier.bucket == watch.bucket) {
            let bucket = &watch.bucket;
            root.mistake(
                "watch",
                format!("has two folders for the bucket \"{bucket}\"; give each a bucket of its own"),
            );
        }
    }
    watches
}

fn http(t: &mut Table<'_, '_>) -> Option<Http> {
    let address = t.required("listen", address());
    let token = t.optional("token", text(16..=512)).map(Secret);
    let max_body_kib = t.optional("max_body_kib", integer(1..=MAX_HTTP_BODY_KIB)).unwrap_or(DEFAULT_HTTP_BODY_KIB);
    Some(Http { address: address?, token, max_body_bytes: max_body_kib << 10 })
}

fn cloud(t: &mut Table<'_, '_>, base: &Path) -> Option<Cloud> {
    let url = t.required("url", parsed("an address such as \"https://control.example.org\", without a path", url));
    let claim_file = t.optional("claim_file", text(1..=4_096)).map(|path| base.join(path));
    let retry_max = t.optional("retry_max_s", integer(1..=3_600)).unwrap_or(60);
    let timeout = t.optional("timeout_s", integer(1..=600)).unwrap_or(30);
    let bytes_per_second = t.optional("bytes_per_second", integer(1_000..=1_000_000_000));
    let bytes_per_month = t.optional("bytes_per_month", integer(1_000_000..=1_000_000_000_000_000));
    Some(Cloud {
        url: url?,
        claim_file,
        retry_max: Duration::from_secs(retry_max),
        timeout: Duration::from_secs(timeout),
        budget: Budget { bytes_per_second, bytes_per_month },
    })
}

fn url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("has the scheme {:?}; http and https are allowed", url.scheme()));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("has a path, a query or a fragment".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

// The default of the broker, which bounds what one connection can make the agent hold.
const DEFAULT_PACKET_BYTES: u32 = 1 << 20;

/// How large a blob may be, if nothing is said: a minute of video from a camera.
const DEFAULT_BLOB_MIB: u64 = 64;

/// How much room all of them may take, if nothing is said: what the smallest gateways can spare.
const DEFAULT_BLOBS_MIB: u64 = 1_024;

/// Most watched folders: each is looked through by itself.
const MAX_WATCHES: usize = 64;

/// How long a file must rest, if nothing is said: longer than whoever writes it pauses.
const DEFAULT_SETTLE_MS: u64 = 2_000;

/// The largest body of a request, if nothing is said: that of a large MQTT message.
const DEFAULT_HTTP_BODY_KIB: usize = 256;

/// The largest that can be said: what a large packet may have.
const MAX_HTTP_BODY_KIB: usize = 16 << 10;

fn packet_bytes() -> checked::Rule<impl Fn(&checked::Value<'_>) -> Result<u32, String>> {
    integer(1_024..=64 << 20)
}

fn address() -> checked::Rule<impl Fn(&checked::Value<'_>) -> Result<SocketAddr, String>> {
    parsed("an address and a port such as \"127.0.0.1:1883\"", str::parse)
}

fn password() -> checked::Rule<impl Fn(&checked::Value<'_>) -> Result<Secret, String>> {
    parsed("a text in quotes", |value: &str| Ok::<_, String>(Secret(value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(toml: &str) -> String {
        Config::parse("agent.toml", toml, Path::new("/etc/agent"))
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        let toml = "[gateway]\ndata_dir = \"data\"\n[mqtt.listen]\naddress = \"127.0.0.1:1883\"";
        let config = Config::parse("agent.toml", toml, Path::new("/etc/agent")).unwrap();
        assert_eq!(config.gateway.data_dir, Path::new("/etc/agent/data"));
        assert!(matches!(config.mqtt, Mqtt::Listen(listen) if listen.max_packet_bytes == DEFAULT_PACKET_BYTES));
        assert!(config.cloud.is_none() && config.status.is_none() && config.functions.is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = mistakes(
            "[gateway]\nworkers = 0\n[mqtt.connect]\nhost = \"h\"\nclient_id = \"\"\npasword = \"x\"\n\
             [cloud]\nurl = \"ftp://x/y\"\n[deploy]\ntrusted_keys = [\"k\"]\n[[function]]\nconfig = {}\n",
        );
        let lines: Vec<&str> = found.lines().collect();
        let begins = [
            "agent.toml:1:1: gateway.data_dir: is missing",
            "agent.toml:2:11: gateway.workers: is 0; allowed is a whole number from 1 to 64",
            "agent.toml:5:13: mqtt.connect.client_id: is \"\"; allowed is a text of 1 to 128 bytes",
            "agent.toml:6:1: mqtt.connect.pasword: is not known here; did you mean \"password\"?",
            "agent.toml:8:8: cloud.url: is \"ftp://x/y\": has the scheme \"ftp\"; http and https are allowed",
            "agent.toml:10:18: deploy.trusted_keys[1]: is \"k\"",
            "agent.toml:11:1: function[1].path: is missing",
        ];
        assert_eq!(lines.len(), begins.len(), "{found}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{line}\n{begin}");
        }
    }

    #[test]
    fn one_way_in_is_needed_and_no_more() {
        let gateway = "[gateway]\ndata_dir = \"d\"\n";
        assert!(mistakes(gateway).contains("needs [mqtt.listen]"));
        let both = "[mqtt.listen]\naddress = \"[::1]:1\"\n[mqtt.connect]\nhost = \"h\"\nclient_id = \"c\"";
        assert!(mistakes(&format!("{gateway}{both}")).contains("not both"));
        // A mistake in the one that is there is all there is to say.
        assert_eq!(mistakes(&format!("{gateway}[mqtt.listen]\naddress = 1")).lines().count(), 1);
    }

    #[test]
    fn identities_are_checked_as_a_whole() {
        let rest = "[gateway]\ndata_dir = \"d\"\n[mqtt.listen]\naddress = \"[::1]:1\"\n";
        let entry = |keys: &str| format!("{rest}[[identity]]\ntopic = \"sensors/+/reading\"\n{keys}");
        let good = entry(
            "device = \"topic:2\"\nsequence = \"json:meta.seq\"\n[[identity]]\ntopic = \"#\"\nsequence = \"topic:9\"",
        );
        let Mqtt::Listen(listen) = Config::parse("agent.toml", &good, Path::new("")).unwrap().mqtt else {
            unreachable!()
        };
        assert_eq!(listen.mapping.0.len(), 2);
        assert_eq!(listen.mapping.0[0].sequence, Place::Field(vec!["meta".to_owned(), "seq".to_owned()]));

        let found = mistakes(&entry("device = \"topic:4\"\nsequence = \"meta.seq\"\nboot = \"json:a..b\"\nseq = 1"));
        let begins = [
            "agent.toml:7:1: identity[1].device: is \"topic:4\", but no topic that matches \"sensors/+/reading\" has so many levels",
            "agent.toml:8:13: identity[1].sequence: is \"meta.seq\": begins with neither \"topic:\" nor \"json:\"; allowed is \"topic:N\"",
            "agent.toml:9:9: identity[1].boot: is \"json:a..b\": has an empty key in its path",
            "agent.toml:10:1: identity[1].seq: is not known here",
        ];
        assert_eq!(found.lines().count(), begins.len(), "{found}");
        for (line, begin) in found.lines().zip(begins) {
            assert!(line.starts_with(begin), "{line}\n{begin}");
        }
        let again = "sequence = \"json:a\"\n";
        let twice = mistakes(&entry(&format!("{again}[[identity]]\ntopic = \"sensors/+/reading\"\n{again}")));
        assert!(twice.contains("identity: has two entries for \"sensors/+/reading\""), "{twice}");
        let entries = (0..=MAX_ENTRIES).map(|n| format!("[[identity]]\ntopic = \"t{n}\"\nsequence = \"json:a\"\n"));
        let many = mistakes(&format!("{rest}{}", entries.collect::<String>()));
        assert!(many.contains("identity: there are 65 of them; allowed is"), "{many}");
    }

    #[test]
    fn watched_folders_have_a_bucket_each() {
        let rest = "[gateway]\ndata_dir = \"d\"\n[mqtt.listen]\naddress = \"[::1]:1\"\n";
        let watch = |bucket: &str, more: &str| format!("[[watch]]\nfolder = \"in\"\nbucket = \"{bucket}\"\n{more}");
        let good = format!("{rest}{}{}", watch("a", "files = \"r-*.csv\"\nafter = \"delete\"\n"), watch("b", ""));
        let config = Config::parse("agent.toml", &good, Path::new("/etc/agent")).unwrap();
        let [one, two] = config.watches.as_slice() else { panic!("{:?}", config.watches) };
        assert_eq!(
            (one.folder.as_path(), one.after, two.after),
            (Path::new("/etc/agent/in"), After::Delete, After::Keep)
        );
        assert!(one.is_meant("a/x/r-1.csv") && !one.is_meant("a/r-1/x.csv") && !one.is_meant("a/r-.cs"));
        assert!(!one.is_meant("a/r-.csv".strip_suffix('v').unwrap()) && two.is_meant("b/anything"));
        assert_eq!((config.blobs.max_bytes, config.blobs.quota_bytes), (64 << 20, 1 << 30));
        let wrong = format!("{rest}{}{}", watch("A", "files = \"a\"\nafter = \"move\"\n"), "[blobs]\nmax_mib = 2048\n");
        let found = mistakes(&wrong);
        for part in
            ["watch[1].bucket: is \"A\"", "watch[1].files: is \"a\": has no \"*\"", "watch[1].after", "blobs.max_mib"]
        {
            assert!(found.contains(part), "{found}");
        }
        let twice = mistakes(&format!("{rest}{}{}", watch("a", ""), watch("a", "")));
        assert!(twice.contains("watch: has two folders for the bucket \"a\""), "{twice}");
    }

    #[test]
    fn secrets_do_not_show() {
        let toml = "[gateway]\ndata_dir = \"d\"\n[mqtt.listen]\naddress = \"[::1]:1\"\nusers = { t1 = \"hunter2\" }";
        let config = Config::parse("agent.toml", toml, Path::new("")).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
