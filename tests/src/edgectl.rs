//! What an operator does, by the program that operators use.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{Cloud, World, binary, function};

/// An operator, who is also a publisher with a key.
#[derive(Debug)]
pub struct Edgectl {
    program: PathBuf,
    server: SocketAddr,
    token_file: PathBuf,
    key: PathBuf,
    public_key: String,
}

impl Edgectl {
    /// An operator of this control plane, with a new key that the control plane knows.
    ///
    /// # Errors
    /// A command fails.
    pub fn new(world: &World, cloud: &Cloud) -> Result<Self> {
        let mut operator = Self {
            program: binary("edgectl")?,
            server: cloud.address(),
            token_file: cloud.token_file(),
            key: world.path("publisher.key"),
            public_key: String::new(),
        };
        let made = operator.run(["key".as_ref(), "new".as_ref(), "--out".as_ref(), operator.key.as_os_str()])?;
        operator.public_key = text(&made, "public_key")?;
        let public_key_file = text(&made, "public_key_file")?;
        operator.run(["key", "register", &public_key_file])?;
        Ok(operator)
    }

    /// The publisher's public key, for gateways that shall trust it.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Makes a claim token, for one gateway that will have this label (`KEY=VALUE`).
    ///
    /// # Errors
    /// The command fails.
    pub fn claim(&self, label: &str) -> Result<String> {
        text(&self.run(["claim", "new", "--label", label])?, "claim")
    }

    /// Signs a function of `function-examples` and stores it in the control plane.
    ///
    /// # Errors
    /// It is not built, or the command fails.
    pub fn push(&self, name: &str) -> Result<()> {
        self.push_file(&function(name)?)
    }

    /// Signs a packed function and stores it in the control plane.
    ///
    /// # Errors
    /// The command fails.
    pub fn push_file(&self, file: &Path) -> Result<()> {
        self.run(["push".as_ref(), file.as_os_str(), "--key".as_ref(), self.key.as_os_str()])?;
        Ok(())
    }

    /// Says that a function should run somewhere: `gateway:ID`, `label:KEY=VALUE` or `all`.
    ///
    /// # Errors
    /// The command fails.
    pub fn deploy(&self, function: &str, to: &str) -> Result<()> {
        self.run(["deploy", function, "--to", to])?;
        Ok(())
    }

    /// Any command, with `--json`; returns what it prints.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command.args(["--json", "--server", &format!("http://{}", self.server), "--token-file"]).arg(&self.token_file);
        command.args(arguments);
        let shown = format!("{command:?}");
        let output = command.output().with_context(|| format!("cannot start {shown}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{shown} ended with {}: {}", output.status, stderr.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("{shown} printed no JSON"))
    }
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("there is no {field:?} in {value}"))
}
