//! `cargo xtask functions`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cargo::{self, binary, run as run_program, target_dir, workspace};
use crate::languages::{LANGUAGES, Language};
use crate::report::{Failure, Outcome, no_arguments, say};
use crate::setup;

const MANIFEST: &str = "function.toml";

/// The file that a function in Rust has.
const RUST: &str = "Cargo.toml";

pub(crate) const HELP: &str = "\
Usage: cargo xtask functions

Compiles every function in function-examples/ to WebAssembly and packs it with its function.toml, by `edgectl fn build`;
then gives it the events in its folder fixtures/ and compares what it makes with what was approved, by `edgectl fn test`.
Rust that has not changed is not compiled again. The packages are in functions/ of the target directory.

What a folder holds says the language: Cargo.toml is Rust, function.c C, function.zig Zig, function.ts AssemblyScript. Where
the same function is written in several, the packages of all but Rust have the language behind their name. An Extism plug-in
in Rust is a workspace of its own, with a Cargo.lock.

Needs the target wasm32-unknown-unknown and the languages' compilers, and installs what is missing as `cargo xtask setup`
does. A language whose compiler cannot be installed is skipped, with a word; where the variable CI is \"true\", that is an
error.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    setup::functions()?;
    cargo::build(cargo::BINARIES)?;
    pack()
}

/// Compiles, packs and tests all of them; `edgectl` must be there.
pub(crate) fn pack() -> Outcome {
    rust()?;
    for folder in folders()? {
        if is_plugin(&folder) {
            rust_crate(&folder)?;
        }
        for language in LANGUAGES.iter().filter(|language| folder.join(language.source).is_file()) {
            other(&folder, language)?;
        }
    }
    say(format_args!("packed into {}", made("functions")?.display()));
    Ok(())
}

fn other(folder: &Path, language: &Language) -> Outcome {
    let alone = !folder.join(RUST).is_file();
    let package = package(folder, if alone { None } else { Some(language.name) })?;
    if let Some(module) = language.compile(folder, &made("modules")?)? {
        let mut edgectl = edgectl()?;
        edgectl.arg("--wasm").arg(module).arg("--manifest").arg(folder.join(MANIFEST));
        run_program(edgectl.arg("--out").arg(&package))?;
        return test(folder, &package);
    }
    // An old one would be tested as if it were this one.
    let _ = std::fs::remove_file(&package);
    let source = folder.join(language.source);
    let what = format!("{} is not built: its compiler is missing, see `cargo xtask setup`", source.display());
    setup::lacking(&what, "Its tests are skipped")
}

/// Compiles and packs those in Rust that use our SDK; `edgectl` must be there.
pub(crate) fn rust() -> Outcome {
    let ours = |folder: &&PathBuf| folder.join(RUST).is_file() && !is_plugin(folder);
    folders()?.iter().filter(ours).try_for_each(|folder| rust_crate(folder))
}

fn rust_crate(folder: &Path) -> Outcome {
    let package = package(folder, None)?;
    run_program(edgectl()?.arg(folder).arg("--out").arg(&package))?;
    test(folder, &package)
}

/// Gives a package the events of its function's fixtures, where it has some.
fn test(folder: &Path, package: &Path) -> Outcome {
    let fixtures = folder.join("fixtures");
    if !fixtures.is_dir() {
        return Ok(());
    }
    let mut edgectl = cargo::command(binary("edgectl")?);
    run_program(edgectl.args(["fn", "test"]).arg(package).arg("--fixtures").arg(fixtures))
}

/// An Extism plug-in, whose dependencies are its own: it has a lock file beside its manifest.
fn is_plugin(folder: &Path) -> bool {
    folder.join("Cargo.lock").is_file()
}

fn edgectl() -> Outcome<Command> {
    let mut edgectl = cargo::command(binary("edgectl")?);
    edgectl.args(["fn", "build"]).stdout(Stdio::null());
    Ok(edgectl)
}

/// Where a package goes. A function's folder has its name.
fn package(folder: &Path, language: Option<&str>) -> Outcome<PathBuf> {
    let name = folder.file_name().unwrap_or_default().display();
    let file = language.map_or_else(|| format!("{name}.wasm"), |language| format!("{name}-{language}.wasm"));
    Ok(made("functions")?.join(file))
}

/// A folder of the target directory, there.
fn made(name: &str) -> Outcome<PathBuf> {
    let folder = target_dir()?.join(name);
    let cannot = |error: std::io::Error| Failure::because(format!("cannot make {}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(cannot)?;
    Ok(folder)
}

fn folders() -> Outcome<Vec<PathBuf>> {
    let examples = workspace().join("function-examples");
    let cannot = |error: std::io::Error| Failure::because(format!("cannot read {}: {error}", examples.display()));
    let entries = std::fs::read_dir(&examples).map_err(cannot)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(cannot)?;
    let mut folders: Vec<PathBuf> = paths.into_iter().filter(|path| path.join(MANIFEST).is_file()).collect();
    folders.sort();
    Ok(folders)
}
