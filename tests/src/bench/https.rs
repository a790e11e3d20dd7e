//! What most people do who bring records into a cloud: POST them as JSON over HTTPS.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::Link;

/// The name in the certificate.
const HOST: &str = "records.example.org";

/// How many bytes go over the wire, both ways, if these JSON texts are sent so many a request: an array of them, or each by
/// itself. One connection is kept for all of it.
pub(super) fn bytes(records: &[String], a_request: usize) -> Result<f64> {
    let (server, client) = configurations()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let link = Link::to(listener.local_addr()?)?;
    let serving = thread::spawn(move || serve(&listener, server));
    post(link.address(), client, records, a_request).context("posting JSON over HTTPS")?;
    serving.join().map_err(|_| anyhow::anyhow!("the HTTPS server panicked"))??;
    Ok(link.passed() as f64)
}

fn configurations() -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(|error| anyhow::anyhow!(error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let server = server.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key)?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok((Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth())))
}

fn post(server: SocketAddr, config: Arc<ClientConfig>, records: &[String], a_request: usize) -> Result<()> {
    let connection = ClientConnection::new(config, ServerName::try_from(HOST)?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(server)?);
    let mut answer = vec![0; ANSWER.len()];
    for batch in records.chunks(a_request) {
        let body = if a_request == 1 { batch[0].clone() } else { format!("[{}]", batch.join(",")) };
        // What an HTTP client sends by itself, and a token of usual length.
        let head = format!(
            "POST /v1/records HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: gateway/1.0\r\naccept: */*\r\n\
             content-type: application/json\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            "t".repeat(64),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        stream.flush()?;
        stream.read_exact(&mut answer)?;
        ensure!(answer == ANSWER, "the answer is {}", answer.escape_ascii());
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nserver: example\r\ndate: Thu, 26 Nov 2026 10:00:00 GMT\r\n\r\n";

fn serve(listener: &TcpListener, config: Arc<ServerConfig>) -> Result<()> {
    let (connection, _) = listener.accept()?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, connection);
    let (mut request, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
        if whole(&request) {
            request.clear();
            stream.write_all(ANSWER)?;
            stream.flush()?;
        }
    }
}

// The client waits for each answer, so nothing of the next request is there yet.
fn whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&request[..end]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| request.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_each_record_costs_its_head_each_time() {
        let records = vec![r#"{"celsius":21.5}"#.to_owned(); 100];
        let (single, batched) = (bytes(&records, 1).unwrap(), bytes(&records, 100).unwrap());
        let content = records.concat().len() as f64;
        assert!(batched > content && batched < content + 5_000.0, "{batched}");
        assert!(single > batched + 99.0 * 200.0, "{single}");
    }
}
