//! `cargo xtask test`.

use std::process::Command;

use crate::cargo::{self, cargo, run as run_program, works};
use crate::report::{Failure, Outcome, say, step};
use crate::{count, functions, setup};

pub(crate) const HELP: &str = "\
Usage: cargo xtask test [--only STEP[,STEP…]]

Checks everything, in this order:

  setup      installs what is missing, see `cargo xtask setup --help`
  format     cargo fmt --check
  lint       cargo clippy, warnings are errors
  bare       the crates that must do without an operating system build for a microcontroller
  build      everything, tests too
  functions  the example functions, compiled to WebAssembly, packed, and tested with their fixtures
  count      the instructions of an event, by callgrind: no part of its way may take a tenth more than its budget
  deny       licences and advisories of dependencies, where cargo-deny is installed
  doc        the documentation's links, and the examples in it
  run        all other tests, those of the whole system too: real programs, real sockets. By cargo-nextest where it is
             installed, otherwise by cargo test

It stops at the first step that fails.

  --only STEP[,STEP…]  only these steps
";

struct Step {
    name: &'static str,
    run: fn() -> Outcome,
}

const STEPS: [Step; 10] = [
    Step { name: "setup", run: setup::all },
    Step { name: "format", run: format },
    Step { name: "lint", run: lint },
    Step { name: "bare", run: bare },
    Step { name: "build", run: || cargo::build(cargo::ALL_TARGETS) },
    Step { name: "functions", run: functions::pack },
    Step { name: "count", run: count::count },
    Step { name: "deny", run: deny },
    Step { name: "doc", run: doc },
    // The last one: what is printed last is the test runner's summary.
    Step { name: "run", run: tests },
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let chosen = choose(arguments)?;
    let (last, others) = chosen.split_last().expect("somebody who chooses chooses something");
    for Step { name, run } in others {
        step(name, run)?;
    }
    say(format_args!("\n==> {}", last.name));
    (last.run)()
}

fn choose(arguments: &[String]) -> Outcome<Vec<&'static Step>> {
    let names = match arguments {
        [] => return Ok(STEPS.iter().collect()),
        [only, names] if only == "--only" => names,
        [only] if only == "--only" => return Err(Failure::because(format!("--only wants {}", known()))),
        [other, ..] => return Err(Failure::because(format!("{other:?} is not known here; see --help"))),
    };
    for name in names.split(',') {
        if !STEPS.iter().any(|step| step.name == name) {
            return Err(Failure::because(format!("there is no step {name:?}; there are {}", known())));
        }
    }
    Ok(STEPS.iter().filter(|step| names.split(',').any(|name| name == step.name)).collect())
}

fn known() -> String {
    STEPS.map(|step| step.name).join(", ")
}

/// The crate that is no part of the workspace: the Extism plug-in, whose dependencies are its own.
const PLUGIN: [&str; 2] = ["--manifest-path", "function-examples/extism-redact/Cargo.toml"];

fn format() -> Outcome {
    run_program(cargo().args(["fmt", "--all", "--check"]))?;
    run_program(cargo().arg("fmt").args(PLUGIN).arg("--check"))
}

fn lint() -> Outcome {
    run_program(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))?;
    let mut plugin = cargo();
    plugin.arg("clippy").args(PLUGIN).args(["--target", setup::WASM, "--locked", "--", "--deny", "warnings"]);
    run_program(&mut plugin)
}

// What must build where there is no operating system: what a device needs, and decisions, which so can read no clock, open
// no file and call nobody.
const BARE: [&str; 3] = ["device-sdk", "device-wire", "agent-core"];

fn bare() -> Outcome {
    let packages = BARE.iter().flat_map(|package| ["--package", package]);
    run_program(cargo().args(["build", "--locked", "--target", setup::BARE]).args(packages))
}

fn deny() -> Outcome {
    if !works(cargo().args(["deny", "--version"])) {
        say("cargo-deny is not installed: licences and advisories are not checked (cargo install cargo-deny --locked)");
        return Ok(());
    }
    run_program(cargo().args(["deny", "--locked", "check"]))
}

fn doc() -> Outcome {
    let mut links = cargo();
    links.args(["doc", "--workspace", "--locked", "--no-deps", "--document-private-items"]);
    run_program(links.env("RUSTDOCFLAGS", "--deny warnings"))?;
    run_program(cargo().args(["test", "--doc", "--workspace", "--locked"]))
}

fn tests() -> Outcome {
    let mut command: Command = cargo();
    if works(cargo().args(["nextest", "--version"])) {
        command.args(["nextest", "run", "--workspace", "--locked"]);
    } else {
        say("cargo-nextest is not installed: using cargo test");
        command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"]);
    }
    run_program(command.env("PATH", setup::path()))
}
