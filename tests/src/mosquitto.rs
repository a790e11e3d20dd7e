//! An outside broker: Debian's mosquitto.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cloud::STARTS;
use crate::{Port, Process, World, wait_until};

/// A mosquitto.
#[derive(Debug)]
pub struct Mosquitto {
    port: Port,
    config: PathBuf,
    logs: PathBuf,
    process: Option<Process>,
}

/// What a mosquitto knows of its sessions when it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// What it saved when it was stopped in good order.
    SavedAtStop,
    /// What it saved at every change, also if it was killed. Debian's 2.0.11 may miss the last change.
    SavedAtOnce,
    /// Nothing.
    InMemory,
}

impl Mosquitto {
    /// Starts one, and waits until it listens; `None` where it is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn start(world: &World, sessions: Sessions) -> Result<Option<Self>> {
        Self::start_with(world, sessions, "")
    }

    /// The same, with these lines at the end of its configuration.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn start_with(world: &World, sessions: Sessions, settings: &str) -> Result<Option<Self>> {
        let installed = Command::new("mosquitto").arg("-h").output();
        if installed.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let port = Port::free()?;
        let data = world.path("mosquitto");
        std::fs::create_dir(&data)?;
        let persistence = match sessions {
            Sessions::SavedAtStop => "persistence true",
            Sessions::SavedAtOnce => "persistence true\nautosave_on_changes true\nautosave_interval 1",
            Sessions::InMemory => "persistence false",
        };
        let config = format!(
            // Started by root it would become another user, who may not write here.
            "user root\nlistener {} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n{persistence}\n\
             persistence_location {}/\nmax_queued_messages 0\n{settings}",
            port.address().port(),
            data.display()
        );
        let config = world.write("mosquitto.conf", config)?;
        let mut mosquitto = Self { port, config, logs: world.logs(), process: None };
        mosquitto.restart()?;
        Ok(Some(mosquitto))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The program.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("mosquitto does not run")
    }

    /// Starts it again, after it was stopped or killed.
    ///
    /// # Errors
    /// It does not listen.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&self.config);
        let mut process = Process::start("mosquitto", command, &self.logs)?;
        wait_until("mosquitto to listen", STARTS, || {
            ensure!(process.ended().is_none(), "it ended");
            Ok(TcpStream::connect(self.port.address())?)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL: it is gone at once.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Stops it in good order (SIGTERM), so that it saves its sessions.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate()?;
            process.wait(STARTS)?;
        }
        Ok(())
    }
}
