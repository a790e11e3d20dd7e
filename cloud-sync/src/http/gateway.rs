//! What gateways ask: see `sync_protocol`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use function_package::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_protocol::records::{MAX_RANGE_RECORDS, range_checksum};
use sync_protocol::{
    CONTENT_TYPE, FrameError, MAX_BODY_BYTES, PATH_ARTIFACTS, PATH_ENROLL, PATH_RECORDS, PATH_SYNC, Refusal, enroll,
    fleet, records,
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
use crate::store::ingest::{Outcome, Range};
use crate::store::{self, deployments, functions};

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

async fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Fault> {
    let bytes = read_body(body, limit).await?;
    sync_protocol::decode(&bytes).map_err(|error| {
        let code = match error {
            FrameError::Version(_) => "protocol_version",
            _ => "malformed",
        };
        Fault::bad(code, error.to_string())
    })
}

async fn enroll(State(app): State<Arc<App>>, body: Body) -> Answer<enroll::Reply> {
    let request: enroll::Request = read(body, MAX_ENROLL_BYTES).await?;
    let now = now_us();
    let reply = app.db.write(move |db| store::enroll::enroll(db, &request, now)).await?;
    tracing::info!(gateway = reply.gateway, "a gateway enrolled");
    Ok(Message(reply))
}

async fn records(State(app): State<Arc<App>>, gateway: GatewayKey, body: Body) -> Answer<records::Reply> {
    let _room = app.room().await?;
    let request: records::Request = read(body, MAX_BODY_BYTES).await?;
    if request.records.len() > MAX_RANGE_RECORDS {
        let message =
            format!("the range has {} records; at most {MAX_RANGE_RECORDS} are allowed", request.records.len());
        return Err(Fault::bad("too_many_records", message).into());
    }
    let found = range_checksum(&request.records);
    if found != request.checksum {
        let message = format!(
            "the range of {} records from sequence {} has the checksum {found:08x}, and says {:08x}: it was changed on \
             its way or where it was stored; read it again and send it again",
            request.records.len(),
            request.first,
            request.checksum
        );
        return Err(Fault::bad("hash_mismatch", message).into());
    }
    let (epoch, class) = (request.epoch, request.class);
    let checksums = request.records.iter().map(records::Record::checksum).collect();
    let range = Range { request, checksums };
    let now = now_us();
    match app.db.write(move |db| store::ingest::ingest(db, gateway, &range, now)).await? {
        Outcome::HighWater(high_water) => Ok(Message(records::Reply { epoch, class, high_water })),
        Outcome::Conflict { first, count } => {
            tracing::error!(
                ?gateway,
                epoch = format_args!("{:016x}", epoch.0),
                ?class,
                first,
                count,
                "ALARM: records came again with another content and were refused"
            );
            let message = format!(
                "{count} records of this range, the first with sequence {first}, are stored here with another content; \
                 nothing was taken. A store that was restored or copied must begin a new epoch"
            );
            Err(Fault::refused(StatusCode::CONFLICT, "content_mismatch", message).into())
        }
    }
}

async fn sync(State(app): State<Arc<App>>, gateway: GatewayKey, body: Body) -> Answer<fleet::Reply> {
    let (has, wait) = {
        let _room = app.room().await?;
        let request: fleet::Request = read(body, MAX_BODY_BYTES).await?;
        let wait = Duration::from_secs(request.wait_s.min(fleet::MAX_WAIT_S).into());
        let (has, now) = (request.generation, now_us());
        app.db.write(move |db| gateways::seen(db, gateway, &request, now)).await?;
        (has, wait)
    };
    let over = Instant::now() + wait;
    // Listens before it looks, so that what happens between the two is not missed.
    let (mut news, mut stopping) = (app.db.news(), app.stopping.clone());
    loop {
        news.borrow_and_update();
        let changed =
            app.db.read(Reader::Gateways, move |db| deployments::desired_if_changed(db, gateway, has)).await?;
        if let Some(desired) = changed {
            return Ok(Message(fleet::Reply::Desired(desired)));
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
