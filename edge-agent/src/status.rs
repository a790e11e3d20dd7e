//! How the agent is, over HTTP: `GET /healthz` for a watchdog, `GET /status` for a person or a program.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use agent_broker::{Handle, Stats};
use agent_store::{FunctionUsage, Reader, StreamUsage};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use sync_protocol::fleet::FunctionReport;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::limits;
use crate::meter::Meter;
use crate::pipeline::Pipeline;

/// What the status is made of.
#[derive(Debug)]
pub struct Sources {
    /// The counts.
    pub pipeline: Arc<Pipeline>,
    /// The outbox and the dead letters.
    pub reader: Mutex<Reader>,
    /// What goes over the link.
    pub meter: Meter,
    /// The gateway's own broker, once it listens.
    pub broker: OnceLock<Handle>,
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
    requests: Requests,
    resets: u64,
    functions: Vec<Function>,
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
    let router = Router::new().route("/healthz", get(health)).route("/status", get(status)).with_state(sources);
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
    let Counted { usage, states, dead_letters, messages, requests } =
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
        broker: sources.broker.get().map(|broker| self::broker(broker.stats())),
        dead_letters,
        messages,
        requests: Requests {
            waiting: requests,
            sent: counters.requests_sent.get(),
            answered: counters.requests_answered.get(),
            failed: counters.requests_failed.get(),
        },
        resets: counters.resets.get(),
        functions,
    }))
}

/// What the store says.
struct Counted {
    usage: Vec<StreamUsage>,
    states: Vec<FunctionUsage>,
    dead_letters: u64,
    messages: u64,
    requests: u64,
}

fn read(sources: &Sources) -> Result<Counted, agent_store::StoreError> {
    tokio::task::block_in_place(|| {
        let mut reader = sources.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Counted {
            usage: reader.usage()?,
            states: reader.functions()?,
            dead_letters: reader.dead_letter_count()?,
            messages: reader.message_count()?,
            requests: reader.request_count(limits::REQUESTS_COUNTED)?,
        })
    })
}

fn stream(usage: &StreamUsage) -> Stream {
    Stream { name: usage.name.to_string(), waiting: usage.records, bytes: usage.bytes }
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
