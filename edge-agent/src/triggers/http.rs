//! HTTP routes: a request is an event, and the function's answer is the response.
//!
//! The response is given when what the function did is on disk. A request is handled at least once: whoever got no
//! response and sends it again may have it done twice, unless the function recognises it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_core::Event;
use agent_core::effect::Response as Answer;
use agent_core::event::EventKind;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use function_package::Trigger;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::blobs::{self, Transfers};
use crate::config::{Http, Secret};
use crate::limits;
use crate::pipeline::{Origin, Pipeline, Settled};
use crate::plan::Slot;

/// Answers requests to functions.
#[derive(Debug)]
pub struct Routes {
    pipeline: Arc<Pipeline>,
    token: Option<Secret>,
    max_body_bytes: usize,
    room: Semaphore,
    transfers: Transfers,
}

/// Binds the address.
///
/// # Errors
/// The port is taken, or the address is not of this machine.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "functions answer requests");
    Ok(listener)
}

/// Answers until the agent ends.
pub async fn serve(listener: TcpListener, config: Http, pipeline: Arc<Pipeline>, transfers: Transfers) {
    let Http { token, max_body_bytes, .. } = config;
    let routes = Routes { pipeline, token, max_body_bytes, room: Semaphore::new(limits::HTTP_REQUESTS), transfers };
    let router = Router::new().fallback(answer).with_state(Arc::new(routes));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("functions cannot answer requests any more: {error}");
    }
}

/// Why a request gets no answer of a function, or of a blob.
#[derive(Debug)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let mut response = (status, format!("{message}\n")).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

async fn answer(State(routes): State<Arc<Routes>>, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    routes.authorise(&head.headers)?;
    let path = decoded(head.uri.path())
        .ok_or_else(|| Refused(StatusCode::BAD_REQUEST, "the path is no percent-encoded UTF-8".to_owned()))?;
    if let Some(name) = path.strip_prefix(blobs::PATH) {
        return routes.transfers.answer(name, &head, body).await;
    }
    let Found { slot, places, deadline } = routes.find(head.method.as_str(), &path)?;
    let Ok(_room) = routes.room.try_acquire() else {
        let message = format!("{} requests wait for their answer already; try again", limits::HTTP_REQUESTS);
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let max = routes.max_body_bytes;
    let handled = async {
        let payload = axum::body::to_bytes(body, max).await.map_err(|error| {
            let message = format!("the body cannot be read, or is longer than {max} bytes: {error}");
            Refused(StatusCode::PAYLOAD_TOO_LARGE, message)
        })?;
        let mut attributes = vec![("method".to_owned(), head.method.to_string())];
        attributes.extend(head.uri.query().map(|query| ("query".to_owned(), query.to_owned())));
        attributes.extend(places.into_iter().map(|(name, value)| (format!("path.{name}"), value)));
        attributes.extend(fields(&head.headers));
        let now_us = routes.pipeline.clock.wall_us();
        let event =
            Event { attributes, ..Event::new(EventKind::Http, "@http", path.as_str(), payload.as_ref(), now_us) };
        let (sender, settled) = oneshot::channel();
        let acknowledge = Box::new(move |settled| _ = sender.send(settled));
        routes.pipeline.submit_to(&slot, event, Origin::default(), acknowledge).await;
        settled.await.map_err(|_| {
            let message = "the gateway's store failed; nothing was done, try again".to_owned();
            Refused(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    };
    match tokio::time::timeout(deadline, handled).await {
        Ok(settled) => respond(&slot.name, settled?),
        Err(_) => {
            let message =
                format!("function {} has not answered in {deadline:?}; it may still do what it does", slot.name);
            Err(Refused(StatusCode::GATEWAY_TIMEOUT, message))
        }
    }
}

fn respond(function: &str, settled: Settled) -> Result<Response, Refused> {
    if let Some(failure) = settled.failure {
        tracing::debug!(function, failure, "a request failed");
        let message = format!("function {function} failed; what it failed with is in the gateway's dead letters");
        return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, message));
    }
    let Some(Answer { status, headers, body }) = settled.response else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        // How long the body is, and when the connection ends, is not the function's to say.
        if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(body)).map_err(|error| {
        let message = format!("function {function} answered what cannot be sent: {error}");
        Refused(StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}

struct Found {
    slot: Arc<Slot>,
    places: Vec<(String, String)>,
    deadline: Duration,
}

impl Routes {
    fn authorise(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(Secret(token)) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        // Both are hashed, so that the time it takes says nothing of where they differ.
        let digest = |text: &str| function_package::Digest::of(text.as_bytes());
        match given {
            Some(given) if digest(given) == digest(token) => Ok(()),
            _ => Err(Refused(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong".to_owned())),
        }
    }

    // The first function by name that has a route for it.
    fn find(&self, method: &str, path: &str) -> Result<Found, Refused> {
        let plan = self.pipeline.plan();
        let mut other = Vec::new();
        for slot in plan.slots() {
            for trigger in &slot.active.load().current.triggers {
                let Trigger::Http { route, deadline_ms } = trigger else { continue };
                let Some(places) = route.places(path) else { continue };
                // A HEAD is a GET whose answer has no body (RFC 9110, section 9.3.2), which the server sees to.
                if route.method() == method || (route.method() == "GET" && method == "HEAD") {
                    let deadline = Duration::from_millis((*deadline_ms).into());
                    return Ok(Found { slot: slot.clone(), places, deadline });
                }
                other.push(route.method().to_owned());
            }
        }
        if other.is_empty() {
            return Err(Refused(StatusCode::NOT_FOUND, format!("no function has a route for {path}")));
        }
        let message = format!("no function has a route for {method} {path}, but for {}", other.join(", "));
        Err(Refused(StatusCode::METHOD_NOT_ALLOWED, message))
    }
}

/// Header fields as attributes, as far as they are text and there is room; never a credential.
pub(crate) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut room = limits::HTTP_HEADER_BYTES;
    let mut fields = Vec::new();
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        if name == header::AUTHORIZATION || name.as_str().len() + value.len() > room {
            continue;
        }
        room -= name.as_str().len() + value.len();
        fields.push((format!("header.{name}"), value.to_owned()));
    }
    fields
}

/// A percent-decoded path (RFC 3986, section 2.1), if that is UTF-8 without control characters.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                tail
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok().filter(|path| !path.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_or_refused() {
        assert_eq!(decoded("/a%20b/%C3%BC").as_deref(), Some("/a b/ü"));
        for path in ["/%", "/%2", "/%zz", "/%ff", "/%00", "/%0a"] {
            assert_eq!(decoded(path), None, "{path}");
        }
    }

    #[test]
    fn header_fields_are_bounded_and_no_secret() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer secret".parse().unwrap());
        headers.insert("x-long", "x".repeat(limits::HTTP_HEADER_BYTES).parse().unwrap());
        headers.insert("x-short", "yes".parse().unwrap());
        assert_eq!(fields(&headers), [("header.x-short".to_owned(), "yes".to_owned())]);
    }
}
