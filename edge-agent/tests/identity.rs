//! The agent as a whole with its own broker: which event a message is, and what becomes of one that is no event.

use std::path::Path;
use std::time::Duration;

use agent_store::{DeadKind, Store};
use device_wire::Envelope;
use edge_agent::agent;
use edge_agent::config::Config;
use function_package::Package;
use rumqttc::v5::mqttbytes::{QoS, v5::PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming, MqttOptions};
use sync_protocol::records::{Class, Entry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Emits the payload of every event.
fn echo() -> Package {
    let manifest = "manifest = 1\nname = \"echo\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"#\"\n\
                    [allow]\nstreams = [\"s\"]\n";
    let module = r#"(module
        (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "s")
        (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "edge_handle") (param i32 i32) (result i32)
            (call $emit (i32.const 0) (i32.const 1)
                (i32.add (local.get 0) (i32.load offset=48 (local.get 0))) (i32.load offset=52 (local.get 0))
                (i32.const 0))
            (i32.const 0)))"#;
    Package::pack(&wat::parse_str(module).unwrap(), manifest).unwrap()
}

struct Agent {
    stop: watch::Sender<bool>,
    running: JoinHandle<anyhow::Result<()>>,
    mqtt: u16,
    status: u16,
}

impl Agent {
    fn start(dir: &Path, identities: &str) -> Self {
        std::fs::write(dir.join("echo.wasm"), echo().bytes()).unwrap();
        let [mqtt, status] = free_ports();
        let config = format!(
            "[gateway]\ndata_dir = \"data\"\n[mqtt.listen]\naddress = \"127.0.0.1:{mqtt}\"\n\
             [status]\nlisten = \"127.0.0.1:{status}\"\n[[function]]\npath = \"echo.wasm\"\n{identities}"
        );
        let file = dir.join("agent.toml");
        std::fs::write(&file, config).unwrap();
        let (stop, stopping) = watch::channel(false);
        let config = Config::load(&file).unwrap();
        // A thread of its own: the start holds the store over its first steps, and so stays where it began.
        let running = tokio::task::spawn_blocking(move || Handle::current().block_on(agent::run(config, stopping)));
        Self { stop, running, mqtt, status }
    }

    /// The status, as it is on the wire.
    async fn status(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.status)).await.unwrap();
        stream.write_all(b"GET /status HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// Stops it; answers what was emitted, and the reasons of what was refused.
    async fn stop(self, dir: &Path) -> (Vec<String>, Vec<String>) {
        self.stop.send(true).unwrap();
        timeout(DEADLINE, self.running).await.unwrap().unwrap().unwrap();
        let store = Store::open(&dir.join("data/store")).unwrap();
        let mut reader = store.reader().unwrap();
        let entries = reader.range(Class::Normal, 0, 1_000, 1 << 20).unwrap().entries;
        let dead = reader.dead_letters(0, 100).unwrap();
        assert!(dead.iter().all(|letter| letter.dead.kind == DeadKind::Refused));
        let records = entries.into_iter().map(|entry| match entry {
            Entry::Record(record) => String::from_utf8(record.body).unwrap(),
            Entry::Gone(gone) => panic!("nothing is given up here, and yet: {gone:?}"),
        });
        let emitted = records.collect();
        (emitted, dead.into_iter().map(|letter| letter.dead.reason).collect())
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

struct Device {
    client: AsyncClient,
    events: EventLoop,
}

impl Device {
    fn new(name: &str, agent: &Agent) -> Self {
        let (client, events) = AsyncClient::new(MqttOptions::new(name, "127.0.0.1", agent.mqtt), 10);
        Self { client, events }
    }

    /// Publishes with QoS 1, and returns when it was acknowledged.
    async fn send(&mut self, topic: &str, payload: impl Into<Vec<u8>>, properties: &[(&str, &str)]) {
        let user_properties =
            properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let properties = PublishProperties { user_properties, ..Default::default() };
        let payload = payload.into();
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties).await.unwrap();
        let acknowledged = async {
            // Refused connections are tried again: the agent is only starting.
            while !matches!(self.events.poll().await, Ok(Event::Incoming(Incoming::PubAck(_)))) {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, acknowledged).await.unwrap();
    }
}

fn numbers<'a>(boot: &'a str, sequence: &'a str) -> [(&'static str, &'a str); 2] {
    [("event-boot", boot), ("event-sequence", sequence)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_user_properties_takes_effect_once() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), "");
    let mut device = Device::new("t1", &agent);
    device.send("c", "one", &numbers("1", "1")).await;
    device.send("c", "one", &numbers("1", "1")).await;
    // Without an identity it is handled as often as it comes.
    device.send("c", "plain", &[]).await;
    device.send("c", "plain", &[]).await;
    // The same number after a restart is another event, and so is that of another device.
    device.send("c", "two", &numbers("2", "1")).await;
    Device::new("t2", &agent).send("c", "three", &numbers("1", "1")).await;
    let (emitted, refused) = agent.stop(dir.path()).await;
    assert_eq!(emitted, ["one", "plain", "plain", "two", "three"]);
    assert!(refused.is_empty(), "{refused:?}");

    // What was handled is known after a restart of the agent.
    let agent = Agent::start(dir.path(), "");
    Device::new("t1", &agent).send("c", "two", &numbers("2", "1")).await;
    assert_eq!(agent.stop(dir.path()).await.0.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_itself_is_refused_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), "");
    let mut device = Device::new("t1", &agent);
    let mut bytes = [0; 100];
    let envelope = Envelope { device: "t1", boot: 1, sequence: 2, payload: b"both" };
    let length = envelope.encode(&mut bytes).unwrap();
    device.send("c", &bytes[..length], &numbers("1", "2")).await;
    device.send("c", &bytes[..length], &numbers("1", "3")).await;
    device.send("c", "other", &numbers("1", "2")).await;
    device.send("d", "both", &numbers("1", "2")).await;
    device.send("c", "x", &numbers("1", "2")[..1]).await;
    device.send("c", "x", &numbers("1", "-2")).await;
    let (emitted, refused) = agent.stop(dir.path()).await;
    assert_eq!(emitted, ["both"]);
    let reasons = [
        "its envelope says event 2 of boot 1, its user properties say event 3 of boot 1",
        "function echo: event 2 of boot 1 of t1 was handled before with another topic or payload",
        "function echo: event 2 of boot 1 of t1 was handled before with another topic or payload",
        "the message of t1 on c is refused: it has the user property event-boot, but not event-sequence",
        "its user property event-sequence is \"-2\"",
    ];
    assert_eq!(refused.len(), reasons.len(), "{refused:?}");
    for (refused, reason) in refused.iter().zip(reasons) {
        assert!(refused.contains(reason), "{refused}\n{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_finds_the_identity_of_a_foreign_device() {
    let dir = tempfile::tempdir().unwrap();
    let identities = "[[identity]]\ntopic = \"sensors/+/reading\"\ndevice = \"topic:2\"\n\
                      sequence = \"json:meta.seq\"\nboot = \"json:boot\"\n";
    let agent = Agent::start(dir.path(), identities);
    let mut device = Device::new("t1", &agent);
    let reading = |boot: u64, sequence: u64, value: u64| {
        format!("{{\"boot\":{boot},\"meta\":{{\"seq\":{sequence}}},\"v\":{value}}}")
    };
    device.send("sensors/t1/reading", reading(1, 1, 20), &[]).await;
    device.send("sensors/t1/reading", reading(1, 1, 20), &[]).await;
    device.send("sensors/t1/reading", reading(1, 1, 21), &[]).await;
    device.send("sensors/t1/reading", reading(2, 1, 22), &[]).await;
    device.send("sensors/t2/reading", reading(2, 2, 23), &[]).await;
    device.send("sensors/t1/reading", "{\"boot\":2,\"meta\":{\"seq\":1.5}}", &[]).await;
    // Handled, but nobody can say whether it was handled before.
    device.send("sensors/t1/reading", "offline", &[]).await;
    device.send("sensors/t1/reading", "offline", &[]).await;
    device.send("elsewhere", reading(1, 1, 20), &[]).await;
    assert!(agent.status().await.contains("\"unidentified\":2"));
    let (emitted, refused) = agent.stop(dir.path()).await;
    assert_eq!(emitted, [&*reading(1, 1, 20), &reading(2, 1, 22), "offline", "offline", &reading(1, 1, 20)]);
    let reasons = [
        "function echo: event 1 of boot 1 of t1 was handled before with another topic or payload",
        "the message of t1 on sensors/t2/reading is refused: it is in the name of \"t2\"",
        "its sequence, which the configuration takes from json:meta.seq, is a number with a point",
    ];
    assert_eq!(refused.len(), reasons.len(), "{refused:?}");
    for (refused, reason) in refused.iter().zip(reasons) {
        assert!(refused.contains(reason), "{refused}\n{reason}");
    }
}
