//! A gateway: the agent.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::cloud::STARTS;
use crate::{Edgectl, Port, Process, World, binary, http, wait_until};

/// Where a gateway's events come from.
#[derive(Clone, Copy, Debug)]
pub enum Inlet {
    /// Its own broker.
    Own,
    /// An outside broker.
    Outside(SocketAddr),
}

/// The label that every gateway here has.
pub const LABEL: &str = "site=home";

/// A gateway with its configuration and data, whether its agent runs or not.
#[derive(Debug)]
pub struct Gateway {
    name: String,
    config: PathBuf,
    logs: PathBuf,
    mqtt: Mqtt,
    status: Port,
    process: Option<Process>,
}

#[derive(Debug)]
enum Mqtt {
    Own(Port),
    Outside(SocketAddr),
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Status {
    /// Events.
    pub events: Events,
    /// Records on their way to the cloud.
    pub records: Records,
    /// Events in the dead letters.
    pub dead_letters: u64,
    /// Events that wait for functions as messages.
    pub messages: u64,
    /// Blobs.
    pub blobs: Blobs,
    /// HTTP requests of functions.
    pub requests: Requests,
    /// Times that a commit failed.
    pub resets: u64,
    /// The link to the control plane.
    pub link: Metered,
    /// How every function is.
    pub functions: Vec<Function>,
}

/// Blobs on the gateway.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Blobs {
    /// How many names there are.
    pub count: u64,
    /// Bytes of all contents.
    pub bytes: u64,
    /// Files of watched folders that are not taken.
    pub files_refused: u64,
}

/// HTTP requests of functions.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Requests {
    /// Those that have no answer yet.
    pub waiting: u64,
    /// Those that were sent since the agent started, each try counted.
    pub sent: u64,
    /// Of these: requests whose answer is on disk.
    pub answered: u64,
    /// Of these: requests that were given up.
    pub failed: u64,
}

/// What went over the link to the control plane.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metered {
    /// Bytes in this month.
    pub bytes: u64,
}

/// Events since the agent started.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Events {
    /// That came in.
    pub received: u64,
    /// Runs of functions whose effects are on disk.
    pub handled: u64,
    /// Runs that were left out, since the function had handled the event before.
    pub duplicates: u64,
    /// Runs that ended in the dead letters.
    pub dead: u64,
    /// Runs that failed and are tried again.
    pub retried: u64,
}

/// Records on their way to the cloud.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Records {
    /// In the outbox.
    pub waiting: u64,
    /// Confirmed by the control plane since the agent started.
    pub delivered: u64,
    /// Contradictions between gateway and control plane.
    pub alarms: u64,
    /// The outbox, stream by stream.
    pub streams: Vec<Stream>,
}

/// What waits of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// How many bytes.
    pub bytes: u64,
}

/// A function on the gateway.
#[derive(Clone, Debug, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The version that runs; empty if none does.
    pub version: String,
    /// The deployment that was tried last.
    pub deployment: u64,
    /// `trial`, `running`, `rolled_back` or `failed`.
    pub status: String,
    /// Why.
    pub detail: String,
    /// How much state it has, in bytes.
    pub state_bytes: u64,
}

impl Function {
    /// Whether the version that was wanted runs.
    pub fn runs(&self) -> bool {
        matches!(self.status.as_str(), "trial" | "running")
    }
}

impl Gateway {
    /// A gateway with this name that reaches its control plane at this address, trusts the operator's key, and has a
    /// claim to enrol with; [`LABEL`] is its label. Its agent does not run yet.
    ///
    /// # Errors
    /// There is no claim, or the disk does not take the configuration.
    pub fn new(world: &World, name: &str, inlet: Inlet, cloud: SocketAddr, operator: &Edgectl) -> Result<Self> {
        let claim = world.write(&format!("{name}.claim"), operator.claim(LABEL)?)?;
        let status = Port::free()?;
        let mqtt = match inlet {
            Inlet::Own => Mqtt::Own(Port::free()?),
            Inlet::Outside(address) => Mqtt::Outside(address),
        };
        let mut config = format!("[gateway]\nname = \"{name}\"\ndata_dir = \"{name}\"\n\n");
        match &mqtt {
            Mqtt::Own(port) => write!(config, "[mqtt.listen]\naddress = \"{}\"\n\n", port.address()),
            Mqtt::Outside(broker) => write!(
                config,
                "[mqtt.connect]\nhost = \"{}\"\nport = {}\nclient_id = \"{name}\"\n\n",
                broker.ip(),
                broker.port()
            ),
        }
        .expect("writing to a String cannot fail");
        // Tests wait for the link to be found again, so the longest pause is short.
        write!(
            config,
            "[deploy]\ntrusted_keys = [\"{}\"]\n\n[status]\nlisten = \"{}\"\n\n\
             [cloud]\nurl = \"http://{cloud}\"\nclaim_file = \"{}\"\nretry_max_s = 1\n",
            operator.public_key(),
            status.address(),
            claim.display()
        )
        .expect("writing to a String cannot fail");
        let config = world.write(&format!("{name}.toml"), config)?;
        Ok(Self { name: name.to_owned(), config, logs: world.logs(), mqtt, status, process: None })
    }

    /// Adds this to the end of its configuration, for the next start. It begins within `[cloud]`.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn configure(&self, toml: &str) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.config)?;
        std::io::Write::write_all(&mut file, toml.as_bytes())
            .with_context(|| format!("cannot write {}", self.config.display()))
    }

    /// The file of its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where devices connect.
    pub fn broker(&self) -> SocketAddr {
        match &self.mqtt {
            Mqtt::Own(port) => port.address(),
            Mqtt::Outside(address) => *address,
        }
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.config.with_file_name(&self.name)
    }

    /// Where the agent tells how it is.
    pub fn status_address(&self) -> SocketAddr {
        self.status.address()
    }

    /// Starts the agent, for the first time or again, and waits until it takes events.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        wait_until(&format!("{} to start", self.name), STARTS, || {
            ensure!(self.process.as_mut().is_some_and(|process| process.ended().is_none()), "it ended");
            self.status()?;
            TcpStream::connect(self.broker()).context("its broker does not listen")
        })?;
        Ok(())
    }

    /// Starts the agent, and waits for nothing.
    ///
    /// # Errors
    /// There is no such program.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(binary("edge-agent")?);
        command.arg("run").arg("--config").arg(&self.config);
        self.process = Some(Process::start(&self.name, command, &self.logs)?);
        Ok(())
    }

    /// SIGKILL: the agent is gone at once.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// SIGTERM: the agent settles what is in flight, and ends.
    ///
    /// # Errors
    /// It does not end in time, or does not run.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut process = self.process.take().with_context(|| format!("the agent of {} does not run", self.name))?;
        process.terminate()?;
        process.wait(deadline)
    }

    /// The agent.
    ///
    /// # Errors
    /// It does not run.
    pub fn agent(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("the agent of {} does not run", self.name))
    }

    /// How it is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status> {
        http::get(self.status.address(), "/status", None)
    }

    /// Waits until these functions, and no others, run.
    ///
    /// # Errors
    /// They do not.
    pub fn wait_for_functions(&self, names: &[&str], deadline: Duration) -> Result<()> {
        wait_until(&format!("{} functions to run on {}", names.len(), self.name), deadline, || {
            let functions = self.status()?.functions;
            let running: Vec<&str> = functions.iter().filter(|f| f.runs()).map(|f| f.name.as_str()).collect();
            let complete = running.len() == names.len() && names.iter().all(|name| running.contains(name));
            ensure!(complete, "there are {functions:?}");
            Ok(())
        })
    }

    /// Waits until the cloud has every record.
    ///
    /// # Errors
    /// It does not get them.
    pub fn wait_until_drained(&self, deadline: Duration) -> Result<Status> {
        wait_until(&format!("the outbox of {} to be empty", self.name), deadline, || {
            let status = self.status()?;
            ensure!(status.records.waiting == 0, "{} records wait", status.records.waiting);
            Ok(status)
        })
    }
}
