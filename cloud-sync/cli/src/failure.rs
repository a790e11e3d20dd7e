//! Why a command failed: what was done, on what, why it failed, and what to do.

use std::io;
use std::path::PathBuf;

use function_package::checked::Mistakes;
use function_package::{PackageError, TextFormError};
use sync_core::api;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the async runtime did not start: {0}")]
    Start(io::Error),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("{action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} exists already and is not overwritten; name another file", .0.display())]
    Exists(PathBuf),
    #[error("{}: {source}", path.display())]
    Package { path: PathBuf, source: PackageError },
    #[error("{0}")]
    Manifest(Mistakes),
    #[error("what stands in {} {source}; is it the right file?", path.display())]
    Key { path: PathBuf, source: TextFormError },
    #[error("no key could be made: the operating system gives no random numbers: {0}")]
    Random(String),

    #[error(
        "no operator's token: name its file with --token-file (or EDGECTL_TOKEN_FILE), or put it into EDGECTL_TOKEN"
    )]
    NoToken,
    #[error("the operator's token in {0} is none: it has characters that cannot be sent")]
    BadToken(String),
    #[error("{url:?} is no address of a control plane: {why}; write http://HOST:PORT or https://HOST")]
    Server { url: String, why: String },
    #[error(
        "{doing}: the control plane at {server} cannot be reached: {why}; does it run, and is --server (or EDGECTL_SERVER) right?"
    )]
    Unreachable { doing: String, server: String, why: String },
    #[error("{doing}: {refusal}")]
    Refused { doing: String, refusal: api::Error },
    #[error(
        "{doing}: {server} answered with status {status} and not in the form of a control plane ({why}); is --server right, and are both of the same version?"
    )]
    NotTheApi { doing: String, server: String, status: u16, why: String },

    #[error("{program} cannot be started: {source}; is it installed and in PATH?")]
    Program { program: String, source: io::Error },
    #[error(
        "the Wasm target is missing; install it with\n\n    rustup target add wasm32-unknown-unknown\n\nor let this command do so with --install-target"
    )]
    NoWasmTarget,
    #[error("rustup target add wasm32-unknown-unknown failed with {0}; its own messages stand above")]
    InstallTarget(std::process::ExitStatus),
    #[error("cargo could not compile {}: it ended with {status}; its own messages stand above", dir.display())]
    Compile { dir: PathBuf, status: std::process::ExitStatus },
    #[error("cargo compiled {} and made no Wasm module of it; does the crate have a library (src/lib.rs)?", .0.display())]
    NoModule(PathBuf),

    #[error("deployment {number} of {function} does not run everywhere:\n{detail}")]
    NotRunning { number: u64, function: String, detail: String },
}

impl Failure {
    /// For `map_err`: what was tried with which file.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
