//! Blobs over HTTP, below `/blobs/BUCKET/NAME`: `PUT` takes one, `GET` and `HEAD` give it, `DELETE` takes its name away.
//!
//! What is answered with 201 is on the disk, and the functions that want it have the event as a message. The same content under
//! the same name once more changes nothing, so whoever got no answer sends it again.

use std::future::poll_fn;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use agent_store::{Blob, BlobWrite, Reader, Write};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_package::check_blob_name;
use http_body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::block_in_place;

use super::http::Refused;
use crate::blobs::{BlobError, Hold, Stored};
use crate::limits;
use crate::pipeline::Pipeline;
use crate::pipeline::writer::Sender;

/// Where blobs begin among the paths.
pub(super) const PATH: &str = "/blobs/";

/// The media type of what has none (RFC 9110, section 8.3).
pub(super) const NO_TYPE: &str = "application/octet-stream";

/// Longest media type in bytes: it stands in every event.
const MAX_TYPE_BYTES: usize = 255;

/// Bytes that are read from the disk at once.
const PIECE: usize = 64 << 10;

/// All that taking and giving blobs takes.
#[derive(Debug)]
pub struct Transfers {
    pipeline: Arc<Pipeline>,
    writer: Sender,
    reader: Mutex<Reader>,
    room: Arc<Semaphore>,
}

/// What is answered to a blob that was taken.
#[derive(Serialize)]
struct Taken<'a> {
    name: &'a str,
    digest: String,
    size: u64,
    r#type: &'a str,
}

/// Whether it can stand as a media type in an event: visible ASCII and spaces, 1 to 255 bytes.
fn is_type(text: &str) -> bool {
    (1..=MAX_TYPE_BYTES).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn refused(status: StatusCode, message: impl Into<String>) -> Refused {
    Refused(status, message.into())
}

impl From<BlobError> for Refused {
    fn from(error: BlobError) -> Self {
        let status = match &error {
            BlobError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            error if error.is_full() => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refused(status, error.to_string())
    }
}

impl Transfers {
    /// With a reader of its own.
    pub fn new(pipeline: Arc<Pipeline>, writer: Sender, reader: Reader) -> Self {
        let room = Arc::new(Semaphore::new(limits::BLOB_TRANSFERS));
        Self { pipeline, writer, reader: Mutex::new(reader), room }
    }

    /// Answers a request for the blob of this name, which is whatever the path says behind [`PATH`], decoded.
    pub(super) async fn answer(&self, name: &str, head: &Parts, body: Body) -> Result<Response, Refused> {
        check_blob_name(name).map_err(|error| refused(StatusCode::BAD_REQUEST, error.to_string()))?;
        let room = self.room.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{} blobs are on their way already; try again", limits::BLOB_TRANSFERS);
            refused(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        match head.method {
            Method::PUT => self.take(name, &head.headers, body).await,
            Method::GET | Method::HEAD => self.give(name, head.method == Method::HEAD, room),
            Method::DELETE => {
                self.commit(BlobWrite::Delete { name: name.to_owned() }, None).await?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(refused(StatusCode::METHOD_NOT_ALLOWED, "a blob takes PUT, GET, HEAD and DELETE")),
        }
    }

    async fn take(&self, name: &str, headers: &HeaderMap, body: Body) -> Result<Response, Refused> {
        let content_type = match headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) {
            None => NO_TYPE,
            Some(Ok(text)) if is_type(text) => text,
            Some(_) => {
                let message = format!("the content type is no text of 1 to {MAX_TYPE_BYTES} visible characters");
                return Err(refused(StatusCode::BAD_REQUEST, message));
            }
        };
        let said = ["content-digest", "repr-digest"].map(|field| said_digest(headers, field));
        let said = said.into_iter().collect::<Result<Vec<_>, _>>()?;
        let stored = self.receive(body, said.into_iter().flatten().collect()).await?;
        let (digest, bytes) = (stored.digest, stored.bytes);
        let stored_us = self.pipeline.clock.wall_us();
        let blob = Blob { digest, bytes, content_type: content_type.to_owned(), stored_us };
        let wanted = self.pipeline.plan().blob_readers(name);
        self.commit(BlobWrite::Put { name: name.to_owned(), blob, wanted }, Some(stored)).await?;
        let digest = hex::encode(digest);
        let etag = etag(&digest);
        let taken = Taken { name, digest, size: bytes, r#type: content_type };
        Ok((StatusCode::CREATED, [(header::ETAG, etag)], axum::Json(taken)).into_response())
    }

    /// Puts a body on the disk, piece by piece.
    async fn receive(&self, mut body: Body, said: Vec<[u8; 32]>) -> Result<Stored, Refused> {
        let blobs = &self.pipeline.blobs;
        blobs.check_room(body.size_hint().lower())?;
        let mut draft = block_in_place(|| blobs.draft())?;
        loop {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            let frame = tokio::time::timeout(limits::BLOB_IDLE, frame).await.map_err(|_| {
                let message = format!("nothing of the blob came for {:?}", limits::BLOB_IDLE);
                refused(StatusCode::REQUEST_TIMEOUT, message)
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                refused(StatusCode::BAD_REQUEST, format!("the blob broke off, and nothing of it is stored: {error}"))
            })?;
            // What is no data are trailers.
            if let Ok(piece) = frame.into_data() {
                block_in_place(|| draft.write(&piece))?;
            }
        }
        let found = draft.digest();
        if let Some(said) = said.into_iter().find(|said| *said != found) {
            let (said, found) = (hex::encode(said), hex::encode(found));
            let message = format!("the digest is said to be {said}, and what came has {found}; nothing is stored");
            return Err(refused(StatusCode::BAD_REQUEST, message));
        }
        Ok(block_in_place(|| draft.finish())?)
    }

    async fn commit(&self, write: BlobWrite, content: Option<Stored>) -> Result<(), Refused> {
        let (writer, pipeline) = (self.writer.clone(), self.pipeline.clone());
        // To its end, also if the client goes: the content is held until it is written.
        let committed = tokio::spawn(async move {
            let committed = writer.write(vec![Write::Blob(write)]).await;
            drop(content);
            pipeline.blobs.changed.notify_one();
            committed.is_some()
        });
        if committed.await.unwrap_or(false) {
            return Ok(());
        }
        Err(refused(StatusCode::SERVICE_UNAVAILABLE, "the gateway's store failed; it may be done or not, try again"))
    }

    fn give(&self, name: &str, head_only: bool, room: OwnedSemaphorePermit) -> Result<Response, Refused> {
        let found = block_in_place(|| self.find(name)).map_err(|error| {
            tracing::error!("cannot give the blob {name}: {error:#}");
            refused(StatusCode::INTERNAL_SERVER_ERROR, format!("the blob cannot be read: {error:#}"))
        })?;
        let Some((blob, hold, file)) = found else {
            return Err(refused(StatusCode::NOT_FOUND, format!("there is no blob {name}")));
        };
        let body = if head_only { Body::empty() } else { Body::new(FileBody::new(file, blob.bytes, (hold, room))) };
        let response = Response::builder()
            .header(header::CONTENT_TYPE, blob.content_type)
            .header(header::CONTENT_LENGTH, blob.bytes)
            .header(header::ETAG, etag(&hex::encode(blob.digest)))
            // What was uploaded is no page of ours.
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CONTENT_SECURITY_POLICY, "sandbox");
        response.body(body).map_err(|error| refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    fn find(&self, name: &str) -> anyhow::Result<Option<(Blob, Hold, std::fs::File)>> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        crate::blobs::open_named(&self.pipeline.blobs, &mut reader, name)
    }
}

fn etag(digest: &str) -> String {
    format!("\"{digest}\"")
}

/// The SHA-256 that a digest field says (RFC 9530, sections 2 and 3). Other algorithms are passed over.
fn said_digest(headers: &HeaderMap, field: &str) -> Result<Option<[u8; 32]>, Refused> {
    for value in headers.get_all(field) {
        for member in value.to_str().unwrap_or_default().split(',') {
            let Some(said) = member.trim().strip_prefix("sha-256=") else { continue };
            let bytes = said.strip_prefix(':').and_then(|said| STANDARD.decode(said.strip_suffix(':')?).ok());
            let digest = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
                let message = format!("{field} is {said:?}; a SHA-256 stands there as \"sha-256=:BASE64:\"");
                refused(StatusCode::BAD_REQUEST, message)
            })?;
            return Ok(Some(digest));
        }
    }
    Ok(None)
}

/// A file as the body of an answer: read on a thread that may wait, two pieces ahead.
struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl FileBody {
    /// `with` goes when the last piece was read.
    fn new(mut file: std::fs::File, bytes: u64, with: impl Send + 'static) -> Self {
        let (sender, pieces) = mpsc::channel(2);
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let _with = with;
            let mut left = bytes;
            while left > 0 {
                let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
                let read = file.read_exact(&mut piece).map(|()| Bytes::from(piece));
                let failed = read.is_err();
                left -= read.as_ref().map_or(0, |piece| piece.len() as u64);
                let sent = runtime.block_on(tokio::time::timeout(limits::BLOB_IDLE, sender.send(read)));
                if failed || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        });
        Self { pieces, left: bytes }
    }
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = self.pieces.poll_recv(context);
        polled.map(|piece| match piece {
            Some(Ok(piece)) => {
                self.left -= piece.len() as u64;
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.left > 0 => Some(Err(io::ErrorKind::TimedOut.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_the_standard_writes_it() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-digest", value.parse().unwrap());
            said_digest(&headers, "content-digest").map_err(|refused| refused.1)
        };
        // Of {"hello": "world"} and a line feed, as in RFC 9530, section 2.
        let digest = read("sha-512=:AAAA:, sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:").unwrap().unwrap();
        assert_eq!(hex::encode(digest), "44aff4ab2d7c3250525675a08f0cfa9591168cffe51791c5f5bbc417c15a6c38");
        assert_eq!(read("sha-512=:AAAA:"), Ok(None));
        for wrong in ["sha-256=:AAAA:", "sha-256=RK/0", "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg="] {
            assert!(read(wrong).unwrap_err().contains("sha-256=:BASE64:"), "{wrong}");
        }
    }
}
