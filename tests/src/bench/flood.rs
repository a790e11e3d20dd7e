//! Load as fast as it is taken: connections that keep their windows full.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::wire::{self, Template};

/// Publishes of QoS 1, of readings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    /// Connections at one time; each is a device with a topic of its own.
    pub(super) connections: usize,
    /// Publishes of one connection that may be unacknowledged.
    pub(super) window: usize,
    /// Publishes of all connections together, about: all send as many.
    pub(super) total: usize,
}

impl Flood {
    /// How many it publishes.
    pub(super) fn publishes(&self) -> usize {
        self.each() * self.connections
    }

    fn each(&self) -> usize {
        self.total.div_ceil(self.connections)
    }

    /// Connects everybody first, then lets all publish at once. Answers when that was, and how long it took until the last
    /// acknowledgement.
    pub(super) fn run(self, broker: SocketAddr) -> Result<(Instant, Duration)> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.publish(broker)).with_context(|| format!("publishing to {broker}"))
    }

    async fn publish(self, broker: SocketAddr) -> Result<(Instant, Duration)> {
        let start = Arc::new(Barrier::new(self.connections + 1));
        let mut devices = JoinSet::new();
        for device in 0..self.connections {
            let stream = connect(broker, &format!("bench-{device}")).await?;
            devices.spawn(publish(stream, device, self.window, self.each(), start.clone()));
        }
        start.wait().await;
        let began = Instant::now();
        while let Some(done) = devices.join_next().await {
            done??;
        }
        Ok((began, began.elapsed()))
    }
}

async fn connect(broker: SocketAddr, client: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::connect(client)).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == wire::CONNECTED, "CONNACK {answer:x?}");
    Ok(stream)
}

/// Keeps the window full until everything is acknowledged, in order.
async fn publish(mut stream: TcpStream, device: usize, window: usize, count: usize, start: Arc<Barrier>) -> Result<()> {
    let template = Template::new(&wire::topic(device));
    let (mut sent, mut acknowledged) = (0, 0);
    let mut out = Vec::new();
    let mut incoming = [0; 4_096];
    let mut partial = 0;
    start.wait().await;
    while acknowledged < count {
        out.clear();
        while sent < count && sent - acknowledged < window {
            template.write(sent, &mut out);
            sent += 1;
        }
        stream.write_all(&out).await?;
        let read = stream.read(&mut incoming[partial..]).await?;
        ensure!(read > 0, "the broker closed the connection after {acknowledged} of {count} acknowledgements");
        let filled = partial + read;
        let whole = filled - filled % 4;
        for packet in incoming[..whole].chunks_exact(4) {
            let [high, low] = wire::id(acknowledged);
            ensure!(packet == [0x40, 2, high, low], "expected a PUBACK for {high:x} {low:x}, got {packet:x?}");
            acknowledged += 1;
        }
        incoming.copy_within(whole..filled, 0);
        partial = filled - whole;
    }
    stream.write_all(&wire::DISCONNECT).await?;
    Ok(())
}
