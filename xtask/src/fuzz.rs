//! `cargo xtask fuzz`: modules that were never meant to be functions.

use crate::cargo::{self, command};
use crate::report::{Failure, Outcome, say};

pub(crate) const HELP: &str = "\
Usage: cargo xtask fuzz [--minutes N]

Loads and runs modules that a fuzzer makes (libFuzzer, guided by coverage), and looks whether one leads to a panic, breaks a
limit, or runs in two ways. There are two sources: bytes, which begin from the packed example functions and are changed; and
modules of wasm-smith, which are valid and call all imports in every way. What it finds lies in
edge-agent/functions/fuzz/artifacts; exit status 1 then.

  --minutes N  how long for each of the two (15)

It takes a nightly toolchain and cargo-fuzz, which it installs.
";

const SEEDS: &str = "functions";

/// What each source is, and the longest input in bytes.
const TARGETS: [(&str, &str); 2] = [("bytes", "131072"), ("modules", "16384")];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let minutes: u64 = match arguments {
        [] => 15,
        [option, minutes] if option == "--minutes" => match minutes.parse() {
            Ok(minutes @ 1..=10_000) => minutes,
            _ => return Err(Failure::because(format!("--minutes wants 1 to 10,000 in place of {minutes:?}"))),
        },
        [option] if option == "--minutes" => return Err(Failure::because("--minutes wants a number")),
        [other, ..] => return Err(Failure::because(format!("{other:?} is no option; see `cargo xtask fuzz --help`"))),
    };
    crate::functions::pack()?;
    if !cargo::works(command("cargo").args(["+nightly", "--version"])) {
        cargo::run(command("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))?;
    }
    if !cargo::works(command("cargo").args(["fuzz", "--version"])) {
        cargo::run(command("cargo").args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let folder = cargo::workspace().join("edge-agent/functions");
    let seeds = cargo::target_dir()?.join(SEEDS);
    let made = cargo::target_dir()?.join("fuzz");
    for (target, longest) in TARGETS {
        say(format_args!("==> {target}, {minutes} min"));
        let corpus = made.join(format!("corpus-{target}"));
        std::fs::create_dir_all(&corpus)
            .map_err(|error| Failure::because(format!("cannot make {}: {error}", corpus.display())))?;
        let mut fuzz = command("cargo");
        fuzz.current_dir(&folder).env("CARGO_TARGET_DIR", &made).args(["+nightly", "fuzz", "run", target]).arg(&corpus);
        if target == "bytes" {
            fuzz.arg(&seeds);
        }
        fuzz.args(["--", "-timeout=60", "-len_control=0", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        fuzz.args([format!("-max_total_time={}", minutes * 60), format!("-max_len={longest}")]);
        cargo::run(&mut fuzz)?;
    }
    Ok(())
}
