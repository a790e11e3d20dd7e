//! Takes what a broker sends, as fast as it comes, with the time at which it came.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{pace, wire};
use crate::wait_until;

/// Numbers of readings, as in [`wire::number_of`], with the time at which each came.
pub(super) type Arrived = Vec<(usize, Instant)>;

/// A subscriber, at QoS 1.
pub(super) struct Collector {
    stream: TcpStream,
    thread: JoinHandle<Result<()>>,
    arrived: Arc<Mutex<Arrived>>,
    count: Arc<AtomicUsize>,
}

impl Collector {
    /// Subscribes; when this returns, the broker knows.
    pub(super) fn start(broker: SocketAddr, filters: &[&str], client: &str) -> Result<Self> {
        let mut stream = pace::open(broker, client)?;
        stream.write_all(&wire::subscribe(filters.iter().copied()))?;
        let mut answer = vec![0; 4 + filters.len()];
        stream.read_exact(&mut answer)?;
        ensure!(answer[0] == 0x90 && answer[4..].iter().all(|code| *code == 1), "SUBACK {answer:x?}");
        let (arrived, count) = (Arc::default(), Arc::default());
        let (to, counted, reader) = (Arc::clone(&arrived), Arc::clone(&count), stream.try_clone()?);
        let thread = std::thread::spawn(move || collect(reader, &to, &counted));
        Ok(Self { stream, thread, arrived, count })
    }

    /// How many have come.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until so many have come, and gives what came, in order.
    pub(super) fn finish(self, expected: usize, deadline: Duration) -> Result<Arrived> {
        wait_until("the results of all events", deadline, || {
            let found = self.count();
            ensure!(found >= expected || self.thread.is_finished(), "{found} of {expected} came");
            Ok(())
        })?;
        let _ = self.stream.shutdown(Shutdown::Both);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that collects results panicked"))??;
        let arrived = std::mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(arrived.len() >= expected, "the connection ended after {} of {expected} results", arrived.len());
        Ok(arrived)
    }
}

fn collect(mut stream: TcpStream, arrived: &Mutex<Arrived>, count: &AtomicUsize) -> Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut filled = 0;
    let mut acknowledgements = Vec::new();
    loop {
        let read = match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            read => read.context("reading results")?,
        };
        let now = Instant::now();
        filled += read;
        let mut at = 0;
        let mut all = arrived.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((head, body, took)) = wire::packet(&buffer[at..filled])? {
            if head & 0xf0 == 0x30 {
                let Some((id, payload)) = wire::publish(head, body) else { bail!("a PUBLISH that is none: {body:x?}") };
                if let Some([high, low]) = id {
                    acknowledgements.extend([0x40, 2, high, low]);
                }
                let number = wire::number_of(payload);
                all.push((number.with_context(|| format!("no reading: {}", payload.escape_ascii()))?, now));
            }
            at += took;
        }
        count.store(all.len(), Ordering::Release);
        drop(all);
        ensure!(at > 0 || filled < buffer.len(), "a packet of more than {} bytes", buffer.len());
        buffer.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&acknowledgements)?;
        acknowledgements.clear();
    }
}
