//! `cargo xtask functions`.

use std::path::PathBuf;
use std::process::Stdio;

use crate::cargo::{self, binary, run as run_program, target_dir, workspace};
use crate::report::{Failure, Outcome, no_arguments, say};
use crate::setup;

pub(crate) const HELP: &str = "\
Usage: cargo xtask functions

Compiles every function in function-examples/ to WebAssembly and packs it with its function.toml, by `edgectl fn build`;
then gives it the events in its folder fixtures/ and compares what it makes with what was approved, by `edgectl fn test`.
What has not changed is not compiled again. The packages are in functions/ of the target directory.

Needs the target wasm32-unknown-unknown, and adds it by rustup if it is missing.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    setup::wasm()?;
    cargo::build(cargo::BINARIES)?;
    pack()
}

/// Compiles, packs and tests; `edgectl` must be there.
pub(crate) fn pack() -> Outcome {
    let out = target_dir()?.join("functions");
    let cannot = |error: std::io::Error| Failure::because(format!("cannot make {}: {error}", out.display()));
    std::fs::create_dir_all(&out).map_err(cannot)?;
    for folder in folders()? {
        // A function's folder has its name.
        let package = out.join(folder.file_name().unwrap_or_default()).with_extension("wasm");
        let mut edgectl = cargo::command(binary("edgectl")?);
        run_program(edgectl.args(["fn", "build"]).arg(&folder).arg("--out").arg(&package).stdout(Stdio::null()))?;
        let mut edgectl = cargo::command(binary("edgectl")?);
        run_program(edgectl.args(["fn", "test"]).arg(package).arg("--fixtures").arg(folder.join("fixtures")))?;
    }
    say(format_args!("packed into {}", out.display()));
    Ok(())
}

fn folders() -> Outcome<Vec<PathBuf>> {
    let examples = workspace().join("function-examples");
    let cannot = |error: std::io::Error| Failure::because(format!("cannot read {}: {error}", examples.display()));
    let entries = std::fs::read_dir(&examples).map_err(cannot)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(cannot)?;
    let mut folders: Vec<PathBuf> = paths.into_iter().filter(|path| path.join("function.toml").is_file()).collect();
    folders.sort();
    Ok(folders)
}
