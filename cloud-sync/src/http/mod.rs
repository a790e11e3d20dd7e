//! The two interfaces, and what both need: bodies, tokens, room.

pub(crate) mod gateway;
pub(crate) mod operator;

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::db::Db;
use crate::fault::Fault;
use crate::limits::{BODY_ARRIVES, BODY_TURN, DRAIN_BYTES, MAX_ARTIFACTS, MAX_BODIES};
use crate::secret::Hash;

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) db: Db,
    operator_token: Hash,
    bodies: Arc<Semaphore>,
    artifacts: Arc<Semaphore>,
    /// Becomes true when those who wait for news are to be sent home.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl App {
    pub(crate) fn new(db: Db, operator_token: Hash, stopping: watch::Receiver<bool>) -> Self {
        let [bodies, artifacts] = [MAX_BODIES, MAX_ARTIFACTS].map(|most| Arc::new(Semaphore::new(most)));
        Self { db, operator_token, bodies, artifacts, stopping }
    }

    /// Room for one large body; held until it was dealt with.
    async fn room(&self) -> Result<OwnedSemaphorePermit, Fault> {
        turn(&self.bodies).await
    }

    /// Room for one function on its way out; held until it is sent.
    async fn room_for_artifact(&self) -> Result<OwnedSemaphorePermit, Fault> {
        turn(&self.artifacts).await
    }
}

async fn turn(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    match tokio::time::timeout(BODY_TURN, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(Fault::Stopping),
        Err(_) => Err(Fault::Busy),
    }
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(gateway::routes())
        .merge(operator::routes())
        .route("/healthz", get(healthz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

/// For a supervisor or a proxy: 200 while the control plane works.
async fn healthz(State(app): State<Arc<App>>) -> Response {
    if app.db.works() { "ok\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, "broken\n").into_response() }
}

async fn unknown_path(uri: Uri) -> Response {
    let message = format!("there is nothing at {}; look at the path and at the versions of both sides", uri.path());
    either(&uri, Fault::not_found("unknown_path", message))
}

async fn wrong_method(uri: Uri) -> Response {
    let message = format!("this method is not allowed at {}", uri.path());
    either(&uri, Fault::refused(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message))
}

/// A refusal in the form of the interface that the path belongs to.
fn either(uri: &Uri, fault: Fault) -> Response {
    if uri.path().starts_with("/gateway/") { gateway::refuse(fault) } else { operator::refuse(fault) }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The whole body, if it has at most `limit` bytes and arrives in time.
async fn read_body(body: Body, limit: usize) -> Result<Bytes, Fault> {
    tokio::time::timeout(BODY_ARRIVES, collect(body, limit)).await.map_err(|_| Fault::Busy)?
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Fault> {
    // A length that was announced is not trusted, but the usual body is then collected without moving it about.
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let (mut bytes, mut total) = (Vec::with_capacity(expected.min(limit)), 0_usize);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| Fault::bad("broken_body", format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= limit {
            bytes.extend_from_slice(&data);
        } else if total > DRAIN_BYTES {
            break;
        }
    }
    if total > limit {
        let message = format!("the body has {} bytes or more; at most {limit} are accepted here", total.max(expected));
        return Err(Fault::refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    Ok(bytes.into())
}
