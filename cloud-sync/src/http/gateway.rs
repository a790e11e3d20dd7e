//! What gateways ask: see `sync_protocol`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use function_package::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_protocol::{
    CONTENT_TYPE, ENCODING, FrameError, MAX_BODY_BYTES, PATH_ARTIFACTS, PATH_ENROLL, PATH_RECORDS, PATH_SYNC, Refusal,
    enroll, fleet, records,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{App, bearer, read_body};
use crate::clock::now_us;
use crate::db::Reader;
use crate::fault::Fault;
use crate::limits::MAX_ENROLL_BYTES;
use crate::secret;
use crate::store::gateways::{self, GatewayKey};
use crate::store::ingest::{Checked, Outcome};
use crate::store::{self, dead, deployments, functions};

type Answer<T> = Result<Message<T>, Refused>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(PATH_ENROLL, post(enroll))
        .route(PATH_RECORDS, post(records))
        .route(PATH_SYNC, post(sync))
        .route(&format!("{PATH_ARTIFACTS}/{{digest}}"), get(artifact))
}

/// A message of the protocol as an answer.
struct Message<T>(T);

impl<T: Serialize> IntoResponse for Message<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], sync_protocol::encode(&self.0)).into_response()
    }
}

/// A fault, as gateways are told of it.
struct Refused(Fault);

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message) = self.0.answer();
        tracing::debug!(%status, code, message, "a gateway's request was refused");
        (status, Message(Refusal { code: code.to_owned(), message })).into_response()
    }
}

pub(super) fn refuse(fault: Fault) -> Response {
    Refused(fault).into_response()
}

/// The gateway that a request comes from: by its credential, and by nothing that it says.
impl FromRequestParts<Arc<App>> for GatewayKey {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let find = async {
            let hash = bearer(&parts.headers).map(|token| secret::hash(token.as_bytes()));
            let known = match hash {
                None => None,
                Some(hash) => app.db.read(Reader::Gateways, move |db| gateways::by_credential(db, &hash)).await?,
            };
            known.ok_or_else(|| {
                let message = "the credential is missing or not known here; enrol with a claim of this control plane";
                Fault::refused(StatusCode::UNAUTHORIZED, "unknown_credential", message)
            })
        };
        find.await.map_err(refuse)
    }
}

/// The message in a body that has at most `limit` bytes, both as it comes and as it was before it was compressed.
async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body, limit: usize) -> Result<T, Fault> {
    let compressed = compressed(headers)?;
    let bytes = read_body(body, limit).await?;
    let message = if compressed {
        sync_protocol::decompress(&bytes, limit).and_then(|bytes| sync_protocol::decode(&bytes))
    } else {
        sync_protocol::decode(&bytes)
    };
    message.map_err(|error| {
        let (status, code) = match error {
            FrameError::Version(_) => (StatusCode::BAD_REQUEST, "protocol_version"),
            FrameError::TooLong { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            _ => (StatusCode::BAD_REQUEST, "malformed"),
        };
        Fault::refused(status, code, error.to_string())
    })
}

/// Whether a body is compressed (RFC 9110, section 8.4).
fn compressed(headers: &HeaderMap) -> Result<bool, Fault> {
    let codings: Vec<&[u8]> = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.as_bytes()).collect();
    match codings.as_slice() {
        [] => Ok(false),
        [coding] if coding.eq_ignore_ascii_case(ENCODING.as_bytes()) => Ok(true),
        _ => {
            let codings: Vec<_> = codings.iter().map(|coding| coding.escape_ascii().to_string()).collect();
            let message = format!(
                "the body is encoded as {}; what is understood is {ENCODING}, once, or no encoding",
                codings.join(", ")
            );
            Err(Fault::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message))
        }
    }
}

async fn enroll(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Answer<enroll::Reply> {
    let request: enroll::Request = read(&headers, body, MAX_ENROLL_BYTES).await?;
    let now = now_us();
    let reply = app.db.write(move |db| store::enroll::enroll(db, &request, now)).await?;
    tracing::info!(gateway = reply.gateway, "a gateway enrolled");
    Ok(Message(reply))
}

async fn records(
    State(app): State<Arc<App>>,
    gateway: GatewayKey,
    headers: HeaderMap,
    body: Body,
) -> Answer<records::Reply> {
    let _room = app.room().await?;
    let request: records::Request = read(&headers, body, MAX_BODY_BYTES).await?;
    let (epoch, class, checksum) = (request.epoch, request.class, request.checksum);
    let checked = Checked::new(request).map_err(|(request, found)| {
        let message = format!(
            "the request of {} ranges has the checksum {found:08x}, and says {checksum:08x}: it was changed on its way or \
             where it was stored; read it again and send it again",
            request.ranges.len()
        );
        Fault::bad("hash_mismatch", message)
    })?;
    let now = now_us();
    let alarm = |what: std::fmt::Arguments<'_>| {
        tracing::error!(?gateway, epoch = format_args!("{:016x}", epoch.0), ?class, "ALARM: {what}; it was refused");
    };
    match app.db.write(move |db| store::ingest::ingest(db, gateway, &checked, now)).await? {
        Outcome::HighWater(high_water) => Ok(Message(records::Reply { epoch, class, checksum, high_water })),
        Outcome::Conflict { first, count } => {
            alarm(format_args!("{count} records came again with another content, the first with sequence {first}"));
            let message = format!(
                "{count} records of this request, the first with sequence {first}, are stored here with another \
                 content; nothing was taken. A store that was restored or copied must begin a new epoch"
            );
            Err(Fault::refused(StatusCode::CONFLICT, "content_mismatch", message).into())
        }
        Outcome::GoneConflict(conflict) => {
            alarm(format_args!("{conflict}"));
            let message = format!("{conflict}; nothing was taken");
            Err(Fault::refused(StatusCode::CONFLICT, "gone_conflict", message).into())
        }
    }
}

async fn sync(
    State(app): State<Arc<App>>,
    gateway: GatewayKey,
    headers: HeaderMap,
    body: Body,
) -> Answer<fleet::Reply> {
    let (has, done, wait) = {
        let _room = app.room().await?;
        let request: fleet::Request = read(&headers, body, MAX_BODY_BYTES).await?;
        let wait = Duration::from_secs(request.wait_s.min(fleet::MAX_WAIT_S).into());
        let (has, done, now) = (request.generation, request.commands_done, now_us());
        app.db.write(move |db| gateways::seen(db, gateway, &request, now)).await?;
        (has, done, wait)
    };
    let over = Instant::now() + wait;
    // Listens before it looks, so that what happens between the two is not missed.
    let (mut news, mut stopping) = (app.db.news(), app.stopping.clone());
    loop {
        news.borrow_and_update();
        // What should run comes first: who deploys a function that works and then retries what failed means that one.
        let found = app.db.read(Reader::Gateways, move |db| {
            if let Some(desired) = deployments::desired_if_changed(db, gateway, has)? {
                return Ok(Some(fleet::Reply::Desired(desired)));
            }
            let commands = dead::commands(db, gateway, done)?;
            Ok((!commands.is_empty()).then_some(fleet::Reply::Commands(commands)))
        });
        if let Some(reply) = found.await? {
            return Ok(Message(reply));
        }
        tokio::select! {
            _ = news.changed() => {}
            () = tokio::time::sleep_until(over) => return Ok(Message(fleet::Reply::Unchanged)),
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(Message(fleet::Reply::Unchanged)),
        }
    }
}

async fn artifact(
    State(app): State<Arc<App>>,
    _gateway: GatewayKey,
    Path(digest): Path<String>,
) -> Result<Response, Refused> {
    let digest: Digest =
        digest.parse().map_err(|error| Fault::bad("bad_digest", format!("the path ends with what {error}")))?;
    let room = app.room_for_artifact().await?;
    let bytes = app.db.read(Reader::Gateways, move |db| functions::package(db, digest)).await?;
    let bytes = bytes.ok_or_else(|| {
        Fault::not_found("unknown_artifact", format!("there is no function with the digest {digest} here"))
    })?;
    let body = Bytes::from_owner(Leaving { bytes, _room: room });
    Ok(([(header::CONTENT_TYPE, "application/wasm")], body).into_response())
}

/// A function on its way out, with the room that it takes until it is sent.
struct Leaving {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
