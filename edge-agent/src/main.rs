//! The command line of the gateway agent.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_functions::Engine;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use edge_agent::agent::{self, StoreDamaged};
use edge_agent::config::Config;
use edge_agent::doctor::{self, Verdict};
use edge_agent::{memory, record};

/// Runs WebAssembly functions on what devices send over MQTT, keeps their results while there is no link, and delivers
/// them to a control plane.
#[derive(Parser)]
#[command(name = "edge-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/edge-agent/agent.toml", env = "EDGE_AGENT_CONFIG")]
    config: PathBuf,
    /// How log lines look. What is logged follows RUST_LOG, by default "info".
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGTERM or SIGINT, then settles what is in flight and ends.
    Run,
    /// Checks the configuration and the functions that it names, and starts nothing.
    Check,
    Doctor(doctor::Arguments),
    Record(record::Arguments),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

fn main() -> ExitCode {
    memory::share_arenas();
    let arguments = Arguments::parse();
    start_logs(arguments.log);
    match execute(&arguments) {
        Ok(code) => code,
        Err(error) => {
            match arguments.command {
                Command::Run => tracing::error!("{error:#}"),
                // Somebody waits for just this.
                #[expect(clippy::print_stderr, reason = "the answer to a command goes to the terminal, not to the log")]
                Command::Check | Command::Doctor(_) | Command::Record(_) => eprintln!("{error:#}"),
            }
            match arguments.command {
                Command::Run | Command::Check | Command::Record(_) => ExitCode::FAILURE,
                Command::Doctor(_) => Verdict::Unreadable.into(),
            }
        }
    }
}

fn execute(arguments: &Arguments) -> Result<ExitCode> {
    if let Command::Doctor(doctor) = &arguments.command {
        return Ok(doctor::run(doctor, &mut std::io::stdout().lock())?.into());
    }

    let config = Config::load(&arguments.config)?;
    if matches!(arguments.command, Command::Run) {
        run(config, &arguments.config)?;
    } else if let Command::Record(record) = &arguments.command {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .context("cannot start the runtime")?
            .block_on(async { record::run(&config, record, stop_signal()?, &mut std::io::stdout()).await })?;
    } else {
        let functions = agent::check(&config, &Engine::with_secrets(config.secrets.clone()))?;
        tracing::info!("{} is good; {} functions of its own", arguments.config.display(), functions.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn run(mut config: Config, path: &Path) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        loop {
            match agent::run(config, stop.clone()).await {
                // Nothing holds the store any more, and opening it recovers what can be read.
                Err(error) if error.is::<StoreDamaged>() && !*stop.borrow() => tracing::error!("{error}"),
                ended => return ended,
            }
            config = Config::load(path)?;
        }
    })
}

// True from the first SIGTERM or SIGINT on.
fn stop_signal() -> Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        // Kept, so that nobody takes a closed channel for a signal.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

fn start_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
}
