//! How much memory an agent has that has much to remember.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, ensure};

use super::flood::Flood;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, cold, pace, wire};

/// Functions, and the filters of each: the most that a manifest may have.
const FUNCTIONS: usize = 100;
const FILTERS: usize = 32;

/// Clients of the gateway's broker that have subscribed to the rest of 10,000 filters.
const CLIENTS: usize = 10;
const SUBSCRIPTIONS: usize = (10_000 - FUNCTIONS * FILTERS) / CLIENTS;

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let (mut idle, mut busy) = (Samples::default(), Samples::default());
    for _ in 0..settings.runs {
        let system = cold::with_functions(FUNCTIONS, |number| {
            let other = (1..FILTERS).map(|filter| format!("plant/line-{number}/+/sensor-{filter}"));
            [wire::topic(number)].into_iter().chain(other).collect()
        })?;
        let broker = system.gateway.broker();
        let clients = (0..CLIENTS).map(|client| subscribe(broker, client)).collect::<Result<Vec<TcpStream>>>()?;
        idle.0.push(mib(system.gateway.agent()?.memory()?));
        // Each function has its events, so that each has a lane with what it remembers.
        Flood { connections: FUNCTIONS, window: 10, total: settings.load(100_000, 10_000) }.run(broker)?;
        busy.0.push(mib(system.gateway.agent()?.memory()?));
        drop(clients);
    }
    let note = "100 functions with 32 filters each, 6,800 subscriptions of 10 clients";
    results.push(Row::new("memory/idle", idle, "MiB").goal(Goal::Below(40.0)).note(note));
    results.push(Row::new("memory/under-load", busy, "MiB").goal(Goal::Below(40.0)).note(note));
    Ok(())
}

fn subscribe(broker: SocketAddr, client: usize) -> Result<TcpStream> {
    let filters: Vec<String> =
        (0..SUBSCRIPTIONS).map(|number| format!("commands/client-{client}/+/topic-{number}")).collect();
    let mut stream = pace::open(broker, &format!("bench-subscriber-{client}"))?;
    stream.write_all(&wire::subscribe(filters.iter().map(String::as_str)))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    while wire::packet(&answer)?.is_none() {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the broker closed the connection instead of answering a SUBSCRIBE");
        answer.extend_from_slice(&buffer[..read]);
    }
    let (head, codes) = wire::packet(&answer)?.map(|(head, body, _)| (head, &body[2..])).unwrap_or_default();
    ensure!(head == 0x90 && codes.len() == SUBSCRIPTIONS && codes.iter().all(|code| *code == 1), "SUBACK {answer:x?}");
    Ok(stream)
}

/// Bytes as MiB.
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
