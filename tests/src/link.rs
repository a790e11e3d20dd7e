//! A connection that can be cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Port;

/// A TCP proxy. While it is cut, what went through it is reset, and new connections are refused.
#[derive(Debug)]
pub struct Link {
    port: Port,
    to: SocketAddr,
    passage: Mutex<Option<JoinSet<()>>>,
    passed: Arc<AtomicU64>,
    runtime: Runtime,
}

impl Link {
    /// A link to this address, whole.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn to(to: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let link = Self { port: Port::free()?, to, passage: Mutex::default(), passed: Arc::default(), runtime };
        link.restore()?;
        Ok(link)
    }

    /// Its near end: whoever connects there speaks with the far end.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Cuts it. When this returns, nothing passes any more.
    pub fn cut(&self) {
        if let Some(mut passage) = self.passage().take() {
            self.runtime.block_on(passage.shutdown());
        }
    }

    /// Makes it whole again.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn restore(&self) -> Result<()> {
        let mut passage = self.passage();
        if passage.is_none() {
            let address = self.port.address();
            let listener = self.runtime.block_on(TcpListener::bind(address));
            let listener = listener.with_context(|| format!("the link cannot listen on {address}"))?;
            let mut tasks = JoinSet::new();
            tasks.spawn_on(accept(listener, self.to, self.passed.clone()), self.runtime.handle());
            *passage = Some(tasks);
        }
        Ok(())
    }

    /// How many bytes have passed, both ways together.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether it is whole.
    pub fn is_whole(&self) -> bool {
        self.passage().is_some()
    }

    fn passage(&self) -> std::sync::MutexGuard<'_, Option<JoinSet<()>>> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// When this is aborted, all its connections are, with it.
async fn accept(listener: TcpListener, to: SocketAddr, passed: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((near, _)) = accepted {
                connections.spawn(pass(near, to, passed.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(near: TcpStream, to: SocketAddr, passed: Arc<AtomicU64>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let mut both = Pair { near, far, ended: false };
    let Pair { near, far, .. } = &mut both;
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
    // An error of one side ends the other.
    let _ =
        tokio::try_join!(one_way(&mut from_near, &mut to_far, &passed), one_way(&mut from_far, &mut to_near, &passed));
    both.ended = true;
}

async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    passed: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            read => {
                to.write_all(&buffer[..read]).await?;
                passed.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
    }
}

// Two ends of a connection. Dropped before it ended by itself, it is reset, as by a router that forgot it.
struct Pair {
    near: TcpStream,
    far: TcpStream,
    ended: bool,
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.ended {
            // What is gone already cannot and need not be reset.
            let _ = self.near.set_zero_linger();
            let _ = self.far.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net;

    use super::*;

    #[test]
    fn what_passes_is_reset_by_a_cut_and_new_connections_are_refused_until_it_is_restored() {
        let server = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::to(server.local_addr().unwrap()).unwrap();
        for _ in 0..2 {
            let mut near = net::TcpStream::connect(link.address()).unwrap();
            let (mut far, _) = server.accept().unwrap();
            near.write_all(b"question").unwrap();
            let mut read = [0; 8];
            far.read_exact(&mut read).unwrap();
            far.write_all(b"answered").unwrap();
            near.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"answered");

            link.cut();
            assert!(!link.is_whole());
            for side in [&mut near, &mut far] {
                assert_eq!(side.read(&mut read).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            }
            let refused = net::TcpStream::connect(link.address()).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            link.restore().unwrap();
        }
    }

    #[test]
    fn an_orderly_end_loses_nothing() {
        let server = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::to(server.local_addr().unwrap()).unwrap();
        let mut near = net::TcpStream::connect(link.address()).unwrap();
        let (mut far, _) = server.accept().unwrap();
        let sent = vec![7; 1 << 20];
        let copy = sent.clone();
        let writer = std::thread::spawn(move || near.write_all(&copy).unwrap());
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == sent);
        assert_eq!(link.passed(), 1 << 20);
    }
}
