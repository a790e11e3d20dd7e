//! The command line of the gateway agent.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use agent_functions::Engine;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use edge_agent::agent;
use edge_agent::config::Config;

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
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logs(arguments.log);
    match execute(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match arguments.command {
                Command::Run => tracing::error!("{error:#}"),
                // Somebody waits for just this.
                #[expect(clippy::print_stderr, reason = "the answer to a command goes to the terminal, not to the log")]
                Command::Check => eprintln!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<()> {
    // There is one provider in this binary; installing it twice is the only way to fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::load(&arguments.config)?;
    match arguments.command {
        Command::Check => {
            let functions = agent::check(&config, &Engine::new())?;
            tracing::info!("{} is good; {} functions of its own", arguments.config.display(), functions.len());
            Ok(())
        }
        Command::Run => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
            runtime.block_on(async { agent::run(config, stop_signal()?).await })
        }
    }
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
