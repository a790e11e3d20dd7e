//! TCP proxies that know where they are in a protocol: what they do there is a [`Passage`].

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(crate) mod http;
pub(crate) mod mqtt;

/// What a proxy does with a connection.
pub(crate) trait Passage: Send + Sync + 'static {
    /// Passes on what goes through one connection, from its beginning. An error ends both sides; without one they are left
    /// open, and nobody is at them any more.
    fn pass(&self, near: &TcpStream, far: &TcpStream) -> io::Result<()>;
}

/// A TCP proxy. Each connection is a thread or two.
#[derive(Debug)]
pub(crate) struct Proxy<P> {
    address: SocketAddr,
    shared: Arc<Shared<P>>,
}

#[derive(Debug)]
struct Shared<P> {
    to: SocketAddr,
    passage: Arc<P>,
    closed: AtomicBool,
    // Both ends of every connection that was made since the last cut; every restart of the agent cuts.
    open: Mutex<Vec<TcpStream>>,
}

/// How long a new connection is held while nobody listens at the far end. Within that time everything that was killed is
/// back, so that whoever sends does so from the first moment of a new life.
const HOLDS: Duration = Duration::from_secs(3);
const KNOCKS_EVERY: Duration = Duration::from_millis(5);

impl<P: Passage> Proxy<P> {
    pub(crate) fn new(to: SocketAddr, passage: Arc<P>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a proxy cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { to, passage, closed: AtomicBool::new(false), open: Mutex::default() });
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
}

impl<P> Proxy<P> {
    /// Its near end.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection. New ones can be made.
    pub(crate) fn cut(&self) {
        for end in self.shared.open().drain(..) {
            // It may be gone already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl<P> Drop for Proxy<P> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        self.cut();
    }
}

impl<P> Shared<P> {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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

impl<P: Passage> Shared<P> {
    fn pass(&self, near: TcpStream) -> io::Result<()> {
        let far = self.connect()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        self.open().extend([near.try_clone()?, far.try_clone()?]);
        self.passage.pass(&near, &far).inspect_err(|_| drop(end(&near, &far)))
    }
}

/// Ends both sides, and says so to whoever passes on between them.
pub(crate) fn end(near: &TcpStream, far: &TcpStream) -> io::Error {
    let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    io::ErrorKind::ConnectionAborted.into()
}
