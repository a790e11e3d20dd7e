//! A thermostat as a host program: the device SDK over real MQTT with an embedded-hal sensor.
//!
//! From the outside in: `args` (what was asked for), `device` (the one loop: it does what the SDK's session says
//! and tells it what happened), `link` (a connection to the broker), `thermostat` (times and readings),
//! `sensor` (the mocked chip behind the real driver), `recording` and `simulation` (what the chip measures),
//! `boot` (the boot epoch) and `summary` (what is printed at the end).

mod args;
mod boot;
mod device;
mod link;
mod recording;
mod sensor;
mod simulation;
mod summary;
mod thermostat;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use device_sdk::BootCounter as _;
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::boot::Boot;
use crate::device::Device;
use crate::thermostat::Thermostat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let default_level = if args.verbose { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();

    let thermostat = match &args.replay {
        Some(path) => {
            let rows = recording::read(path).with_context(|| format!("cannot replay {}", path.display()))?;
            Thermostat::replaying(rows, args.limit)
        }
        None => Thermostat::simulated(args.seed(), args.limit),
    };
    let boot = Boot::from_args(&args).next_boot().context("there is no boot epoch, so no event may be published")?;

    let summary = Device::new(&args, boot).run(thermostat).await?;
    let line = summary.line(args.report)?;
    writeln!(std::io::stdout(), "{line}").context("cannot print the summary")?;
    Ok(if summary.unacknowledged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
