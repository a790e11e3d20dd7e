//! Load at a rate of its own: each event has its time, whatever became of those before it.
//!
//! What is measured counts from the time at which an event was to be sent, not from that at which it was. So a consumer
//! that stands still for a second has a second of late events, and not one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;

use super::collect::Collector;
use super::wire::{self, Template};

/// How long the last events may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// From when an event was to be sent until it, or what was made of it, arrived; in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Self> {
        // Up to ten minutes, exact to a thousandth.
        Ok(Self(Histogram::new_with_bounds(1, 600_000_000, 3)?))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_micros() as u64);
    }

    /// What this share of all did not exceed, in milliseconds.
    pub(super) fn at(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }
}

/// Times the same thing at a rate, again and again.
pub(super) fn at_rate(rate: f64, count: usize, mut work: impl FnMut() -> Result<()>) -> Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let clock = Clock::start(rate);
    for number in 0..count {
        let due = clock.wait(number);
        work()?;
        latencies.record(due.elapsed());
    }
    Ok(latencies)
}

/// Publishes readings of one device, so many a second while `more` says so, and waits for what is made of each under
/// `filter`.
pub(super) fn publish(
    broker: SocketAddr,
    filter: &str,
    device: usize,
    rate: f64,
    mut more: impl FnMut(usize) -> bool,
) -> Result<Latencies> {
    let collector = Collector::start(broker, &[filter], "bench-collector")?;
    let mut stream = open(broker, &format!("bench-{device}"))?;
    let acknowledgements = stream.try_clone()?;
    let drain = thread::spawn(move || drain(acknowledgements));
    let template = Template::new(&wire::topic(device));
    let clock = Clock::start(rate);
    let (mut due, mut out) = (Vec::new(), Vec::new());
    while more(due.len()) {
        due.push(clock.wait(due.len()));
        out.clear();
        template.write(due.len() - 1, &mut out);
        stream.write_all(&out).context("the broker takes no more publishes")?;
    }
    let arrived = collector.finish(due.len(), DEADLINE)?;
    stream.write_all(&wire::DISCONNECT)?;
    let _ = stream.shutdown(std::net::Shutdown::Both);
    drain.join().map_err(|_| anyhow::anyhow!("the thread that reads acknowledgements panicked"))?;
    // What came twice counts when it came first.
    let mut first = BTreeMap::new();
    for (number, at) in arrived.iter().rev() {
        first.insert(*number, *at);
    }
    let mut latencies = Latencies::new()?;
    for (number, due) in due.iter().enumerate() {
        let at = first.get(&number).with_context(|| format!("nothing was made of event {number}"))?;
        latencies.record(at.saturating_duration_since(*due));
    }
    Ok(latencies)
}

/// A connection of a device, on which nothing was sent yet.
pub(super) fn open(broker: SocketAddr, client: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).with_context(|| format!("no connection to {broker}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::connect(client))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(answer == wire::CONNECTED, "CONNACK {answer:x?}");
    Ok(stream)
}

// Nobody waits for acknowledgements here, but unread they would fill the connection.
fn drain(mut stream: TcpStream) {
    let mut buffer = [0; 4_096];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

struct Clock {
    start: Instant,
    between: Duration,
}

impl Clock {
    fn start(rate: f64) -> Self {
        // The kernel may wake a thread late by this, to save power: 50 µs if nobody says otherwise. Where it cannot be set,
        // peers and we wait alike.
        let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1000");
        Self { start: Instant::now(), between: Duration::from_secs_f64(1.0 / rate) }
    }

    // Waits for the time of this event, and answers it; at once where it has passed.
    fn wait(&self, number: usize) -> Instant {
        let due = self.start + self.between * number as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_behind_a_slow_one_are_late_too() {
        let mut first = true;
        let slow = Duration::from_millis(40);
        let latencies = at_rate(1_000.0, 20, || {
            if std::mem::take(&mut first) {
                thread::sleep(slow);
            }
            Ok(())
        });
        let latencies = latencies.unwrap();
        assert_eq!(latencies.len(), 20);
        // Half of them were to be sent 30 ms or more before the slow one was done.
        assert!(latencies.at(0.5) > 20.0, "{}", latencies.at(0.5));
    }
}
