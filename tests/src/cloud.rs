//! The control plane.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sync_core::api;

use crate::{Port, Process, World, binary, http, wait_until};

/// How long a program may take from its start to its first answer. It takes milliseconds; the machine may be busy.
pub(crate) const STARTS: Duration = Duration::from_secs(30);

/// A control plane that runs.
#[derive(Debug)]
pub struct Cloud {
    port: Port,
    data: PathBuf,
    token: String,
    /// The program.
    pub process: Process,
}

impl Cloud {
    /// Starts one with an empty store, and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn start(world: &World) -> Result<Self> {
        let (port, data) = (Port::free()?, world.path("cloud"));
        let mut command = Command::new(binary("cloud-sync")?);
        command.arg("serve").arg("--data").arg(&data).args(["--listen", &port.address().to_string()]);
        let mut process = Process::start("cloud-sync", command, &world.logs())?;
        let token = wait_until("the control plane to start", STARTS, || {
            anyhow::ensure!(process.ended().is_none(), "it ended");
            let token = std::fs::read_to_string(data.join("operator-token")).context("no operator token yet")?;
            let token = token.trim().to_owned();
            http::get::<api::Stats>(port.address(), &format!("{}/stats", api::PREFIX), Some(&token))?;
            Ok(token)
        })?;
        Ok(Self { port, data, token, process })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The file with the operator's token.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("operator-token")
    }

    /// All in numbers.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stats(&self) -> Result<api::Stats> {
        self.get("/stats")
    }

    /// Every record of a stream, page by page, in the order in which they were stored.
    ///
    /// # Errors
    /// It does not answer, or one is damaged.
    pub fn records(&self, stream: &str) -> Result<Vec<Record>> {
        self.query(&format!("stream={stream}"))
    }

    /// The same, of one gateway.
    ///
    /// # Errors
    /// It does not answer, or one is damaged.
    pub fn records_of(&self, gateway: &str, stream: &str) -> Result<Vec<Record>> {
        self.query(&format!("gateway={gateway}&stream={stream}"))
    }

    /// How often each function ran for each device's events: by (function, device).
    ///
    /// # Errors
    /// It does not answer.
    pub fn runs(&self) -> Result<BTreeMap<(String, String), u64>> {
        let page: api::UsagePage = self.get("/usage?by=function,device&limit=1000")?;
        let of =
            |row: api::UsageRow| ((row.function.unwrap_or_default(), row.device.unwrap_or_default()), row.invocations);
        Ok(page.usage.into_iter().map(of).collect())
    }

    /// What it knows of a gateway.
    ///
    /// # Errors
    /// It does not answer, or knows none of this id.
    pub fn gateway(&self, id: &str) -> Result<api::Gateway> {
        let all: api::Gateways = self.get("/gateways")?;
        all.gateways.into_iter().find(|gateway| gateway.id == id).with_context(|| format!("there is no gateway {id}"))
    }

    fn query(&self, query: &str) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: api::Page = self.get(&format!("/records?{query}&limit=1000{cursor}"))?;
            for record in page.records {
                records.push(Record::new(record)?);
            }
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(records),
            }
        }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        http::get(self.address(), &format!("{}{path}", api::PREFIX), Some(&self.token))
    }
}

/// What a function sent to the cloud.
#[derive(Clone, Debug)]
pub struct Record {
    /// The device whose event it came from.
    pub device: String,
    /// The boot and the sequence of that event, if it had an identity.
    pub event: Option<(u32, u64)>,
    /// What the function emitted.
    pub body: serde_json::Value,
}

impl Record {
    fn new(record: api::Record) -> Result<Self> {
        let api::Record { device, sequence, stream, identity, intact, body, .. } = record;
        anyhow::ensure!(intact, "record {sequence} of stream {stream} is not as it was sent");
        let event = match identity {
            None => None,
            Some(identity) => Some((
                identity.boot_epoch.parse().context("a device's boot epoch is a number")?,
                identity.sequence.parse().context("an event's sequence is a number")?,
            )),
        };
        let body = match body {
            api::Body::Json(json) => serde_json::from_str(json.get()).context("the body of a record is JSON")?,
            api::Body::Hex(hex) => serde_json::Value::String(hex),
        };
        Ok(Self { device, event, body })
    }
}
