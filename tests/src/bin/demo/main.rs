//! The demo: the whole system on a recording of a real sensor, with a link that is cut in the middle.

mod results;
mod run;
mod screen;
mod stop;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use system_tests::recording::Recording;

use crate::screen::Screen;
use crate::stop::Stop;

/// Runs the whole system on this machine, in about a minute: a control plane, a gateway with its own broker, five
/// functions that are deployed to it through the control plane, and four devices that replay a recording of a real sensor
/// over MQTT. In the middle the link between gateway and control plane is cut: what the functions make of the readings is
/// kept on the gateway, and delivered when the link is back.
///
/// Ends with a table of what became of every reading. Exit status 1 if any is missing in the control plane, or is there
/// twice.
#[derive(Debug, Parser)]
#[command(name = "demo", bin_name = "cargo xtask demo")]
struct Args {
    /// Leave everything running at the end, and say how to look around, until Ctrl-C
    #[arg(long)]
    keep: bool,

    /// Replay this recording: CSV, first line "timestamp,value", then lines such as "2013-07-04 00:00:00,69.88", in °F
    #[arg(long, value_name = "FILE", requires = "windows")]
    data: Option<PathBuf>,

    /// When that sensor was in fact anomalous: JSON, a list of pairs of timestamps
    #[arg(long, value_name = "FILE", requires = "data")]
    windows: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut screen = Screen::new();
    match demonstrate(&args, &mut screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.is::<stop::Interrupted>() => {
            screen.note("interrupted: everything is stopped and removed");
            // As shells say it of a program that ended by SIGINT.
            ExitCode::from(130)
        }
        Err(error) => {
            screen.note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(args: &Args, screen: &mut Screen) -> Result<bool> {
    let recording = match (&args.data, &args.windows) {
        (Some(data), Some(windows)) => Recording::open(data, windows)?,
        _ => Recording::of_the_project()?,
    };
    let stop = Stop::on_signals()?;
    let mut demo = run::Demo::start(recording, screen)?;
    match demo.play(&stop, screen) {
        Ok(results) => {
            screen.note(&results.to_string());
            if args.keep {
                screen.note(&demo.how_to_look_around()?);
                stop.wait();
            }
            Ok(results.nothing_lost_or_doubled())
        }
        Err(error) => {
            if !error.is::<stop::Interrupted>() {
                demo.failed();
            }
            Err(error)
        }
    }
}
