//! As much of HTTP as it takes to ask for a JSON document: a connection for each question, which the answer ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

/// How long an answer may take. Everything here is on this machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks for a path, with a bearer token if there is one.
pub(crate) fn get<T: DeserializeOwned>(address: SocketAddr, path: &str, token: Option<&str>) -> Result<T> {
    let body = get_text(address, path, token).with_context(|| format!("GET http://{address}{path}"))?;
    serde_json::from_str(&body)
        .with_context(|| format!("the answer of http://{address}{path} is not as expected: {body}"))
}

/// Sends bytes to a path, with these headers; the status and the body of the answer.
///
/// # Errors
/// There is no answer, or none that is HTTP.
pub fn post(address: SocketAddr, path: &str, headers: &[(&str, String)], body: &[u8]) -> Result<(u16, Vec<u8>)> {
    request(address, "POST", path, headers, body)
}

/// The same with any method.
///
/// # Errors
/// There is no answer, or none that is HTTP.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> Result<(u16, Vec<u8>)> {
    let mut head = format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // Who refuses a request may do so before it has read all of it.
    let sent = stream.write_all(&[head.as_bytes(), b"\r\n", body].concat());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        sent?;
        read?;
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the answer broke off")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer has no status")?;
    Ok((status, answer.split_off(end + 4)))
}

/// Asks for a path; the text of the answer.
///
/// # Errors
/// There is no answer, or its status is not 200.
pub fn get_text(address: SocketAddr, path: &str, token: Option<&str>) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    // Version 1.0, so that the answer comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n{authorization}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer broke off")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("answered {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}
