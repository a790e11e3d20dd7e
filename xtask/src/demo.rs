//! `cargo xtask demo`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::cargo::{self, binary, cannot_start};
use crate::report::{Failure, Outcome, step};
use crate::{functions, setup};

pub(crate) const HELP: &str = "\
Usage: cargo xtask demo [--keep] [--data FILE --windows FILE]

Builds the whole system and runs it on this machine, in about a minute after the build: a control plane, a gateway with its
own broker, five functions that are deployed to it through the control plane, and four devices that replay a recording of a
real sensor over MQTT. In the middle the link between gateway and control plane is cut: what the functions make of the
readings is kept on the gateway, and delivered when the link is back.

Ends with a table of what became of every reading. Exit status 1 if any is missing in the control plane, or is there twice.

  --keep          leave everything running at the end, and say how to look around, until Ctrl-C
  --data FILE     replay this recording: CSV, first line \"timestamp,value\", then \"2013-07-04 00:00:00,69.88\", in °F
  --windows FILE  when that sensor was in fact anomalous: JSON, pairs of timestamps
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    check(arguments)?;
    setup::wasm()?;
    step("build", || cargo::build(cargo::BINARIES))?;
    step("functions", functions::rust)?;
    // It takes our place, so that Ctrl-C reaches it alone, and it has the last word.
    let mut demo = Command::new(binary("demo")?);
    demo.args(arguments);
    let error = demo.exec();
    Err(cannot_start(demo.get_program(), &error))
}

// A mistake is better said before the build than after it.
fn check(arguments: &[String]) -> Outcome {
    let (mut data, mut windows) = (false, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let given = match argument.as_str() {
            "--keep" => continue,
            "--data" => &mut data,
            "--windows" => &mut windows,
            _ => return Err(Failure::because(format!("{argument:?} is not known here; see --help"))),
        };
        *given = true;
        match arguments.next() {
            None => return Err(Failure::because(format!("{argument} wants a file"))),
            Some(file) if !Path::new(file).is_file() => {
                return Err(Failure::because(format!("{argument}: there is no file {file}")));
            }
            Some(_) => {}
        }
    }
    if data == windows {
        return Ok(());
    }
    Err(Failure::because("--data and --windows belong together: a recording, and what is known of it"))
}
