//! Other programs, cargo first of all.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::report::{Failure, Outcome};

/// Builds these targets of every package, in the dev profile.
///
/// Features of dependencies follow from what is built together. So every command builds the whole workspace, and what it
/// builds next is chosen so that nothing is built twice.
pub(crate) fn build(targets: &str) -> Outcome {
    run(cargo().args(["build", "--workspace", "--locked", targets]))
}

/// All that the system is run with.
pub(crate) const BINARIES: &str = "--bins";

/// Tests and what they need too. What cargo test and nextest build is then there.
pub(crate) const ALL_TARGETS: &str = "--all-targets";

/// Cargo, called in the workspace.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that calls cargo, in the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    // What `cargo run` sets for this program is not for others: some build scripts (ring's) run again when it changes,
    // and with them everything that depends on them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| LEAKS.iter().any(|leak| name.starts_with(leak))) {
            command.env_remove(name);
        }
    }
    command
}

const LEAKS: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Runs a program that says itself why it fails.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command.get_program(), &error))?;
    if status.success() { Ok(()) } else { Err(Failure::Said) }
}

/// Whether a program is there and ends well, silently.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(crate) fn cannot_start(program: &OsStr, error: &std::io::Error) -> Failure {
    Failure::because(format!("cannot start {}: {error}", program.display()))
}

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where cargo puts what it builds: this program lies in the folder `debug` of it.
pub(crate) fn target_dir() -> Outcome<PathBuf> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::because(format!("cannot find the target directory: {error}")))?;
    let folder = program.parent().and_then(Path::parent);
    folder
        .map(Path::to_owned)
        .ok_or_else(|| Failure::because(format!("{} lies in no target directory", program.display())))
}

/// A binary of the workspace, where [`build`] puts it.
pub(crate) fn binary(name: &str) -> Outcome<PathBuf> {
    Ok(target_dir()?.join("debug").join(name))
}
