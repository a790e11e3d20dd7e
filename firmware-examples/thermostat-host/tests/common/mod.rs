//! A real mosquitto, a collector beside it, and a gate between the device and the broker.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long anything in these tests may take before it counts as hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A mosquitto on a port of its own, killed with SIGKILL when it is dropped.
pub(crate) struct Broker {
    process: Child,
    pub(crate) port: u16,
    _folder: TempDir,
}

impl Broker {
    /// Starts one and waits until it listens; `None`, with a word about it, when mosquitto is not installed.
    pub(crate) fn start() -> Option<Self> {
        // Between asking for a free port and mosquitto's listening on it, somebody else may take it.
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("mosquitto.conf");
            fs::write(&config, format!("listener {free} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n")).unwrap();
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(&config).stderr(Stdio::piped());
            let mut process = match command.spawn() {
                Ok(process) => process,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    // Past the test harness, which shows nothing of what a passing test prints.
                    std::io::stderr().write_all(b"mosquitto not found: skipped\n").unwrap();
                    return None;
                }
                Err(error) => panic!("mosquitto does not start: {error}"),
            };
            let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
            let running = log.by_ref().map_while(Result::ok).any(|line| line.ends_with("running"));
            if running {
                // What nobody reads would fill the pipe and stop the broker.
                std::thread::spawn(move || log.for_each(drop));
                return Some(Self { process, port: free, _folder: folder });
            }
            process.wait().unwrap();
        }
        panic!("mosquitto found no free port in ten attempts");
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Payloads from all brokers that the test has subscribed to, in the order of their arrival.
pub(crate) struct Collector {
    sender: mpsc::UnboundedSender<Vec<u8>>,
    payloads: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Collector {
    pub(crate) fn new() -> Self {
        let (sender, payloads) = mpsc::unbounded_channel();
        Self { sender, payloads }
    }

    /// Subscribes at a broker; when this returns the subscription is in force. With QoS 0 mosquitto writes a
    /// message to the subscriber's socket before it acknowledges it to the publisher and keeps none back, so
    /// what is acknowledged arrives here even if the broker is killed right after.
    pub(crate) async fn subscribe(&self, port: u16, filter: &str) {
        let (client, mut events) = AsyncClient::new(MqttOptions::new("collector", "127.0.0.1", port), 10);
        client.subscribe(filter, QoS::AtMostOnce).await.unwrap();
        let subscribed = async { while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {} };
        timeout(DEADLINE, subscribed).await.expect("no SUBACK");
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let _client = client;
            let mut connected = true;
            while connected {
                let next = events.poll().await;
                connected = next.is_ok();
                // rumqttc reports the end of a connection ahead of the packets that it read together with it.
                let rest = if connected { VecDeque::new() } else { std::mem::take(&mut events.state.events) };
                for event in next.into_iter().chain(rest) {
                    if let Event::Incoming(Packet::Publish(publish)) = event {
                        sender.send(publish.payload.to_vec()).unwrap();
                    }
                }
            }
        });
    }

    /// The next payload.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        timeout(DEADLINE, self.payloads.recv()).await.expect("no more events arrive").unwrap()
    }
}

/// What the gate does with the device's connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Passage {
    /// Closes them at once.
    Closed,
    /// To the broker on this port, both ways.
    Open(u16),
    /// To the broker on this port; what the broker answers is thrown away.
    Deaf(u16),
}

/// A TCP proxy at an address that stays, whatever becomes of the broker behind it.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    passage: watch::Sender<Passage>,
    swallowed: watch::Receiver<usize>,
}

impl Gate {
    pub(crate) async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passage, passages) = watch::channel(Passage::Closed);
        let (swallow, swallowed) = watch::channel(0);
        let swallow = Arc::new(swallow);
        tokio::spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                tokio::spawn(pass(device, passages.clone(), Arc::clone(&swallow)));
            }
        });
        Self { address, passage, swallowed }
    }

    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    /// Waits until this many bytes of answers were thrown away.
    pub(crate) async fn swallowed(&mut self, bytes: usize) {
        let enough = self.swallowed.wait_for(|swallowed| *swallowed >= bytes);
        timeout(DEADLINE, enough).await.expect("the broker answers nothing").unwrap();
    }
}

async fn pass(device: TcpStream, passages: watch::Receiver<Passage>, swallow: Arc<watch::Sender<usize>>) {
    let passage = *passages.borrow();
    let (Passage::Open(port) | Passage::Deaf(port)) = passage else { return };
    let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let (mut from_device, mut to_device) = device.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let up = tokio::io::copy(&mut from_device, &mut to_broker);
    let down = async {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = from_broker.read(&mut buffer).await {
            if *passages.borrow() == Passage::Deaf(port) {
                swallow.send_modify(|swallowed| *swallowed += length);
            } else if to_device.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    // When either side ends, both are dropped and the device sees its connection closed.
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}

/// The program under test.
pub(crate) struct Device {
    process: Child,
}

impl Device {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_thermostat-host"))
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process }
    }

    /// Reads the log until a line contains this.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        // Byte by byte, so that nothing of the rest is swallowed by a buffer.
        let mut log = BufReader::with_capacity(1, self.process.stderr.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program ended before it said {text:?}");
        }
    }

    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end: exit status, the summary, and the rest of the log.
    pub(crate) async fn finish(self) -> (Option<i32>, serde_json::Value, String) {
        let id = self.process.id();
        let end = tokio::task::spawn_blocking(move || self.process.wait_with_output().unwrap());
        let Ok(output) = timeout(DEADLINE, end).await else {
            let _ = Command::new("kill").arg("-KILL").arg(id.to_string()).status();
            panic!("the program does not end");
        };
        let output = output.unwrap();
        let summary = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), summary, String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// How often each sequence of this device and boot was seen, with its payload.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) events: HashMap<u64, (usize, String)>,
}

impl Seen {
    pub(crate) fn add(&mut self, bytes: &[u8], device: &str, boot: u32) {
        let envelope = device_wire::Envelope::decode(bytes).unwrap().expect("an envelope");
        assert_eq!((envelope.device, envelope.boot), (device, boot));
        let payload = String::from_utf8(envelope.payload.to_vec()).unwrap();
        let (times, first) = self.events.entry(envelope.sequence).or_insert((0, payload.clone()));
        assert_eq!(*first, payload, "the same event says the same");
        *times += 1;
    }

    pub(crate) fn arrivals(&self) -> usize {
        self.events.values().map(|(times, _)| times).sum()
    }
}
