//! What somebody writes by hand who wants a reading converted, compared with a limit and kept, and cares for speed: the
//! peer that the benchmark compares the agent with. It has no functions, no deduplication, no deployments and no limits.
//!
//! One thread speaks MQTT, one writes. The writer takes all that waits into one transaction (WAL, `synchronous=FULL`) and
//! acknowledges it after the commit. With `--publish` the result goes to the broker as well, in front of the
//! acknowledgement on the same connection, so whoever is acknowledged is also published.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context as _, Result};
use clap::Parser;
use rumqttc::{Client, Connection, Event, Incoming, MqttOptions, NetworkOptions, Publish, QoS};
use rusqlite::{Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

/// Most readings of one transaction.
const GROUP: usize = 4_096;

/// Publishes of which the broker has not answered. The more there are, the fewer wake-ups.
const INFLIGHT: u16 = 1_000;

/// °F, above which it is an alarm.
const LIMIT: f64 = 80.0;

#[derive(Parser)]
#[command(about = "Converts readings from a broker and keeps them in SQLite.")]
struct Args {
    /// The broker's port on this machine.
    #[arg(long)]
    port: u16,
    /// The database.
    #[arg(long)]
    data: PathBuf,
    /// Publish each result, too.
    #[arg(long)]
    publish: bool,
}

#[derive(Deserialize)]
struct Reading {
    time: u64,
    fahrenheit: f64,
}

#[derive(Serialize)]
struct Converted<'a> {
    device: &'a str,
    time: u64,
    celsius: f64,
    alarm: bool,
}

fn main() -> Result<()> {
    let Args { port, data, publish } = Args::parse();
    let mut options = MqttOptions::new("bench-consumer", "127.0.0.1", port);
    options.set_clean_session(false).set_manual_acks(true).set_inflight(INFLIGHT);
    let (client, mut connection) = Client::new(options, 2 * GROUP);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    connection.eventloop.set_network_options(network);
    // Without a bound: if reading waited for the writer, and the writer for its requests to be read, both would for ever.
    let (sender, received) = channel();
    let subscriber = client.clone();
    let writer = std::thread::spawn(move || write(&data, publish, &client, &received));
    poll(&mut connection, &subscriber, &sender)?;
    drop(sender);
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
}

fn poll(connection: &mut Connection, client: &Client, writer: &Sender<Publish>) -> Result<()> {
    for event in connection.iter() {
        match event.context("the connection to the broker")? {
            Event::Incoming(Incoming::ConnAck(_)) => client.subscribe("sensors/+/temperature", QoS::AtLeastOnce)?,
            Event::Incoming(Incoming::Publish(publish)) => {
                // If the writer has ended, it says why.
                let Ok(()) = writer.send(publish) else { break };
            }
            _ => {}
        }
    }
    Ok(())
}

fn write(data: &PathBuf, publish: bool, client: &Client, received: &Receiver<Publish>) -> Result<()> {
    let mut database = rusqlite::Connection::open(data).with_context(|| format!("cannot open {}", data.display()))?;
    let _: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    database.execute_batch(
        "PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS readings
             (id INTEGER PRIMARY KEY, device TEXT, time INTEGER, celsius REAL, alarm INTEGER)",
    )?;
    let mut group = Vec::with_capacity(GROUP);
    while let Ok(first) = received.recv() {
        group.push(first);
        group.extend(received.try_iter().take(GROUP - 1));
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let results =
            group.iter().map(|publish| insert(&transaction, publish)).collect::<Result<Vec<(String, Vec<u8>)>>>()?;
        transaction.commit()?;
        for (received, (topic, payload)) in group.drain(..).zip(results) {
            if publish {
                client.publish(topic, QoS::AtLeastOnce, false, payload)?;
            }
            client.ack(&received)?;
        }
    }
    Ok(())
}

// The topic and the payload of the result.
fn insert(transaction: &Transaction<'_>, publish: &Publish) -> Result<(String, Vec<u8>)> {
    let device = publish.topic.split('/').nth(1).context("a topic without a device")?;
    let Reading { time, fahrenheit } = serde_json::from_slice(&publish.payload)?;
    let celsius = ((fahrenheit - 32.0) / 1.8 * 100.0).round() / 100.0;
    let alarm = fahrenheit > LIMIT;
    let mut insert =
        transaction.prepare_cached("INSERT INTO readings (device, time, celsius, alarm) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![device, time as i64, celsius, alarm])?;
    let converted = serde_json::to_vec(&Converted { device, time, celsius, alarm })?;
    Ok((format!("results/{device}"), converted))
}
