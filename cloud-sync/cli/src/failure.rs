//! Why a command failed: what was done, on what, why it failed, and what to do.

use std::io;
use std::path::PathBuf;

use agent_core::FilterError;
use agent_functions::{LoadError, SpecError};
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
    #[error("{}:{line}: {why}", path.display())]
    Events { path: PathBuf, line: usize, why: String },
    #[error("{0}")]
    Spec(SpecError),
    #[error("a trigger is wrong: {0}")]
    Trigger(FilterError),
    #[error("{0}")]
    Load(LoadError),
    #[error(
        "there are no events for {function} in {}; write NAME.events.jsonl there, one event a line, such as {{\"topic\": \"a/b\", \"json\": {{}}}}, or name a place that has some",
        folder.display()
    )]
    NoEvents { function: String, folder: PathBuf },
    #[error(
        "{function} sees none of the events: no trigger matches, or they were handled before; `fn run --events` shows which"
    )]
    NothingSeen { function: String },
    #[error("there is no fixture {name:?} in {}; it is {name}.events.jsonl that is looked for", folder.display())]
    NoFixture { name: String, folder: PathBuf },
    #[error(
        "{bad} of {all} fixtures of {function} do not make what was approved; if what they make now is right, approve it with --approve"
    )]
    Differs { function: String, bad: usize, all: usize },
    #[error("{}: {why}", path.display())]
    Recording { path: PathBuf, why: String },
    #[error("this is a version of {found}, and the recording is of {recorded}")]
    OtherFunction { found: String, recorded: String },
    #[error("of {runs} runs {differ} differ, and {not_recorded} ask for what was not recorded")]
    Replayed { differ: u64, not_recorded: u64, runs: u64 },
    #[error("the dead letter {letter} has no recording: {why}")]
    NoRecording { letter: u64, why: String },
    #[error("a gateway would refuse {}", .0.display())]
    Refuses(PathBuf),
    #[error("{} is a file; where the fixtures of it are is said with {option}", path.display())]
    WhichEvents { path: PathBuf, option: &'static str },

    #[error("{} exists and is not empty; name another folder with --dir", .0.display())]
    FolderInUse(PathBuf),
    #[error(
        "no function SDK in {}; it is not on crates.io yet, so name the folder function-sdk/ of a checkout with --sdk (or EDGECTL_SDK)",
        .0.display()
    )]
    NoSdk(PathBuf),

    #[error(
        "{function} has no trigger for MQTT messages, so a broker has nothing for it; give it a file of events with --events"
    )]
    NoMqtt { function: String },
    #[error("{0:?} is no address of a broker; write HOST or HOST:PORT")]
    Address(String),
    #[error("the broker at {address} cannot be reached: {why}; does it run, and is --broker right?")]
    Broker { address: String, why: String },
    #[error("the broker at {address} lets nobody listen to {filters}; look at its access rules for this user")]
    NotSubscribed { address: String, filters: String },

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
    #[error(
        "{} has no Cargo.toml, and only Rust is compiled here; compile it with its own tools, and pack the module with `edgectl fn build --wasm MODULE --manifest function.toml`",
        .0.display()
    )]
    NoCrate(PathBuf),
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

    /// What the program ends with: who must act now. The command line's help and docs/functions.md have the table.
    pub(crate) fn status(&self) -> u8 {
        match self {
            // What was looked at is not right, or the answer is no.
            Self::Package { .. }
            | Self::Manifest(_)
            | Self::Key { .. }
            | Self::Events { .. }
            | Self::Spec(_)
            | Self::Trigger(_)
            | Self::Load(_)
            | Self::NoEvents { .. }
            | Self::NothingSeen { .. }
            | Self::NoMqtt { .. }
            | Self::NoFixture { .. }
            | Self::Differs { .. }
            | Self::Refuses(_)
            | Self::Recording { .. }
            | Self::OtherFunction { .. }
            | Self::NoRecording { .. }
            | Self::Refused { .. }
            | Self::Compile { .. }
            | Self::NoCrate(_)
            | Self::NoModule(_)
            | Self::NotRunning { .. } => 1,
            // As clap has it for what it can see itself.
            Self::WhichEvents { .. } | Self::Address(_) | Self::Server { .. } => 2,
            // This machine.
            Self::Start(_)
            | Self::Output(_)
            | Self::File { .. }
            | Self::Exists(_)
            | Self::Random(_)
            | Self::FolderInUse(_)
            | Self::NoSdk(_)
            | Self::NoToken
            | Self::BadToken(_)
            | Self::Program { .. }
            | Self::NoWasmTarget
            | Self::InstallTarget(_) => 3,
            // The other side.
            Self::Unreachable { .. } | Self::NotTheApi { .. } | Self::Broker { .. } | Self::NotSubscribed { .. } => 4,
            Self::Replayed { .. } => 5,
        }
    }
}
