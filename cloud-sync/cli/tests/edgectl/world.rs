//! A control plane, the program, and a gateway that speaks the protocol.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cloud_sync::{Config, OPERATOR_TOKEN_FILE, Server, serve};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_protocol::dead::{self, Note, Payload};
use sync_protocol::records::{Class, Entry, Gone, Origin, Range, Reason, Record, Stamp, StoreEpoch, Tally};
use sync_protocol::usage::{self, Part, Usage};
use sync_protocol::{enroll, fleet, records, twin};
use tempfile::TempDir;

pub(crate) struct World {
    pub(crate) dir: TempDir,
    server: Server,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().join("data"), listen: "127.0.0.1:0".parse().unwrap() };
        let server = serve(&config).await.unwrap();
        Self { dir, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, told where the control plane and the token are.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(self.dir.path(), args);
        command
            .env("EDGECTL_SERVER", self.url())
            .env("EDGECTL_TOKEN_FILE", self.path("data").join(OPERATOR_TOKEN_FILE));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::from(self.command(args).output().unwrap())
    }

    /// What a command prints that succeeds.
    pub(crate) fn text(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.status, 0, "{args:?}: {}", done.stderr);
        done.stdout
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.text(&[&["--json"], args].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// The standard error of a command to which the answer is no.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.status, 1, "{args:?}: {}{}", done.stdout, done.stderr);
        done.stderr
    }

    /// Makes, signs and pushes a function; answers with its digest.
    pub(crate) fn push(&self, name: &str, version: &str) -> String {
        std::fs::write(self.path("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
        let manifest = format!(
            "manifest = 1\nname = \"{name}\"\nversion = \"{version}\"\n[[trigger]]\nmqtt = \"a/+\"\n[config]\nlimit = 30.0\n"
        );
        std::fs::write(self.path("function.toml"), manifest).unwrap();
        if !self.path("key").exists() {
            self.text(&["key", "new", "--out", "key"]);
        }
        let file = format!("{name}-{version}.wasm");
        self.text(&["fn", "build", "--wasm", "module.wasm", "--manifest", "function.toml", "--out", &file]);
        self.json(&["push", &file, "--key", "key"])["digest"].as_str().unwrap().to_owned()
    }

    /// A gateway that has enrolled with a claim of the program's.
    pub(crate) async fn gateway(&self, claim_args: &[&str]) -> Gateway {
        let claim = self.text(&[&["claim", "new"], claim_args].concat());
        let request = enroll::Request {
            claim: claim.trim_end().to_owned(),
            name: "hall 3".to_owned(),
            agent_version: "0.1.0".to_owned(),
            nonce: [1; 16],
        };
        let mut gateway = Gateway { client: client(), url: self.url(), id: String::new(), credential: String::new() };
        let reply: enroll::Reply = gateway.post(sync_protocol::PATH_ENROLL, &request).await;
        (gateway.id, gateway.credential) = (reply.gateway, reply.credential);
        gateway
    }
}

/// The program in an environment that says nothing about a control plane.
pub(crate) fn bare(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgectl"));
    command.args(args).current_dir(dir).env("NO_PROXY", "127.0.0.1");
    for variable in ["EDGECTL_SERVER", "EDGECTL_TOKEN_FILE", "EDGECTL_TOKEN"] {
        command.env_remove(variable);
    }
    command
}

/// How a run of the program ended.
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn client() -> reqwest::Client {
    // Fails if another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[derive(Clone)]
pub(crate) struct Gateway {
    client: reqwest::Client,
    url: String,
    pub(crate) id: String,
    credential: String,
}

impl Gateway {
    async fn post<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> T {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.credential);
        let answer = request.body(sync_protocol::encode(message)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        sync_protocol::decode(&answer.bytes().await.unwrap()).unwrap()
    }

    /// Waits for a change, and reports each desired function as `status` says.
    pub(crate) async fn follow(
        &self,
        generation: u64,
        status: impl Fn(&fleet::DesiredFunction) -> (fleet::FunctionStatus, &'static str),
    ) -> u64 {
        let ask = fleet::Request { generation, wait_s: 20, commands_done: 0, report: None };
        let fleet::Reply::Desired(desired) = self.post(sync_protocol::PATH_SYNC, &ask).await else {
            panic!("nothing new in 20 s")
        };
        let functions = desired.functions.iter().map(|function| {
            let (status, detail) = status(function);
            fleet::FunctionReport {
                name: function.name.clone(),
                version: function.version.clone(),
                digest: function.digest,
                deployment: function.deployment,
                status,
                detail: detail.to_owned(),
            }
        });
        let report = fleet::Report {
            agent_version: "0.1.0".to_owned(),
            generation: desired.generation,
            uptime_s: 5,
            epoch: StoreEpoch(1),
            waiting: 3,
            streams: vec![fleet::StreamReport { name: "temperature".to_owned(), waiting: 3, bytes: 321 }],
            handled: 0,
            dead_letters: 0,
            functions: functions.collect(),
        };
        let ask = fleet::Request { generation: desired.generation, wait_s: 0, commands_done: 0, report: Some(report) };
        let _: fleet::Reply = self.post(sync_protocol::PATH_SYNC, &ask).await;
        desired.generation
    }

    /// Delivers records that follow on what was delivered.
    pub(crate) async fn send(&self, first: u64, bodies: &[&[u8]]) {
        assert_eq!(self.send_some(first, bodies).await, first + bodies.len() as u64 - 1);
    }

    /// Delivers records; answers with the mark.
    pub(crate) async fn send_some(&self, first: u64, bodies: &[&[u8]]) -> u64 {
        let entries = (first..).zip(bodies).map(|(sequence, body)| {
            Entry::Record(Record {
                stream: "temperature".to_owned(),
                function: "mean".to_owned(),
                origin: Origin { device: format!("dev-{}", sequence % 2), topic: "a/b".to_owned(), identity: None },
                stamp: Stamp {
                    wall_us: 1_793_700_000_000_000 + sequence * 1_000_000,
                    monotonic_us: 0,
                    boot: 0,
                    synchronised: true,
                },
                body: body.to_vec(),
            })
        });
        self.deliver(Class::Normal, 1, Range { first, entries: entries.collect() }).await
    }

    /// Tells of dead letters.
    pub(crate) async fn tell(&self, first: u64, notes: &[Note]) {
        let entries = notes.iter().map(|note| {
            Entry::Record(Record {
                stream: dead::STREAM.to_owned(),
                function: "mean".to_owned(),
                origin: Origin { device: "pump-7".to_owned(), topic: "plant/pump-7".to_owned(), identity: None },
                stamp: Stamp { wall_us: 1_793_700_000_000_000, monotonic_us: 0, boot: 0, synchronised: true },
                body: serde_json::to_vec(note).unwrap(),
            })
        });
        self.deliver(Class::High, 1, Range { first, entries: entries.collect() }).await;
    }

    /// Reports properties of devices: device, property and value.
    pub(crate) async fn report(&self, first: u64, reports: &[(&str, &str, Payload)]) {
        let entries = reports.iter().map(|(device, property, value)| {
            let report = twin::Report { property: (*property).to_owned(), value: value.clone() };
            Entry::Record(Record {
                stream: twin::STREAM.to_owned(),
                function: "mean".to_owned(),
                origin: Origin { device: (*device).to_owned(), topic: "a/b".to_owned(), identity: None },
                stamp: Stamp { wall_us: 1_793_700_000_000_000, monotonic_us: 0, boot: 0, synchronised: true },
                body: serde_json::to_vec(&report).unwrap(),
            })
        });
        self.deliver(Class::Normal, 1, Range { first, entries: entries.collect() }).await;
    }

    /// Tells what functions used and measured.
    pub(crate) async fn tell_usage(&self, first: u64, parts: Vec<Part>) {
        let record = Record {
            stream: usage::STREAM.to_owned(),
            function: String::new(),
            origin: Origin { device: String::new(), topic: String::new(), identity: None },
            stamp: Stamp { wall_us: 1_793_700_000_000_000, monotonic_us: 0, boot: 0, synchronised: true },
            body: serde_json::to_vec(&Usage { version: usage::VERSION, parts }).unwrap(),
        };
        self.deliver(Class::High, 1, Range { first, entries: vec![Entry::Record(record)] }).await;
    }

    /// Says that records are gone: of which stream, why, and how many.
    pub(crate) async fn tell_gone(&self, first: u64, told: &[(&str, Reason, u64)]) {
        let tally = told.iter().map(|(stream, reason, count)| Tally {
            stream: (*stream).to_owned(),
            reason: *reason,
            count: *count,
        });
        let entries = vec![Entry::Gone(Gone { tally: tally.collect() })];
        self.deliver(Class::Normal, first, Range { first, entries }).await;
    }

    async fn deliver(&self, class: Class, floor: u64, range: Range) -> u64 {
        let request = records::Request::new(StoreEpoch(1), class, floor, vec![range]);
        let reply: records::Reply = self.post(sync_protocol::PATH_RECORDS, &request).await;
        reply.high_water
    }
}
