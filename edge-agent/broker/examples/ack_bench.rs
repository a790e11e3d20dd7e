//! How many QoS 1 publishes per second a broker acknowledges, over real sockets.
//!
//! `--broker ours` runs this crate's broker in the process, with an application that appends each group of messages to a
//! file and calls fsync before it accepts them: an acknowledgement means "on disk". `--addr HOST:PORT` measures a broker
//! that runs already, with whatever its acknowledgement means.
//!
//! `cargo run --release -p agent-broker --example ack_bench -- --broker ours --connections 100 --window 10`

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use agent_broker::{Broker, Inbound, Ingest, Options};
use clap::{Parser, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

/// Messages between the broker and the committer. More than all windows together, so that `submit` never waits.
const CHANNEL: usize = 1 << 16;

/// Messages of one commit at most.
const GROUP: usize = 4_096;

#[derive(Parser)]
#[command(about = "Counts QoS 1 acknowledgements per second.")]
struct Args {
    /// The broker in this process.
    #[arg(long, conflicts_with = "addr", required_unless_present = "addr")]
    broker: Option<Which>,
    /// A broker that runs already.
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// Connections at one time.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Publishes of one connection that may be unacknowledged.
    #[arg(long, default_value_t = 10)]
    window: usize,
    /// Publishes of all connections together.
    #[arg(long, default_value_t = 200_000)]
    total: usize,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Folder of the file that is committed to; it decides which disk is measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// This crate's, with an fsync before each group of acknowledgements.
    Ours,
    /// This crate's, accepting at once: what the commit costs is the difference.
    OursMemory,
}

/// Hands messages to the committing thread.
struct Commits(SyncSender<Inbound>);

impl Ingest for Commits {
    async fn submit(&self, inbound: Inbound) {
        if self.0.try_send(inbound).is_err() {
            tracing::error!("the committer is behind by more than all windows, or gone");
        }
    }
}

struct Memory;

impl Ingest for Memory {
    async fn submit(&self, inbound: Inbound) {
        inbound.ack.accept();
    }
}

/// Writes what waits, syncs once, accepts all of it. Returns the commits and the messages.
fn commit(inbox: &Receiver<Inbound>, mut file: std::fs::File) -> std::io::Result<(u64, u64)> {
    let (mut commits, mut messages) = (0, 0);
    let mut group = Vec::new();
    let mut bytes = Vec::new();
    while let Ok(first) = inbox.recv() {
        group.push(first);
        group.extend(inbox.try_iter().take(GROUP - 1));
        bytes.clear();
        for inbound in &group {
            bytes.extend_from_slice(inbound.topic.as_bytes());
            bytes.extend_from_slice(&inbound.payload);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        commits += 1;
        messages += group.len() as u64;
        for inbound in group.drain(..) {
            inbound.ack.accept();
        }
    }
    Ok((commits, messages))
}

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).init();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let per_connection = args.total.div_ceil(args.connections);
    if let Some(addr) = args.addr {
        let took = runtime.block_on(load(addr, &args, per_connection))?;
        return report(&args, per_connection, took, "");
    }
    let options = Options { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..Options::default() };
    // The broker has a runtime of its own, as it would have a process of its own.
    let served = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let broker = served.block_on(Broker::bind(options))?;
    let addr = broker.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    match args.broker {
        Some(Which::OursMemory) => {
            let run = served.spawn(broker.run(Arc::new(Memory), shutdown));
            let took = runtime.block_on(load(addr, &args, per_connection))?;
            drop(stop);
            served.block_on(run)?;
            report(&args, per_connection, took, "")
        }
        _ => {
            let path = args.dir.join("ack_bench.tmp");
            let file = std::fs::File::create(&path)?;
            let (sender, inbox) = sync_channel(CHANNEL);
            let committer = std::thread::spawn(move || commit(&inbox, file));
            let run = served.spawn(broker.run(Arc::new(Commits(sender)), shutdown));
            let took = runtime.block_on(load(addr, &args, per_connection))?;
            drop(stop);
            served.block_on(run)?;
            let (commits, messages) = committer.join().map_err(|_| "the committer panicked")??;
            std::fs::remove_file(path)?;
            let note = format!(", {commits} commits of {:.1} messages", messages as f64 / commits as f64);
            report(&args, per_connection, took, &note)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of a command")]
fn report(args: &Args, per_connection: usize, took: Duration, note: &str) -> Result<(), Box<dyn Error>> {
    let acks = per_connection * args.connections;
    println!(
        "{} connections, window {}: {acks} acks in {:.2} s = {:.0} acks/s{note}",
        args.connections,
        args.window,
        took.as_secs_f64(),
        acks as f64 / took.as_secs_f64(),
    );
    Ok(())
}

/// Connects everybody first, then lets all publish at once; the time from there to the last acknowledgement.
async fn load(addr: SocketAddr, args: &Args, count: usize) -> Result<Duration, Box<dyn Error>> {
    let start = Arc::new(Barrier::new(args.connections + 1));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..args.connections {
        let stream = connect(addr, number).await?;
        clients.spawn(publish(stream, number, args.window, args.payload, count, start.clone()));
    }
    start.wait().await;
    let began = Instant::now();
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

async fn connect(addr: SocketAddr, number: usize) -> Result<TcpStream, Box<dyn Error>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let id = format!("bench-{number}");
    let mut packet = vec![0x10, 12 + id.len() as u8];
    packet.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0\0");
    packet.push(id.len() as u8);
    packet.extend_from_slice(id.as_bytes());
    stream.write_all(&packet).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer != [0x20, 2, 0, 0] {
        return Err(format!("CONNACK {answer:x?}").into());
    }
    Ok(stream)
}

/// Keeps the window full until everything is acknowledged, in order.
async fn publish(
    mut stream: TcpStream,
    number: usize,
    window: usize,
    payload: usize,
    count: usize,
    start: Arc<Barrier>,
) -> std::io::Result<()> {
    let topic = format!("bench/{number}");
    let remaining = 4 + topic.len() + payload;
    let mut template = vec![0x32];
    match remaining {
        0..128 => template.push(remaining as u8),
        _ => template.extend([remaining as u8 | 0x80, (remaining >> 7) as u8]),
    }
    template.extend([0, topic.len() as u8]);
    template.extend_from_slice(topic.as_bytes());
    let id_at = template.len();
    template.extend([0, 0]);
    template.resize(template.len() + payload, b'x');
    let (mut sent, mut acked) = (0_usize, 0_usize);
    let mut out = Vec::new();
    let mut incoming = [0; 4_096];
    let mut partial = 0;
    start.wait().await;
    while acked < count {
        out.clear();
        while sent < count && sent - acked < window {
            let id = (sent % 65_535 + 1) as u16;
            let at = out.len() + id_at;
            out.extend_from_slice(&template);
            out[at..at + 2].copy_from_slice(&id.to_be_bytes());
            sent += 1;
        }
        stream.write_all(&out).await?;
        let read = stream.read(&mut incoming[partial..]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let filled = partial + read;
        let whole = filled - filled % 4;
        for ack in incoming[..whole].chunks_exact(4) {
            let expected = ((acked % 65_535 + 1) as u16).to_be_bytes();
            if ack != [0x40, 2, expected[0], expected[1]] {
                return Err(std::io::Error::other(format!("expected a PUBACK for {expected:x?}, got {ack:x?}")));
            }
            acked += 1;
        }
        incoming.copy_within(whole..filled, 0);
        partial = filled - whole;
    }
    stream.write_all(&[0xe0, 0]).await
}
