//! As much of HTTP/1.1 as it takes to see records go to the control plane, and its answer come back.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use sync_protocol::PATH_RECORDS;

/// A request or an answer, whole.
#[derive(Debug)]
pub(crate) struct Message(pub(crate) Vec<u8>);

/// No message between gateway and control plane is longer; functions are the longest, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

impl Message {
    pub(crate) fn read(messages: &mut BufReader<&TcpStream>) -> io::Result<Self> {
        let (mut bytes, mut length) = (Vec::new(), 0);
        loop {
            let start = bytes.len();
            if messages.read_until(b'\n', &mut bytes)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&bytes[start..]).trim().to_ascii_lowercase();
            let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {line:?}"));
            match line.split_once(':') {
                _ if line.is_empty() => break,
                Some(("content-length", value)) => {
                    let parsed = value.trim().parse().ok();
                    length = parsed.filter(|length| *length <= MAX_BODY_BYTES).ok_or_else(|| invalid("no length"))?;
                }
                // Neither gateway nor control plane has a reason to send without a length.
                Some(("transfer-encoding", _)) => return Err(invalid("the proxy cannot pass this on")),
                _ => {}
            }
        }
        let head = bytes.len();
        bytes.resize(head + length, 0);
        messages.read_exact(&mut bytes[head..])?;
        Ok(Self(bytes))
    }

    /// Whether it takes records to the control plane.
    pub(crate) fn has_records(&self) -> bool {
        self.0.starts_with(format!("POST {PATH_RECORDS} ").as_bytes())
    }

    pub(crate) fn pass(&self, mut to: &TcpStream) -> io::Result<()> {
        to.write_all(&self.0)
    }
}
