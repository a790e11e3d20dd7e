//! The project's own commands: `cargo xtask COMMAND`. No dependencies, so that the first of them starts at once.

mod bench;
mod cargo;
mod count;
mod crash;
mod cross;
mod demo;
mod functions;
mod fuzz;
mod languages;
mod peers;
mod report;
mod setup;
mod test;

use std::process::ExitCode;

use crate::report::{Failure, Outcome, say};

struct Command {
    name: &'static str,
    summary: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: [Command; 10] = [
    Command {
        name: "demo",
        summary: "builds and runs the whole system on a recording of a real sensor, in about a minute",
        help: demo::HELP,
        run: demo::run,
    },
    Command {
        name: "test",
        summary: "checks everything: format, lints, builds, all tests",
        help: test::HELP,
        run: test::run,
    },
    Command {
        name: "crash",
        summary: "kills the system under load, at every edge of an event's way, and looks for what is lost or doubled",
        help: crash::CRASH_HELP,
        run: crash::crash,
    },
    Command {
        name: "power-cut",
        summary: "cuts the power of the gateway's disk under load, and looks for what is lost or doubled",
        help: crash::POWER_CUT_HELP,
        run: crash::power_cut,
    },
    Command {
        name: "chaos",
        summary: "lets the network do what bad networks do, and looks for what is lost or doubled",
        help: crash::CHAOS_HELP,
        run: crash::chaos,
    },
    Command {
        name: "simulate",
        summary: "runs the sync protocol over a hostile link in virtual time, and looks for what is lost or doubled",
        help: crash::SIMULATE_HELP,
        run: crash::simulate,
    },
    Command {
        name: "bench",
        summary: "measures what the system costs, beside what its peers cost on this machine",
        help: bench::HELP,
        run: bench::run,
    },
    Command {
        name: "fuzz",
        summary: "loads and runs modules that a fuzzer makes, and looks for a panic or a limit that does not hold",
        help: fuzz::HELP,
        run: fuzz::run,
    },
    Command {
        name: "functions",
        summary: "compiles, packs and tests the example functions",
        help: functions::HELP,
        run: functions::run,
    },
    Command {
        name: "setup",
        summary: "installs what the other commands need and this machine lacks",
        help: setup::HELP,
        run: setup::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match execute(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(Failure::Because(reason)) => {
            say(format_args!("error: {reason}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &[String]) -> Outcome {
    let asks_for_help = |argument: &String| matches!(argument.as_str(), "--help" | "-h");
    let Some((name, rest)) = arguments.split_first().filter(|(name, _)| !asks_for_help(name) && *name != "help") else {
        say(overview());
        return Ok(());
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(Failure::because(format!("there is no command {name:?}\n\n{}", overview())));
    };
    if rest.iter().take_while(|argument| *argument != "--").any(asks_for_help) {
        say(command.help.trim_end());
        return Ok(());
    }
    (command.run)(rest)
}

fn overview() -> String {
    let lines: String =
        COMMANDS.iter().map(|Command { name, summary, .. }| format!("  {name:<10} {summary}\n")).collect();
    format!("Usage: cargo xtask COMMAND\n\n{lines}\n`cargo xtask COMMAND --help` says more.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_explains_itself() {
        for Command { name, help, .. } in COMMANDS {
            assert!(help.starts_with(&format!("Usage: cargo xtask {name}")), "{name}");
            assert!(execute(&[name.to_owned(), "--help".to_owned()]).is_ok(), "{name}");
            assert!(overview().contains(name));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            match execute(&arguments) {
                Err(Failure::Because(reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        assert!(refused(&["tset"]).starts_with("there is no command \"tset\""));
        assert!(refused(&["setup", "now"]).contains("\"now\""));
        assert!(refused(&["test", "--only", "lint,sing"]).contains("\"sing\""));
        assert!(refused(&["test", "--only"]).contains("--only"));
        assert!(refused(&["demo", "--kep"]).contains("\"--kep\""));
        assert!(refused(&["demo", "--data"]).contains("wants a file"));
        assert!(refused(&["demo", "--keep", "--data", "Cargo.toml"]).contains("belong together"));
        assert!(refused(&["demo", "--data", "no.csv", "--windows", "no.json"]).contains("no.csv"));
        assert!(refused(&["bench", "--fast"]).contains("\"--fast\""));
        assert!(refused(&["bench", "--quick", "--runs", "0"]).contains("--runs wants"));
        assert!(refused(&["bench", "--only", "--quick"]).contains("--only wants"));
        assert!(refused(&["functions", "--fast"]).contains("\"--fast\""));
        assert!(refused(&["crash", "--kill", "3"]).contains("\"--kill\""));
        assert!(refused(&["crash", "--kills", "3", "--seed"]).contains("--seed wants"));
        assert!(refused(&["power-cut", "--cuts", "often"]).contains("--cuts wants"));
    }
}
