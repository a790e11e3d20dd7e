//! A control plane on a free port, and the two kinds of client.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cloud_sync::{Config, OPERATOR_TOKEN_FILE, Server, serve};
use function_package::{Package, Signature, SigningKey};
use reqwest::header::CONTENT_ENCODING;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::api;
use sync_protocol::records::{Class, Entry, Gone, Origin, Range, Reason, Record, Stamp, StoreEpoch, Tally};
use sync_protocol::{Refusal, enroll, fleet, records};
use tempfile::TempDir;

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) server: Server,
    pub(crate) api: Api,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    /// On data that may be there already.
    pub(crate) async fn on(dir: TempDir) -> Self {
        let config = Config { data: dir.path().to_owned(), listen: "127.0.0.1:0".parse().unwrap() };
        let server = serve(&config).await.unwrap();
        let api = Api::new(server.address(), dir.path());
        Self { dir, server, api }
    }

    /// Stops the control plane and starts it again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.server.stop().await;
        Self::on(self.dir).await
    }
}

pub(crate) fn client() -> Client {
    // Fails if another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap()
}

/// The operator.
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) base: String,
    pub(crate) token: String,
}

/// What was refused: status and code; the message has been checked to say something.
pub(crate) type Refused = (u16, String);

impl Api {
    pub(crate) fn new(address: SocketAddr, data: &Path) -> Self {
        let token = std::fs::read_to_string(data.join(OPERATOR_TOKEN_FILE)).unwrap().trim().to_owned();
        Self { client: client(), base: format!("http://{address}"), token }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{}{path}", self.base, api::PREFIX);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        json(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: impl Serialize) -> Result<T, Refused> {
        json(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn claim(&self, labels: &[(&str, &str)]) -> String {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.post::<api::Claim>("/claims", api::NewClaim { labels, expires_s: 600 }).await.unwrap().claim
    }

    /// A gateway that has enrolled.
    pub(crate) async fn gateway(&self, labels: &[(&str, &str)]) -> Gateway {
        let request = enroll_request(&self.claim(labels).await, 1);
        let reply = self.enroll(&request).await.unwrap();
        Gateway { client: client(), base: self.base.clone(), id: reply.gateway, credential: reply.credential }
    }

    pub(crate) async fn enroll(&self, request: &enroll::Request) -> Result<enroll::Reply, Refused> {
        let url = format!("{}{}", self.base, sync_protocol::PATH_ENROLL);
        message(self.client.post(url).body(sync_protocol::encode(request))).await
    }

    pub(crate) async fn gateway_state(&self, id: &str) -> api::Gateway {
        let list: api::Gateways = self.get("/gateways").await.unwrap();
        list.gateways.into_iter().find(|gateway| gateway.id == id).unwrap()
    }

    /// What became of the gateway's streams.
    pub(crate) async fn streams_of(&self, id: &str) -> Vec<api::StreamCounts> {
        let detail: api::GatewayDetail = self.get(&format!("/gateways/{id}")).await.unwrap();
        assert_eq!(detail.gateway, self.gateway_state(id).await, "it is what the list says, and more");
        detail.streams
    }

    pub(crate) async fn gaps_of(&self, id: &str, query: &api::GapQuery) -> Result<api::Gaps, Refused> {
        json(self.request(Method::GET, &format!("/gateways/{id}/gaps")).query(query)).await
    }

    pub(crate) async fn push(&self, package: &Package, signature: &Signature) -> Result<api::Function, Refused> {
        let query = api::PushQuery { signature: signature.to_string() };
        json(self.request(Method::POST, "/functions").query(&query).body(package.bytes().to_vec())).await
    }

    pub(crate) async fn deploy(&self, function: &str, target: &str) -> Result<api::Deployment, Refused> {
        self.post("/deployments", serde_json::json!({"function": function, "target": target})).await
    }

    pub(crate) async fn undeploy(&self, function: &str, target: &str) -> Result<api::Deployment, Refused> {
        let query = api::UndeployQuery { function: function.into(), target: target.into() };
        json(self.request(Method::DELETE, "/deployments").query(&query)).await
    }

    pub(crate) async fn page(&self, query: &api::RecordQuery) -> Result<api::Page, Refused> {
        json(self.request(Method::GET, "/records").query(query)).await
    }
}

pub(crate) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Refused> {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let bytes = answer.bytes().await.unwrap();
    if status == StatusCode::OK {
        return Ok(serde_json::from_slice(&bytes).unwrap());
    }
    let error: api::Error = serde_json::from_slice(&bytes).unwrap();
    assert!(error.message.len() > 10, "{error:?}");
    Err((status.as_u16(), error.code))
}

/// A gateway.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) client: Client,
    pub(crate) base: String,
    pub(crate) id: String,
    pub(crate) credential: String,
}

impl Gateway {
    /// The same gateway, when the control plane is elsewhere.
    pub(crate) fn at(self, address: SocketAddr) -> Self {
        Self { base: format!("http://{address}"), ..self }
    }

    pub(crate) fn post(&self, path: &str, body: Vec<u8>) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.credential).body(body)
    }

    /// Answers with the mark.
    pub(crate) async fn send(&self, request: &records::Request) -> Result<u64, Refused> {
        self.send_as(request, sync_protocol::encode(request), &[]).await
    }

    /// Sends these bytes, which are the request as `encodings` say.
    pub(crate) async fn send_as(
        &self,
        request: &records::Request,
        body: Vec<u8>,
        encodings: &[&str],
    ) -> Result<u64, Refused> {
        let sent = self.post(sync_protocol::PATH_RECORDS, body);
        let sent = encodings.iter().fold(sent, |sent, encoding| sent.header(CONTENT_ENCODING, *encoding));
        let reply: records::Reply = message(sent).await?;
        let asked = (request.epoch, request.class, request.checksum);
        assert_eq!((reply.epoch, reply.class, reply.checksum), asked, "it answers this request");
        Ok(reply.high_water)
    }

    pub(crate) async fn sync(&self, request: &fleet::Request) -> Result<fleet::Reply, Refused> {
        message(self.post(sync_protocol::PATH_SYNC, sync_protocol::encode(request))).await
    }

    /// What should run, if that is not the generation given; without waiting.
    pub(crate) async fn desired(&self, generation: u64) -> Option<fleet::Desired> {
        match self.sync(&fleet::Request { generation, wait_s: 0, commands_done: 0, report: None }).await.unwrap() {
            fleet::Reply::Unchanged => None,
            fleet::Reply::Desired(desired) => Some(desired),
            fleet::Reply::Commands(commands) => panic!("{commands:?}"),
        }
    }

    pub(crate) async fn artifact(&self, digest: &str) -> Result<Vec<u8>, Refused> {
        let url = format!("{}{}/{digest}", self.base, sync_protocol::PATH_ARTIFACTS);
        let answer = self.client.get(url).bearer_auth(&self.credential).send().await.unwrap();
        let status = answer.status();
        let bytes = answer.bytes().await.unwrap();
        if status == StatusCode::OK { Ok(bytes.to_vec()) } else { Err(refusal(status, &bytes)) }
    }
}

pub(crate) async fn message<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Refused> {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    assert_eq!(answer.headers()["content-type"], sync_protocol::CONTENT_TYPE);
    let bytes = answer.bytes().await.unwrap();
    if status == StatusCode::OK { Ok(sync_protocol::decode(&bytes).unwrap()) } else { Err(refusal(status, &bytes)) }
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Refused {
    let refusal: Refusal = sync_protocol::decode(bytes).unwrap();
    assert!(refusal.message.len() > 10, "{refusal:?}");
    (status.as_u16(), refusal.code)
}

pub(crate) fn refused<T>(status: u16, code: &str) -> Result<T, Refused> {
    Err((status, code.to_owned()))
}

pub(crate) fn enroll_request(claim: &str, nonce: u8) -> enroll::Request {
    enroll::Request {
        claim: claim.to_owned(),
        name: "hall 3".to_owned(),
        agent_version: "0.1.0".to_owned(),
        nonce: [nonce; 16],
    }
}

pub(crate) const EPOCH: StoreEpoch = StoreEpoch(0xfedc_ba98_7654_3210);

/// The record with this sequence; `variant` makes others of it.
pub(crate) fn record(sequence: u64, variant: &str) -> Record {
    Record {
        stream: if sequence.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        function: "mean".to_owned(),
        origin: Origin {
            device: format!("dev-{}", sequence % 3),
            topic: "sensors/temperature".to_owned(),
            identity: Some((u64::MAX, sequence)),
        },
        stamp: Stamp { wall_us: 1_000 * sequence, monotonic_us: 7, boot: u64::MAX - 1, synchronised: true },
        body: format!(r#"{{"n":{sequence},"v":"{variant}"}}"#).into_bytes(),
    }
}

/// What a gateway has from a sequence on.
#[derive(Clone, Copy)]
pub(crate) enum Piece {
    /// So many records, as [`record`] makes them.
    Records(u64),
    /// Records that are gone, as streams, reasons and counts say.
    Gone(&'static [(&'static str, Reason, u64)]),
}

/// Consecutive sequences from `first` on.
pub(crate) fn pieces(first: u64, pieces: &[Piece]) -> Range {
    let (mut next, mut entries) = (first, Vec::new());
    for piece in pieces {
        let before = entries.len();
        match piece {
            Piece::Records(count) => entries.extend((next..next + count).map(|n| Entry::Record(record(n, "a")))),
            Piece::Gone(told) => {
                let tally = told.iter().map(|(stream, reason, count)| Tally {
                    stream: (*stream).to_owned(),
                    reason: *reason,
                    count: *count,
                });
                entries.push(Entry::Gone(Gone { tally: tally.collect() }));
            }
        }
        next += entries[before..].iter().map(|entry| entry.count().unwrap()).sum::<u64>();
    }
    Range { first, entries }
}

/// A request of these ranges.
pub(crate) fn request(floor: u64, ranges: Vec<Range>) -> records::Request {
    records::Request::new(EPOCH, Class::Normal, floor, ranges)
}

/// A request of the records from `first` on.
pub(crate) fn range(first: u64, count: u64, floor: u64) -> records::Request {
    request(floor, vec![pieces(first, &[Piece::Records(count)])])
}

/// A request of what is gone from `first` on.
pub(crate) fn gone(first: u64, told: &'static [(&'static str, Reason, u64)]) -> records::Request {
    request(1, vec![pieces(first, &[Piece::Gone(told)])])
}

/// The same request with some of its records changed.
pub(crate) fn changed(request: records::Request, mut change: impl FnMut(u64, &mut Record)) -> records::Request {
    let records::Request { epoch, class, floor, mut ranges, .. } = request;
    for range in &mut ranges {
        for (sequence, entry) in (range.first..).zip(&mut range.entries) {
            let Entry::Record(record) = entry else { panic!("only records can be changed") };
            change(sequence, record);
        }
    }
    records::Request::new(epoch, class, floor, ranges)
}

/// A function that is good enough for a control plane, which does not compile it.
pub(crate) fn package(name: &str, version: &str) -> Package {
    let manifest = format!(
        "manifest = 1\nname = \"{name}\"\nversion = \"{version}\"\n[[trigger]]\nmqtt = \"a/+\"\n[config]\nlimit = 30.0\n"
    );
    Package::pack(b"\0asm\x01\0\0\0", &manifest).unwrap()
}

/// Pushes a function; answers with its package.
pub(crate) async fn push(api: &Api, name: &str, version: &str) -> Package {
    let (package, key) = (package(name, version), SigningKey::generate().unwrap());
    api.push(&package, &key.sign(&package.digest())).await.unwrap();
    package
}

/// Asks until the answer is there, for 20 seconds at most.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen in 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
