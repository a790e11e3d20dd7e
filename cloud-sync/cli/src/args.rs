//! The command line.

mod function;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sync_core::labels;
use sync_core::targeting::Target;

use crate::time;

pub(crate) use function::{Bench, Build, Dev, FunctionCommand, Inspect, Language, New, Over, Run, Test};

/// What the program ends with; the page docs/functions.md has the same table.
const STATUSES: &str = "\
Exit status:
  0  done, and what was to be checked holds
  1  no: a test differs, a function or a file is not right, the control plane refuses, a deployment does not run
  2  the command line is wrong
  3  this machine could not do it: a file cannot be read or written, a program or a token is missing
  4  the other side cannot be reached: the control plane, or a broker
  5  a replay differs: from its recording, or one version from the other";

/// Builds, signs and deploys functions for IoT gateways, and looks after the gateways.
#[derive(Parser)]
#[command(name = "edgectl", version, after_help = STATUSES)]
pub(crate) struct Args {
    /// Where the control plane is.
    #[arg(long, global = true, env = "EDGECTL_SERVER", default_value = "http://127.0.0.1:8080")]
    pub(crate) server: String,
    /// File with the operator's token; without it, the variable EDGECTL_TOKEN holds the token itself.
    #[arg(long, global = true, env = "EDGECTL_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Prints JSON: the control plane's own, or one object a line for what comes one by one.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Publishers' keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Functions on this machine.
    #[command(subcommand)]
    Fn(FunctionCommand),
    /// Signs a built function and stores it in the control plane.
    Push {
        /// What `fn build` made.
        file: PathBuf,
        /// File with the secret key.
        #[arg(long)]
        key: PathBuf,
    },
    /// Says that a function should run somewhere.
    Deploy(Deploy),
    /// Says that a function should not run somewhere.
    Undeploy {
        /// Name of the function.
        name: String,
        /// gateway:ID, label:KEY=VALUE or all.
        #[arg(long)]
        to: Target,
    },
    /// Claims, with which gateways enrol.
    #[command(subcommand)]
    Claim(ClaimCommand),
    /// Lists the gateways, how they are, and what runs on them.
    Gateways,
    /// One gateway.
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// Lists the functions that were pushed.
    Functions,
    /// Lists what should run where.
    Deployments,
    /// Shows records, in the order in which they were stored.
    Records(Records),
    /// Makes the runs of a recording again, and says what differs.
    Replay(Replay),
    /// Lists the streams of records.
    Streams,
    /// Shows the fleet in numbers.
    Stats,
    /// Prints a script that completes this program's commands in a shell.
    Completions {
        /// For which one.
        shell: Shell,
    },
    /// Shows what functions used: runs, fuel, time, memory, bytes.
    Usage(Usage),
    /// Shows what functions counted and observed.
    Metrics(Metrics),
    /// Dead letters: events that a function could not handle.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// What devices are, as functions report it.
    #[command(subcommand)]
    Twin(TwinCommand),
}

/// Shells that commands can be completed in.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Shell {
    /// Put it where bash looks: edgectl completions bash > ~/.local/share/bash-completion/completions/edgectl
    Bash,
    /// Put it where zsh looks, a folder of $fpath: edgectl completions zsh > ~/.zfunc/_edgectl
    Zsh,
    /// Put it where fish looks: edgectl completions fish > ~/.config/fish/completions/edgectl.fish
    Fish,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key: the secret in FILE, for its owner only, and the public key in FILE.pub.
    New {
        /// Where to; no file is overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Tells the control plane a public key, so that it checks signatures by it when functions are pushed.
    Register {
        /// The file FILE.pub of `key new`.
        file: PathBuf,
    },
    /// Lists the public keys that the control plane knows.
    List,
}

#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// NAME (its highest version), NAME@VERSION, sha256:…, or the file of a built function (with a "/" or ".wasm").
    pub(crate) function: String,
    /// gateway:ID, label:KEY=VALUE or all.
    #[arg(long)]
    pub(crate) to: Target,
    /// Configuration that differs from the manifest; may be given more than once.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) config: Vec<(String, String)>,
    /// Waits until it has passed its trial on every gateway that is meant and online; fails if it does not run there.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most, such as 90s or 5m.
    #[arg(long, default_value = "2m", value_parser = time::parse_duration, requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Subcommand)]
pub(crate) enum ClaimCommand {
    /// Makes a claim and prints its token: good for one gateway.
    New {
        /// A label that the gateway will have; may be given more than once.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// For how long it can be used, such as 30m, 1h or 7d.
        #[arg(long, default_value = "1h", value_parser = time::parse_duration)]
        expires: Duration,
    },
    /// Lists claims, without their tokens.
    List,
}

#[derive(Subcommand)]
pub(crate) enum GatewayCommand {
    /// Shows all that is known of a gateway: how it is, what runs, and where the records of each stream are.
    Show {
        /// Id of the gateway.
        id: String,
    },
    /// Lists the sequences without a record: what a gateway dropped, and what it lost.
    Gaps(Gaps),
    /// Changes labels: KEY=VALUE sets one, KEY= removes it, others stay.
    Label {
        /// Id of the gateway.
        id: String,
        /// The labels.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = label_change)]
        labels: Vec<(String, Option<String>)>,
    },
}

#[derive(clap::Args)]
pub(crate) struct Replay {
    /// What `edge-agent record` or `dead show --save` wrote.
    #[arg(value_name = "RECORDING")]
    pub(crate) recording: PathBuf,
    /// A built function: with the version that was recorded, everything must be the same to the bit; of another one what
    /// it does is compared, and the fuel is shown.
    #[arg(long, value_name = "FILE")]
    pub(crate) with: PathBuf,
    /// Another version, compared with that of --with instead of with the recording.
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// A secret, for no recording holds one; may be given more than once.
    #[arg(long = "secret", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) secrets: Vec<(String, String)>,
    /// Units of fuel that a run may take, instead of what the manifests say.
    #[arg(long, value_name = "UNITS")]
    pub(crate) limit_fuel: Option<u64>,
}

#[derive(clap::Args)]
pub(crate) struct Gaps {
    /// Id of the gateway.
    pub(crate) id: String,
    /// How many to show at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Where to go on: "next" of an earlier answer.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Records {
    /// Only those of this stream.
    #[arg(long)]
    pub(crate) stream: Option<String>,
    /// Only those that come from this device's events.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Only those of this gateway, by its id.
    #[arg(long)]
    pub(crate) gateway: Option<String>,
    /// Only those of this function.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Only those from this time on, by the gateway's clock: 2026-11-03T10:00:00Z, or 15m for "15 minutes ago".
    #[arg(long, value_parser = time::parse_moment)]
    pub(crate) from: Option<u64>,
    /// Only those before this time, in the same forms.
    #[arg(long, value_parser = time::parse_moment)]
    pub(crate) to: Option<u64>,
    /// How many to show at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Where to go on: "next" or "resume" of an earlier answer with --json.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Shows all, and then what comes, until it is interrupted; with --json one record a line.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) follow: bool,
}

#[derive(clap::Args)]
pub(crate) struct Usage {
    /// Only that of this gateway, by its id.
    #[arg(long)]
    pub(crate) gateway: Option<String>,
    /// Only that of this function.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Only that of this device's events.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Only hours that begin at this time or later, by the gateways' clocks: 2026-11-03T10:00:00Z, or 7d for "7 days ago".
    #[arg(long, value_parser = time::parse_moment)]
    pub(crate) from: Option<u64>,
    /// Only hours that begin before this time, in the same forms.
    #[arg(long, value_parser = time::parse_moment)]
    pub(crate) to: Option<u64>,
    /// A row for each: some of hour, day, gateway, function and device, with commas.
    #[arg(long, default_value = "function")]
    pub(crate) by: String,
    /// How many rows to show at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Where to go on: "next" of an earlier answer.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct Metrics {
    /// Only those of this gateway, by its id.
    #[arg(long)]
    pub(crate) gateway: Option<String>,
    /// Only those of this function.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Only the one of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only hours that begin at this time or later, by the gateways' clocks: 2026-11-03T10:00:00Z, or 7d for "7 days ago".
    #[arg(long, value_parser = time::parse_moment)]
    pub(crate) from: Option<u64>,
    /// Only hours that begin before this time, in the same forms.
    #[arg(long, value_parser = time::parse_moment)]
    pub(crate) to: Option<u64>,
    /// A row for each, beside function and name: some of hour, day and gateway, with commas.
    #[arg(long)]
    pub(crate) by: Option<String>,
    /// How many rows to show at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Where to go on: "next" of an earlier answer.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum TwinCommand {
    /// Shows the latest value of each property of a gateway's devices, or of one device.
    Show(TwinShow),
}

#[derive(clap::Args)]
pub(crate) struct TwinShow {
    /// Id of the gateway.
    pub(crate) gateway: String,
    /// The device; all of them if not given.
    pub(crate) device: Option<String>,
    /// How many to show at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Where to go on: "next" of an earlier answer.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// Lists the letters that gateways have.
    List(DeadLetters),
    /// Shows a letter with its event and why it could not be handled.
    Show {
        /// Id of the gateway.
        gateway: String,
        /// Number of the letter.
        letter: u64,
        /// Writes the run that failed into a file, for `replay`; no file is overwritten.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Gives events to their function once more; a gateway that is offline does so when it is back.
    Retry(WhichLetters),
    /// Deletes letters on the gateway; what it told of them stays in the stream @dead.
    Drop(WhichLetters),
}

#[derive(clap::Args)]
pub(crate) struct DeadLetters {
    /// Only those of this gateway, by its id.
    #[arg(long)]
    pub(crate) gateway: Option<String>,
    /// Only those of this function.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// How many to show at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Where to go on: "next" of an earlier answer.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct WhichLetters {
    /// Id of the gateway.
    pub(crate) gateway: String,
    /// Number of the letter.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) letter: Option<u64>,
    /// All letters that the list shows now.
    #[arg(long)]
    pub(crate) all: bool,
    /// With --all: only those of this function.
    #[arg(long, conflicts_with = "letter")]
    pub(crate) function: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(text)?;
    labels::check(&key, &value).map_err(|error| error.to_string())?;
    Ok((key, value))
}

fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    match text.strip_suffix('=') {
        Some(key) if labels::check(key, "x").is_ok() => Ok((key.to_owned(), None)),
        _ => label(text).map(|(key, value)| (key, Some(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn pairs_and_labels_are_checked() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err() && pair("=a").is_err() && label("a=b c").is_err());
        assert_eq!(label_change("site="), Ok(("site".to_owned(), None)));
        assert_eq!(label_change("site=x"), Ok(("site".to_owned(), Some("x".to_owned()))));
        assert!(label_change("=").is_err() && label_change("a b=").is_err());
    }
}
