//! The link to the control plane: every request the gateway makes of it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use function_package::Digest;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sync_protocol::{Refusal, enroll, fleet, records};

use crate::config::Cloud;
use crate::meter::Meter;

/// The agent's version, as the control plane shows it.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A link that knows who the gateway is.
#[derive(Debug)]
pub struct Link {
    http: Http,
    identity: Identity,
}

/// Requests of the control plane, whoever makes them.
#[derive(Debug)]
struct Http {
    client: reqwest::Client,
    url: String,
    // How long an answer may take, beyond what it was asked to wait.
    timeout: Duration,
    meter: Meter,
}

/// Who the gateway is.
#[derive(Serialize, Deserialize)]
struct Identity {
    gateway: String,
    credential: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.gateway).finish()
    }
}

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no link, or the control plane is not ready: the same request may work later.
    #[error("the control plane at {url} cannot be reached: {cause}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong.
        cause: String,
        /// How long it wants to be left alone (Retry-After), if it said so.
        retry_after: Option<Duration>,
    },
    /// The control plane will not do this.
    #[error("the control plane refused {what}: {refusal}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// The answer is none.
    #[error("the control plane's answer to {what} cannot be used: {cause}")]
    Nonsense {
        /// What was asked.
        what: &'static str,
        /// What is wrong with the answer.
        cause: String,
    },
    /// The gateway is not enrolled and cannot enrol.
    #[error("{0}")]
    NotEnrolled(String),
}

/// What the heads of a request and its answer take, in bytes, as measured with a recording proxy.
const HEADS: usize = 400;

/// A control plane that wants to be left alone for longer than this is asked again all the same.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// How long a function's file may take, which on a slow link is more than any answer.
const ARTIFACT_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest function that is taken, in bytes.
const MAX_ARTIFACT_BYTES: usize = function_package::MAX_PACKAGE_BYTES;

impl Link {
    /// The link of a gateway that is enrolled, or that now becomes so with its claim token.
    ///
    /// # Errors
    /// If it is not and cannot; [`LinkError::Unreachable`] means that it may work later.
    pub async fn open(cloud: &Cloud, data_dir: &Path, name: &str, meter: Meter) -> Result<Self, LinkError> {
        // Only a client without a usable TLS set-up fails to build; the provider was chosen at the start.
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| unreachable(&cloud.url, &error))?;
        let http = Http { client, url: cloud.url.clone(), timeout: cloud.timeout, meter };
        let file = data_dir.join("identity.json");
        let identity = match read(&file)? {
            Some(identity) => identity,
            None => http.enrol(cloud, data_dir, name, &file).await?,
        };
        Ok(Self { http, identity })
    }

    /// Delivers ranges of records, as [`pack`] packs them. Returns how many bytes went and came, too.
    ///
    /// # Errors
    /// Nothing may be deleted then.
    pub async fn records(&self, body: Vec<u8>) -> Result<(records::Reply, usize), LinkError> {
        let bytes = body.len() + HEADS;
        let post = self.post(sync_protocol::PATH_RECORDS).header(CONTENT_ENCODING, sync_protocol::ENCODING);
        let reply = self.http.exchange("records", post, body, self.http.timeout).await?;
        Ok((reply, bytes))
    }

    /// Reports, and waits for news.
    ///
    /// # Errors
    /// What runs goes on running then.
    pub async fn sync(&self, request: &fleet::Request) -> Result<fleet::Reply, LinkError> {
        let wait = Duration::from_secs(request.wait_s.into()) + self.http.timeout;
        let body = sync_protocol::encode(request);
        self.http.exchange("the report", self.post(sync_protocol::PATH_SYNC), body, wait).await
    }

    /// Fetches a function's file. Its digest is not checked here.
    ///
    /// # Errors
    /// If there is no such file, or it did not come whole.
    pub async fn artifact(&self, digest: Digest) -> Result<Vec<u8>, LinkError> {
        let path = format!("{}{}/{digest}", self.http.url, sync_protocol::PATH_ARTIFACTS);
        let request = self.http.client.get(path).header(AUTHORIZATION, self.bearer()).timeout(ARTIFACT_TIMEOUT);
        self.http.answer("a function's file", request, self.http.timeout, MAX_ARTIFACT_BYTES).await
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.client.post(format!("{}{path}", self.http.url)).header(AUTHORIZATION, self.bearer())
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.identity.credential)
    }
}

impl Http {
    async fn exchange<R: DeserializeOwned>(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<R, LinkError> {
        self.meter.add(body.len());
        let request = request.header(CONTENT_TYPE, sync_protocol::CONTENT_TYPE).body(body).timeout(timeout);
        let body = self.answer(what, request, timeout, sync_protocol::MAX_BODY_BYTES).await?;
        sync_protocol::decode(&body).map_err(|error| LinkError::Nonsense { what, cause: error.to_string() })
    }

    // The body of an answer, at most so many bytes of it. No part of it may take longer than `silence` to come.
    async fn answer(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
        silence: Duration,
        limit: usize,
    ) -> Result<Vec<u8>, LinkError> {
        self.meter.add(HEADS);
        let mut response = self.within(silence, request.send()).await?;
        let status = response.status();
        // Seconds; a date (RFC 9110, section 10.2.3) would need a clock that is right.
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = self.within(silence, response.chunk()).await? {
            self.meter.add(chunk.len());
            if body.len() + chunk.len() > limit {
                return Err(LinkError::Nonsense { what, cause: format!("it is longer than {limit} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        if status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS {
            return Err(LinkError::Unreachable {
                url: self.url.clone(),
                cause: format!("it answered {status}"),
                retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
            });
        }
        match sync_protocol::decode::<Refusal>(&body) {
            Ok(refusal) => Err(LinkError::Refused { what, refusal }),
            Err(_) => Err(LinkError::Nonsense {
                what,
                cause: format!(
                    "{status} without a reason; is {} the control plane, or something in between?",
                    self.url
                ),
            }),
        }
    }

    async fn within<T>(
        &self,
        silence: Duration,
        step: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, LinkError> {
        match tokio::time::timeout(silence, step).await {
            Ok(done) => done.map_err(|error| unreachable(&self.url, &error)),
            Err(_) => Err(LinkError::Unreachable {
                url: self.url.clone(),
                cause: format!("it was silent for {} s", silence.as_secs()),
                retry_after: None,
            }),
        }
    }

    async fn enrol(&self, cloud: &Cloud, data_dir: &Path, name: &str, file: &Path) -> Result<Identity, LinkError> {
        let advice = "make a claim token with `edgectl claim new` and name its file as cloud.claim_file";
        let Some(claim_file) = &cloud.claim_file else {
            return Err(LinkError::NotEnrolled(format!("the gateway is not enrolled with {}; {advice}", cloud.url)));
        };
        let claim = fs::read_to_string(claim_file).map_err(|error| {
            LinkError::NotEnrolled(format!("cannot read the claim token {}: {error}; {advice}", claim_file.display()))
        })?;
        let request = enroll::Request {
            claim: claim.trim().to_owned(),
            name: name.to_owned(),
            agent_version: AGENT_VERSION.to_owned(),
            nonce: nonce(&data_dir.join("enrol-nonce"))?,
        };
        let post = self.client.post(format!("{}{}", self.url, sync_protocol::PATH_ENROLL));
        let body = sync_protocol::encode(&request);
        let reply: enroll::Reply = self.exchange("to enrol this gateway", post, body, self.timeout).await?;
        let identity = Identity { gateway: reply.gateway, credential: reply.credential };
        let json = serde_json::to_vec_pretty(&identity).map_err(|error| cannot_keep(file, &error.into()))?;
        write(file, &json).map_err(|error| cannot_keep(file, &error))?;
        tracing::info!(gateway = identity.gateway, url = cloud.url, "enrolled");
        Ok(identity)
    }
}

impl LinkError {
    /// How long the control plane wants to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Packs what [`Link::records`] delivers, which takes some milliseconds of a processor.
pub fn pack(request: &records::Request) -> Vec<u8> {
    sync_protocol::compress(&sync_protocol::encode(request))
}

fn unreachable(url: &str, error: &dyn std::error::Error) -> LinkError {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        cause = format!("{cause}: {error}");
        source = error.source();
    }
    LinkError::Unreachable { url: url.to_owned(), cause, retry_after: None }
}

// The same number until the gateway is enrolled, so that an answer that was lost can be given again.
fn nonce(file: &Path) -> Result<[u8; 16], LinkError> {
    if let Ok(kept) = fs::read(file)
        && let Ok(kept) = kept.try_into()
    {
        return Ok(kept);
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| LinkError::NotEnrolled(format!("the system gives no random numbers: {error}")))?;
    write(file, &nonce).map_err(|error| cannot_keep(file, &error))?;
    Ok(nonce)
}

fn cannot_keep(file: &Path, error: &io::Error) -> LinkError {
    LinkError::NotEnrolled(format!("cannot write {}: {error}", file.display()))
}

fn read(file: &PathBuf) -> Result<Option<Identity>, LinkError> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            LinkError::NotEnrolled(format!(
                "the gateway's identity {} is damaged: {error}; put a copy back, or remove it and enrol anew",
                file.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LinkError::NotEnrolled(format!("cannot read {}: {error}", file.display()))),
    }
}

// Whole or not at all, readable by nobody else, and on the disk.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = file.with_extension("draft");
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&draft, file)?;
    fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}
