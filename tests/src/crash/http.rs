//! As much of HTTP/1.1 as it takes to see records go to the control plane, and its answer come back.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use sync_protocol::PATH_RECORDS;

use super::plan::Edge;
use super::proxy::{copy, end};
use super::trigger::Trigger;

/// Passes requests and answers on, one after the other, until the connection ends.
pub(super) fn pass(near: &TcpStream, far: &TcpStream, trigger: &Trigger) -> io::Result<()> {
    let (mut requests, mut answers) = (BufReader::new(near), BufReader::new(far));
    let reached = |edge| if trigger.reached(edge) { Err(end(near, far)) } else { Ok(()) };
    loop {
        let head = Head::read(&mut requests)?;
        let records = head.is_for(PATH_RECORDS);
        let reached = |edge| if records { reached(edge) } else { Ok(()) };
        reached(Edge::Deleted)?;
        head.pass(&mut requests, far)?;
        reached(Edge::Sent)?;

        let head = Head::read(&mut answers)?;
        reached(Edge::Stored)?;
        head.pass(&mut answers, near)?;
        reached(Edge::Answered)?;
    }
}

/// The head of a message.
struct Head {
    bytes: Vec<u8>,
    length: u64,
}

impl Head {
    fn read(messages: &mut BufReader<&TcpStream>) -> io::Result<Self> {
        let (mut bytes, mut length) = (Vec::new(), 0);
        loop {
            let start = bytes.len();
            if messages.read_until(b'\n', &mut bytes)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&bytes[start..]).trim().to_ascii_lowercase();
            let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {line:?}"));
            match line.split_once(':') {
                _ if line.is_empty() => return Ok(Self { bytes, length }),
                Some(("content-length", value)) => {
                    length = value.trim().parse().map_err(|_| invalid("no length"))?;
                }
                // Neither gateway nor control plane has a reason to send without a length.
                Some(("transfer-encoding", _)) => return Err(invalid("the proxy cannot pass this on")),
                _ => {}
            }
        }
    }

    fn is_for(&self, path: &str) -> bool {
        self.bytes.starts_with(format!("POST {path} ").as_bytes())
    }

    // With the body, which follows.
    fn pass(&self, body: &mut BufReader<&TcpStream>, mut to: &TcpStream) -> io::Result<()> {
        to.write_all(&self.bytes)?;
        copy(body, to, self.length)
    }
}
