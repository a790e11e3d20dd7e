//! How the agent is, over HTTP: `GET /healthz` for a watchdog, `GET /status` for a person or a program, `GET /metrics` for
//! Prometheus; and `POST /recordings` for `edge-agent record`, from this machine only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use agent_broker::{Handle, Stats};
use agent_store::{FunctionUsage, Reader, StreamUsage};
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use sync_protocol::fleet::FunctionReport;
use sync_protocol::usage::{Counts, Histogram, Part};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::limits;
use crate::meter::Meter;
use crate::pipeline::Pipeline;
use crate::pipeline::recording::Wanted;
use crate::record::{MAX_BYTES, MAX_RUNS};

mod metrics;

/// What the status is made of.
#[derive(Debug)]
pub struct Sources {
    /// The counts.
    pub pipeline: Arc<Pipeline>,
    /// The outbox and the dead letters.
    pub reader: Mutex<Reader>,
    /// What goes over the link.
    pub meter: Meter,
    /// The gateway's own broker, if it has one.
    pub broker: Option<Handle>,
    /// How every function is.
    pub functions: watch::Receiver<Vec<FunctionReport>>,
}

/// All of it, as JSON.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    uptime_s: u64,
    events: Events,
    records: Records,
    link: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<Broker>,
    dead_letters: u64,
    messages: u64,
    blobs: Blobs,
    requests: Requests,
    resets: u64,
    functions: Vec<Function>,
    usage: Vec<Usage>,
}

#[derive(Serialize)]
struct Events {
    received: u64,
    committed: u64,
    in_flight: usize,
    handled: u64,
    duplicates: u64,
    dead: u64,
    retried: u64,
    unmatched: u64,
    unidentified: u64,
}

#[derive(Serialize)]
struct Records {
    waiting: u64,
    delivered: u64,
    alarms: u64,
    streams: Vec<Stream>,
}

// How many names there are, and the bytes of all contents.
#[derive(Serialize)]
struct Blobs {
    count: u64,
    bytes: u64,
    files_refused: u64,
}

#[derive(Serialize)]
struct Stream {
    name: String,
    waiting: u64,
    bytes: u64,
}

// HTTP requests of functions: those that have no answer yet, up to a bound; and since the agent started, every try, and how
// they ended.
#[derive(Serialize)]
struct Requests {
    waiting: u64,
    sent: u64,
    answered: u64,
    failed: u64,
}

// What went over the link to the control plane in a calendar month (UTC).
#[derive(Serialize)]
struct Link {
    month: String,
    bytes: u64,
}

// The gateway's own broker since it began to listen; connections, sessions and retained messages are of now.
#[derive(Serialize)]
struct Broker {
    connections: u64,
    sessions: u64,
    retained: u64,
    publishes: u64,
    acknowledged: u64,
    delivered: u64,
    dropped: u64,
    refused: u64,
    denied: u64,
    turned_away: u64,
}

#[derive(Serialize)]
struct Function {
    name: String,
    version: String,
    digest: String,
    deployment: u64,
    status: &'static str,
    detail: String,
    state_bytes: u64,
}

// What a function used and measured since the agent started, as far as it is committed.
#[derive(Serialize)]
struct Usage {
    function: String,
    invocations: u64,
    failed: u64,
    fuel: u64,
    busy_us: u64,
    memory_peak_bytes: u64,
    bytes_in: u64,
    bytes_out: u64,
    counters: BTreeMap<String, f64>,
    observed: BTreeMap<String, Observed>,
}

#[derive(Serialize)]
struct Observed {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// Binds the address.
///
/// # Errors
/// The port is taken, or the address is not of this machine.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "the status is at /status");
    Ok(listener)
}

/// Answers until the agent ends.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/recordings", post(record))
        .with_state(sources)
        .into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("the status cannot be served any more: {error}");
    }
}

async fn health(State(sources): State<Arc<Sources>>) -> (StatusCode, &'static str) {
    match read(&sources) {
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}

async fn status(State(sources): State<Arc<Sources>>) -> Result<Json<Status>, (StatusCode, String)> {
    let Counted { usage, states, dead_letters, messages, requests, blobs: (count, bytes) } =
        read(&sources).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let pipeline = &sources.pipeline;
    let counters = &pipeline.counters;
    let functions = sources.functions.borrow().iter().map(|report| function(report, &states)).collect();
    let metered = sources.meter.read();
    Ok(Json(Status {
        version: crate::link::AGENT_VERSION,
        uptime_s: pipeline.clock.agent_uptime_s(),
        events: Events {
            received: counters.received.get(),
            committed: counters.committed.get(),
            in_flight: pipeline.in_flight(),
            handled: counters.handled.get(),
            duplicates: counters.duplicates.get(),
            dead: counters.dead.get(),
            retried: counters.retried.get(),
            unmatched: counters.unmatched.get(),
            unidentified: counters.unidentified.get(),
        },
        records: Records {
            waiting: usage.iter().map(|stream| stream.records).sum(),
            delivered: counters.delivered.get(),
            alarms: counters.alarms.get(),
            streams: usage.iter().map(stream).collect(),
        },
        link: Link { month: format!("{:04}-{:02}", metered.month / 12, metered.month % 12 + 1), bytes: metered.bytes },
        broker: sources.broker.as_ref().map(|broker| self::broker(broker.stats())),
        dead_letters,
        messages,
        blobs: Blobs { count, bytes, files_refused: counters.files_refused.get() },
        requests: Requests {
            waiting: requests,
            sent: counters.requests_sent.get(),
            answered: counters.requests_answered.get(),
            failed: counters.requests_failed.get(),
        },
        resets: counters.resets.get(),
        functions,
        usage: pipeline.totals.read().parts().iter().map(self::usage).collect(),
    }))
}

/// Streams a recording of a function's runs until there are as many as were asked for, or the client goes.
///
/// Events hold what devices sent, so this is for who is on the gateway, wherever the status may be seen from.
async fn record(
    State(sources): State<Arc<Sources>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Json(wanted): Json<Wanted>,
) -> Response {
    if !client.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "recordings are for this machine only; log in to the gateway\n")
            .into_response();
    }
    let within = (1..=MAX_RUNS).contains(&wanted.runs) && (1..=MAX_BYTES).contains(&wanted.bytes);
    if !within {
        let why = format!("1 to {MAX_RUNS} runs and 1 to {MAX_BYTES} bytes can be recorded\n");
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let plan = sources.pipeline.plan();
    if plan.find(&wanted.function).is_none() {
        let names: Vec<&str> = plan.slots().map(|slot| &*slot.name).collect();
        let why = format!("no function {:?} runs here; there are: {}\n", wanted.function, names.join(", "));
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    tracing::info!(function = wanted.function, runs = wanted.runs, "its runs are recorded");
    match sources.pipeline.recordings.begin(wanted) {
        Some(recording) => Body::from_stream(recording).into_response(),
        None => (StatusCode::CONFLICT, "a recording is being made already; end that one first\n").into_response(),
    }
}

/// What the store says.
struct Counted {
    usage: Vec<StreamUsage>,
    states: Vec<FunctionUsage>,
    dead_letters: u64,
    messages: u64,
    requests: u64,
    blobs: (u64, u64),
}

async fn metrics(State(sources): State<Arc<Sources>>) -> Result<impl IntoResponse, (StatusCode, String)> {
    let Counted { usage: streams, dead_letters, messages, .. } =
        read(&sources).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let numbers = metrics::Numbers {
        uptime_s: sources.pipeline.clock.agent_uptime_s(),
        in_flight: sources.pipeline.in_flight(),
        link_bytes: sources.meter.read().bytes,
        dead_letters,
        messages,
        streams: &streams,
        broker: sources.broker.as_ref().map(Handle::stats),
    };
    let page = metrics::page(&sources.pipeline.counters, &numbers, &sources.pipeline.totals.read());
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page))
}

fn read(sources: &Sources) -> Result<Counted, agent_store::StoreError> {
    tokio::task::block_in_place(|| {
        let mut reader = sources.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Counted {
            usage: reader.usage()?,
            states: reader.functions()?,
            dead_letters: reader.dead_letter_count()?,
            messages: reader.message_count()?,
            blobs: reader.blob_usage()?,
            requests: reader.request_count(limits::REQUESTS_COUNTED)?,
        })
    })
}

fn stream(usage: &StreamUsage) -> Stream {
    Stream { name: usage.name.to_string(), waiting: usage.records, bytes: usage.bytes }
}

fn usage(part: &Part) -> Usage {
    let mut sum = Counts::default();
    part.devices.values().for_each(|counts| sum.add(counts));
    let observed = |values: &Histogram| Observed {
        count: values.count(),
        sum: values.sum(),
        min: values.min(),
        max: values.max(),
        p50: values.quantile(0.5),
        p90: values.quantile(0.9),
        p99: values.quantile(0.99),
    };
    Usage {
        function: part.function.clone(),
        invocations: sum.invocations,
        failed: sum.failed,
        fuel: sum.fuel,
        busy_us: sum.busy_ns / 1_000,
        memory_peak_bytes: sum.memory_peak_bytes,
        bytes_in: sum.bytes_in,
        bytes_out: sum.bytes_out,
        counters: part.counters.clone(),
        observed: part.histograms.iter().map(|(name, values)| (name.clone(), observed(values))).collect(),
    }
}

fn broker(stats: Stats) -> Broker {
    Broker {
        connections: stats.connections,
        sessions: stats.sessions,
        retained: stats.retained,
        publishes: stats.publishes_in,
        acknowledged: stats.acks_out,
        delivered: stats.delivered,
        dropped: stats.dropped,
        refused: stats.refused,
        denied: stats.denied,
        turned_away: stats.turned_away,
    }
}

fn function(report: &FunctionReport, states: &[FunctionUsage]) -> Function {
    use sync_protocol::fleet::FunctionStatus as S;
    Function {
        name: report.name.clone(),
        version: report.version.clone(),
        digest: function_package::Digest::from_bytes(report.digest).to_string(),
        deployment: report.deployment,
        status: match report.status {
            S::Trial => "trial",
            S::Running => "running",
            S::RolledBack => "rolled_back",
            S::Failed => "failed",
        },
        detail: report.detail.clone(),
        state_bytes: states.iter().find(|of| *of.name == *report.name).map_or(0, |of| of.state_bytes),
    }
}
