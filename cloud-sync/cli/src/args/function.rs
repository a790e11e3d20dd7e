//! The commands of function authors.

use std::path::PathBuf;

use clap::Subcommand;
use function_package::check_function_name;

use super::pair;

#[derive(Subcommand)]
pub(crate) enum FunctionCommand {
    /// Makes a function to begin with: it compiles, and its tests pass.
    New(New),
    /// Compiles a function to Wasm and puts its manifest in.
    Build(Build),
    /// Gives a function the events of its fixtures, and compares what it makes with what was approved.
    Test(Test),
    /// Runs a function on this machine, on what a broker sends or on a file of events, and prints what it makes.
    Run(Run),
    /// Shows what is in a built function, and whether a gateway would load it.
    Inspect(Inspect),
    /// Measures a function: fuel, time and memory for each event.
    Bench(Bench),
    /// Builds and tests a function whenever its files change, until it is interrupted.
    Dev(Dev),
}

#[derive(clap::Args)]
pub(crate) struct New {
    /// Name of the function: letters a-z, digits and hyphens, a letter first.
    #[arg(value_parser = function_name)]
    pub(crate) name: String,
    /// Where to; a folder of its name in the current directory if not given. It must not exist, or be empty.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub(crate) lang: Language,
    /// The folder function-sdk/ of a checkout of this project; the one that this program was built from if not given.
    #[arg(long, value_name = "DIR", env = "EDGECTL_SDK")]
    pub(crate) sdk: Option<PathBuf>,
}

/// What a new function can be written in. Modules from all other languages are packed by `fn build --wasm`.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Language {
    /// A library crate on the function SDK.
    Rust,
}

#[derive(clap::Args)]
pub(crate) struct Build {
    /// Directory of a Rust crate, with function.toml beside its Cargo.toml; the current one if not given.
    #[arg(conflicts_with = "wasm")]
    pub(crate) dir: Option<PathBuf>,
    /// A module that was compiled already, from whatever language.
    #[arg(long, requires = "manifest", value_name = "FILE")]
    pub(crate) wasm: Option<PathBuf>,
    /// The manifest for --wasm.
    #[arg(long, requires = "wasm", value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Where to; NAME.wasm in the current directory if not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Installs the Wasm target with rustup if it is missing.
    #[arg(long, conflicts_with = "wasm")]
    pub(crate) install_target: bool,
}

/// The function that a command is about.
#[derive(clap::Args)]
pub(crate) struct Given {
    /// A function's folder, which is built first, or what `fn build` made.
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    pub(crate) source: PathBuf,
    #[command(flatten)]
    pub(crate) over: Over,
    /// Installs the Wasm target with rustup if it is missing.
    #[arg(long)]
    pub(crate) install_target: bool,
}

/// What differs from the manifest and from the fixture.
#[derive(clap::Args)]
pub(crate) struct Over {
    /// Configuration that differs from the manifest and from the fixture; may be given more than once.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) config: Vec<(String, String)>,
    /// A secret that the gateway has, beside those of the fixture; may be given more than once.
    #[arg(long = "secret", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) secrets: Vec<(String, String)>,
}

#[derive(clap::Args)]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) given: Given,
    /// The folder of NAME.events.jsonl and NAME.effects.snap; fixtures/ of the function's folder if not given.
    #[arg(long, value_name = "DIR")]
    pub(crate) fixtures: Option<PathBuf>,
    /// Only the fixture of this name; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Writes what the function makes now as what it shall make; read it before you commit it.
    #[arg(long)]
    pub(crate) approve: bool,
}

#[derive(clap::Args)]
#[group(id = "from", required = true, args = ["broker", "events"])]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) given: Given,
    /// The MQTT broker that it listens to, with its own name and as one more subscriber; until it is interrupted.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) broker: Option<String>,
    /// A file of events instead of a broker.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["publish", "record", "user", "device_level", "count"])]
    pub(crate) events: Option<PathBuf>,
    /// Sends what the function publishes; otherwise it is only printed.
    #[arg(long)]
    pub(crate) publish: bool,
    /// Ends after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Writes the events to a file, a fixture for `fn test`; no file is overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// The level of the topic that names the device, from 1; the whole topic does if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) device_level: Option<u16>,
    /// The user at the broker; the password is in the variable EDGECTL_BROKER_PASSWORD.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// What random numbers begin with; a file of events has its own.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// What `fn build` made, or a function's folder, which is built first.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) file: PathBuf,
    /// Installs the Wasm target with rustup if it is missing.
    #[arg(long)]
    pub(crate) install_target: bool,
}

#[derive(clap::Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) given: Given,
    /// The files of events; the fixtures of the function's folder if not given. May be given more than once.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Vec<PathBuf>,
    /// How often all events are run, each time from an empty state.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) runs: u32,
}

#[derive(clap::Args)]
pub(crate) struct Dev {
    /// The function's folder.
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) over: Over,
    /// Installs the Wasm target with rustup if it is missing.
    #[arg(long)]
    pub(crate) install_target: bool,
}

fn function_name(text: &str) -> Result<String, String> {
    check_function_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}
