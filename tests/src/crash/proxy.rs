//! Proxies that know where they are in a protocol.

use std::io::{self, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::trigger::Trigger;
use super::{http, mqtt};

/// A TCP proxy that understands just enough to pull a [`Trigger`] at the edges of what passes. Each connection is a thread
/// or two.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    speaks: Protocol,
    to: SocketAddr,
    trigger: Arc<Trigger>,
    closed: AtomicBool,
    // Both ends of every connection that was made since the last cut; every restart of the agent cuts.
    open: Mutex<Vec<TcpStream>>,
}

/// What passes through a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    /// From devices to the gateway.
    Mqtt,
    /// From the gateway to the control plane.
    Http,
}

/// How long a new connection is held while nobody listens at the far end. Within that time everything that was killed is
/// back, so that whoever sends does so from the first moment of a new life.
const HOLDS: Duration = Duration::from_secs(3);
const KNOCKS_EVERY: Duration = Duration::from_millis(5);

impl Proxy {
    pub(super) fn new(speaks: Protocol, to: SocketAddr, trigger: Arc<Trigger>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a proxy cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Shared { speaks, to, trigger, closed: AtomicBool::new(false), open: Mutex::default() };
        let shared = Arc::new(shared);
        let accepts = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming() {
                if accepts.closed.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepts);
                // Whatever ends a connection ends both its sides.
                thread::spawn(move || near.and_then(|near| shared.pass(near)));
            }
        });
        Ok(Self { address, shared })
    }

    /// Its near end.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection. New ones can be made.
    pub(super) fn cut(&self) {
        for end in self.shared.open().drain(..) {
            // It may be gone already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        self.cut();
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, near: TcpStream) -> io::Result<()> {
        let far = self.connect()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        self.open().extend([near.try_clone()?, far.try_clone()?]);
        match self.speaks {
            Protocol::Mqtt => thread::scope(|scope| {
                scope.spawn(|| mqtt::pass(&near, &far, mqtt::Way::ToGateway, &self.trigger));
                mqtt::pass(&far, &near, mqtt::Way::ToDevice, &self.trigger);
            }),
            Protocol::Http => {
                let ended = http::pass(&near, &far, &self.trigger);
                end(&near, &far);
                ended?;
            }
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let end = Instant::now() + HOLDS;
        loop {
            match TcpStream::connect(self.to) {
                Err(error) if Instant::now() > end || self.closed.load(Ordering::Relaxed) => return Err(error),
                Err(_) => thread::sleep(KNOCKS_EVERY),
                connected => return connected,
            }
        }
    }
}

/// Ends both sides, and says so to whoever passes on between them.
pub(super) fn end(near: &TcpStream, far: &TcpStream) -> io::Error {
    let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    io::ErrorKind::ConnectionAborted.into()
}

/// Passes this many bytes on.
pub(super) fn copy(from: &mut BufReader<&TcpStream>, mut to: &TcpStream, bytes: u64) -> io::Result<()> {
    let passed = io::copy(&mut from.take(bytes), &mut to)?;
    to.flush()?;
    if passed == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::{Edge, Step, Victim};

    const DEADLINE: Duration = Duration::from_secs(60);
    const PUBLISH: [u8; 7] = [0x32, 5, 0, 1, b't', 0, 9];
    const PUBACK: [u8; 4] = [0x40, 2, 0, 9];

    // A proxy with a connection through it, of which the trigger waits for an edge.
    fn connected(speaks: Protocol, edge: Edge, nth: u32) -> (Proxy, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let trigger = Arc::new(Trigger::default());
        trigger.set(&Step { victim: Victim::Connection, edge, nth, pause: Duration::ZERO }, None);
        let proxy = Proxy::new(speaks, server.local_addr().unwrap(), trigger).unwrap();
        let near = TcpStream::connect(proxy.address()).unwrap();
        let (far, _) = server.accept().unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(DEADLINE)).unwrap();
        }
        (proxy, near, far)
    }

    fn rest(mut end: &TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        end.read_to_end(&mut rest).unwrap();
        rest
    }

    #[test]
    fn what_is_received_has_passed_when_the_connection_ends() {
        let (proxy, mut near, far) = connected(Protocol::Mqtt, Edge::Received, 2);
        // Quality of service 0 is not counted.
        near.write_all(&[&PUBLISH[..], &[0x30, 3, 0, 1, b't'], &PUBLISH].concat()).unwrap();
        assert_eq!(rest(&far), [&PUBLISH[..], &[0x30, 3, 0, 1, b't'], &PUBLISH].concat());
        assert!(proxy.shared.trigger.wait(DEADLINE));
        assert!(rest(&near).is_empty());
    }

    #[test]
    fn an_acknowledgement_is_swallowed_when_it_was_only_committed() {
        let (proxy, near, mut far) = connected(Protocol::Mqtt, Edge::Committed, 2);
        far.write_all(&[PUBACK, PUBACK].concat()).unwrap();
        assert_eq!(rest(&near), PUBACK);
        assert!(proxy.shared.trigger.wait(DEADLINE));
    }

    #[test]
    fn an_answer_is_swallowed_when_records_are_only_stored() {
        let (proxy, mut near, mut far) = connected(Protocol::Http, Edge::Stored, 1);
        let mut exchange = |path: &str| {
            let request = format!("POST {path} HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
            near.write_all(request.as_bytes()).unwrap();
            let mut received = vec![0; request.len()];
            far.read_exact(&mut received).unwrap();
            assert_eq!(received, request.as_bytes());
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        };
        exchange("/gateway/v1/sync");
        exchange("/gateway/v1/records");
        assert_eq!(rest(&near), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert!(proxy.shared.trigger.wait(DEADLINE));
    }
}
