//! `cargo xtask crash`, `power-cut`, `chaos` and `simulate`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::cargo::{self, binary, cannot_start};
use crate::report::{Failure, Outcome, step};
use crate::{functions, setup};

pub(crate) const CRASH_HELP: &str = "\
Usage: cargo xtask crash [--kills N] [--seed S]

Builds the whole system and kills it, by SIGKILL, again and again, while four thermostats send readings through it: the
agent and the control plane, at every edge of an event's way (received, writing, inserted, committed, acknowledged, sent,
stored, answered, deleted) and at any time; connections of devices are cut in between. In the end it compares what devices
were told is acknowledged with what the control plane has.

Prints how often what was killed where, how many events were acknowledged, lost and doubled, and the seed. Exit status 1 if
an event was lost or doubled, or anything else is not as it must be; then the folder with all logs stays.

  --kills N  how many processes are killed (100)
  --seed S   a whole number. The same seed gives the same plan; which event a kill meets depends on how the machine
             schedules. Without it: another one each time

Without strace, or where it may not trace, kills at system calls (writing, inserted) are left out, with a word.
";

pub(crate) const POWER_CUT_HELP: &str = "\
Usage: cargo xtask power-cut [--cuts N] [--seed S]

Builds the whole system and puts the gateway's data on an ext4 of its own, in a file. While four thermostats send readings,
the power of that disk is cut, again and again: what is not on it is gone. The agent is stopped at that moment, wherever it
is; it is killed, at once or after it went on for a while on a disk that answers with errors only, and started again on what
is left. In the end it compares what devices were told is acknowledged with what the control plane has.

Prints how many events were acknowledged, lost and doubled, and the seed. Exit status 1 if an event was lost or doubled, or
anything else is not as it must be; then the folder with all logs stays.

  --cuts N  how often (20)
  --seed S  a whole number. The same seed gives the same moments, as far as the machine keeps them. Without it: another one
            each time

It takes root, loop devices and ext4's programs.
";

pub(crate) const CHAOS_HELP: &str = "\
Usage: cargo xtask chaos [--rounds N] [--seed S]

Builds the whole system and puts proxies on the ways between devices, gateway and control plane, which do what bad networks
do: they delay, send twice, let a later connection overtake, fall silent, read slowly, break off in the middle of an
answer, and answer with 429, 500 and 503. In the end it compares what devices were told is acknowledged with what the
control plane has.

Prints how often which fault struck, how many events were acknowledged, lost and doubled, and the seed. Exit status 1 if an
event was lost or doubled, or anything else is not as it must be; then the folder with all logs stays.

  --rounds N  how often each fault strikes (5)
  --seed S    a whole number, of the order of the faults. Without it: another one each time
";

pub(crate) const SIMULATE_HELP: &str = "\
Usage: cargo xtask simulate [--runs N] [--seed S]

Builds the whole system and runs the sync protocol in virtual time: a gateway's real store and what decides what is
delivered and dropped, against a real control plane, over a link that loses, delays, doubles and reorders requests and
whose answers are lost, stale or lies; with quotas, times to live, crashes and reboots in between. Every run lives through
some weeks and another mixture of these.

Prints for each run how many records were emitted, delivered and dropped by a policy. Exit status 1 if for any stream the
control plane does not have, or know to be gone, exactly what was emitted, or if it has anything twice.

  --runs N  how many (100)
  --seed S  a whole number: that of the first run; the others count on from it. The same seed takes the same way. Without
            it: another one each time
";

pub(crate) fn crash(arguments: &[String]) -> Outcome {
    run("crash", "--kills", arguments)
}

pub(crate) fn power_cut(arguments: &[String]) -> Outcome {
    run("power-cut", "--cuts", arguments)
}

pub(crate) fn chaos(arguments: &[String]) -> Outcome {
    run("chaos", "--rounds", arguments)
}

pub(crate) fn simulate(arguments: &[String]) -> Outcome {
    run("simulate", "--runs", arguments)
}

fn run(name: &str, how_many: &str, arguments: &[String]) -> Outcome {
    check(how_many, arguments)?;
    setup::wasm()?;
    step("build", || cargo::build(cargo::BINARIES))?;
    step("functions", functions::rust)?;
    // It takes our place, so that Ctrl-C reaches it alone, and it has the last word.
    let mut crash = Command::new(binary("crash")?);
    crash.arg(name).args(arguments);
    let error = crash.exec();
    Err(cannot_start(crash.get_program(), &error))
}

// A mistake is better said before the build than after it.
fn check(how_many: &str, arguments: &[String]) -> Outcome {
    for pair in arguments.chunks(2) {
        match pair {
            [name, ..] if name != how_many && name != "--seed" => {
                return Err(Failure::because(format!("{name:?} is not known here; see --help")));
            }
            [_, number] if number.parse::<u64>().is_ok() => {}
            [name, ..] => return Err(Failure::because(format!("{name} wants a whole number"))),
            [] => {}
        }
    }
    Ok(())
}
