//! `cargo xtask setup`: what the machine must have.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::cargo::{run as run_program, works};
use crate::languages;
use crate::report::{Failure, Outcome, no_arguments, say};

pub(crate) const HELP: &str = "\
Usage: cargo xtask setup

Installs what the other commands need and this machine lacks:

  wasm32-unknown-unknown  by `rustup target add`: what functions are compiled for (demo, functions, test)
  thumbv7m-none-eabi      by `rustup target add`: a microcontroller, what the device SDK must build for (test)
  mosquitto               by apt-get, as root or where sudo asks for no password: a second MQTT broker to test with (test)
  strace                  by apt-get likewise: kills a program at its system calls (crash, test)
  valgrind                by apt-get likewise: counts the instructions of an event (test)
  clang, lld              by apt-get likewise: compile functions in C (functions, test)
  ziglang                 by pip, into the target directory: compiles functions in Zig (functions, test)
  assemblyscript          by npm, into the target directory: compiles functions in AssemblyScript (functions, test)

What it cannot install it names, with the command that does. Without mosquitto, strace and valgrind what needs them is
skipped, with a word, and so is a language whose compiler is missing; where the variable CI is \"true\", their absence is an
error.
";

/// What functions are compiled for.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";
/// A Cortex-M3 without an operating system: what is built for it can neither allocate nor read a clock by accident.
pub(crate) const BARE: &str = "thumbv7m-none-eabi";

/// Debian packages that the tests use, each with the program that shows that it is there.
const PACKAGES: [(&str, &str); 3] = [("mosquitto", "mosquitto"), ("strace", "strace"), ("valgrind", "valgrind")];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    all()
}

/// Everything.
pub(crate) fn all() -> Outcome {
    wasm()?;
    target(BARE)?;
    packages()?;
    languages::install()
}

/// What compiling functions needs.
pub(crate) fn functions() -> Outcome {
    wasm()?;
    languages::install()
}

/// What compiling functions in Rust needs.
pub(crate) fn wasm() -> Outcome {
    target(WASM)
}

/// A target of Rust, added if it is missing.
pub(crate) fn target(name: &str) -> Outcome {
    if is_installed(name)? {
        return Ok(());
    }
    let command = format!("rustup target add {name}");
    if !works(Command::new("rustup").arg("--version")) {
        return Err(Failure::because(format!(
            "the Rust target {name} is missing, and there is no rustup to add it. With rustup (https://rustup.rs) it is \
             `{command}`; where Rust came from a distribution, it is a package of it"
        )));
    }
    say(format_args!("the Rust target {name} is missing: {command}"));
    run_program(Command::new("rustup").args(["target", "add", name])).map_err(|_| {
        Failure::because(format!("the Rust target {name} could not be added; is there a network? Then run `{command}`"))
    })?;
    if is_installed(name)? {
        return Ok(());
    }
    Err(Failure::because(format!(
        "`{command}` ended well, but {} does not have the target; is another Rust first on the PATH?",
        rustc().get_program().display()
    )))
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

// Whether its standard library is there, whoever put it there.
fn is_installed(target: &str) -> Outcome<bool> {
    let mut rustc = rustc();
    rustc.args(["--print", "target-libdir", "--target", target]);
    let output = rustc.output().map_err(|error| crate::cargo::cannot_start(rustc.get_program(), &error))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

fn packages() -> Outcome {
    let missing = install_packages(&PACKAGES);
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {missing}");
    let what = format!("{missing} could not be installed; to do it by hand: {by_hand} (Debian; as root)");
    lacking(&what, "What needs it is skipped")
}

/// Installs those of these packages whose program is missing, where it may; answers the names of what is missing still.
pub(crate) fn install_packages(wanted: &[(&str, &str)]) -> String {
    let missing = || wanted.iter().filter(|(_, program)| !is_on_path(program)).map(|(package, _)| *package);
    let names = || missing().collect::<Vec<_>>().join(" ");
    if missing().next().is_some()
        && let Some(privileged) = apt_get()
    {
        say(format_args!("missing: {}; installing by apt-get", names()));
        let apt_get = |arguments: &[&str]| {
            let mut command = Command::new(privileged[0]);
            command.args(&privileged[1..]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            run_program(&mut command)
        };
        let install: Vec<&str> = ["install", "--yes", "--no-install-recommends"].into_iter().chain(missing()).collect();
        // A fresh machine knows no packages before it asks. Whether that worked shows in whether the next does.
        let _ = apt_get(&["update"]);
        let _ = apt_get(&install);
    }
    names()
}

/// Something is not there that could be done without, for the price of `then`. Not where a machine decides: there it could
/// be missed for months.
pub(crate) fn lacking(what: &str, then: &str) -> Outcome {
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        return Err(Failure::because(what));
    }
    say(format_args!("warning: {what}. {then}"));
    Ok(())
}

// How apt-get can be called without asking anybody, if at all.
fn apt_get() -> Option<&'static [&'static str]> {
    if !is_on_path("apt-get") {
        return None;
    }
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(&["apt-get"]);
    }
    works(Command::new("sudo").args(["-n", "true"])).then_some(&["sudo", "-n", "apt-get"])
}

pub(crate) fn is_on_path(program: &str) -> bool {
    std::env::split_paths(&path()).any(|folder| folder.join(program).is_file())
}

/// Where programs are looked for. Debian puts servers into sbin, which is not on everybody's PATH.
pub(crate) fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin");
    path
}
