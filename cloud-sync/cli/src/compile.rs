//! Makes packages: compiles a Rust crate to Wasm, or takes a module that is there, and puts the manifest in.

mod names;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use function_package::{Manifest, Package, STACK_BYTES};

use crate::args::Build;
use crate::failure::Failure;
use crate::files::{Built, read_text};
use crate::out::{self, Out};

const TARGET: &str = "wasm32-unknown-unknown";

/// What any crate's release profile is set to: small first, for functions are fetched over metered links. Given here,
/// so that a function needs no profile of its own in its workspace.
const PROFILE: [&str; 6] = [
    "profile.release.opt-level=\"s\"",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic=\"abort\"",
    "profile.release.debug=false",
    // Names of functions stay; `names` makes them short.
    "profile.release.strip=\"debuginfo\"",
];

/// Builds what the command line says.
pub(crate) fn build(out: &Out, build: &Build) -> Result<(), Failure> {
    let package = match (&build.wasm, &build.manifest, &build.dir) {
        (Some(wasm), Some(manifest), _) => pack(wasm, &read_manifest(manifest)?)?,
        (_, _, dir) => {
            let how = Building { install_target: build.install_target, quiet: false };
            folder(dir.as_deref().unwrap_or(Path::new(".")), how)?
        }
    };
    let path = build.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.wasm", package.manifest().name)));
    fs::write(&path, package.bytes()).map_err(Failure::file("cannot write", &path))?;
    let built = Built::new(&package, &path);
    out.value(&built, || built.text())
}

/// How a folder is built.
#[derive(Clone, Copy)]
pub(crate) struct Building {
    /// Installs the Wasm target if it is missing.
    pub(crate) install_target: bool,
    /// Says nothing but what is wrong.
    pub(crate) quiet: bool,
}

/// Builds the function in a folder.
pub(crate) fn folder(dir: &Path, how: Building) -> Result<Package, Failure> {
    // Checked before minutes are spent on compiling.
    let text = read_manifest(&dir.join("function.toml"))?;
    let dir = dir.canonicalize().map_err(Failure::file("cannot enter", dir))?;
    // Cargo would look for one further up, and might find another crate.
    if !dir.join("Cargo.toml").is_file() {
        return Err(Failure::NoCrate(dir));
    }
    find_target(&dir, how.install_target)?;
    pack(&compile(&dir, how.quiet)?, &text)
}

/// The text of a manifest without mistakes.
fn read_manifest(path: &Path) -> Result<String, Failure> {
    let text = read_text("cannot read the manifest", path)?;
    Manifest::parse(&path.display().to_string(), &text).map_err(Failure::Manifest)?;
    Ok(text)
}

fn pack(wasm: &Path, manifest: &str) -> Result<Package, Failure> {
    let module = fs::read(wasm).map_err(Failure::file("cannot read the module in", wasm))?;
    Package::pack(&names::shorten(module), manifest)
        .map_err(|source| Failure::Package { path: wasm.to_owned(), source })
}

pub(crate) fn program(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| name.to_owned())
}

/// Makes sure that there is a standard library for Wasm, of the toolchain that the directory asks for.
fn find_target(dir: &Path, install: bool) -> Result<(), Failure> {
    let rustc = program("RUSTC", "rustc");
    let asked = Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]).current_dir(dir).output();
    let asked = asked.map_err(|source| Failure::Program { program: rustc, source })?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    if asked.status.success() && libraries.is_dir() {
        return Ok(());
    }
    if !install {
        return Err(Failure::NoWasmTarget);
    }
    let installed = Command::new("rustup").args(["target", "add", TARGET]).current_dir(dir).status();
    let status = installed.map_err(|source| Failure::Program { program: "rustup".to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(Failure::InstallTarget(status)) }
}

/// Compiles the crate in `dir`; answers with the path of the module.
///
/// `cargo rustc` hands the stack's size to the last step only: whatever flags the user or his configuration has set stay
/// as they are, and a library need not say in its manifest that it is a `cdylib`.
fn compile(dir: &Path, quiet: bool) -> Result<PathBuf, Failure> {
    let cargo = program("CARGO", "cargo");
    let mut command = Command::new(&cargo);
    command.args(["rustc", "--lib", "--crate-type", "cdylib", "--release", "--target", TARGET]);
    command.arg("--message-format=json-render-diagnostics");
    if quiet {
        command.arg("--quiet");
    }
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    command.args(["--", "-C", &format!("link-arg=-zstack-size={STACK_BYTES}")]);
    // In the crate's directory, so that its toolchain and configuration are used; a relative target directory was
    // meant from here.
    command.current_dir(dir).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(target_dir) = std::env::var_os("CARGO_TARGET_DIR") {
        command.env("CARGO_TARGET_DIR", std::path::absolute(&target_dir).unwrap_or_else(|_| target_dir.into()));
    }
    let done = command.output().map_err(|source| Failure::Program { program: cargo, source })?;
    if !done.status.success() {
        return Err(Failure::Compile { dir: dir.to_owned(), status: done.status });
    }
    let module = String::from_utf8_lossy(&done.stdout).lines().filter_map(|line| module(line, dir)).next_back();
    module.ok_or_else(|| Failure::NoModule(dir.to_owned()))
}

/// The module that a message of cargo speaks of, if it is this crate's.
fn module(message: &str, dir: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message)
        .inspect_err(|error| out::note(&format!("edgectl: passing over what is no message of cargo: {error}")))
        .ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    if manifest.parent()?.canonicalize().ok()? != dir {
        return None;
    }
    message["filenames"]
        .as_array()?
        .iter()
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_crate_s_module_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let message = |reason: &str, manifest: &Path, file: &str| {
            serde_json::json!({"reason": reason, "manifest_path": manifest.join("Cargo.toml"), "filenames": [file]})
                .to_string()
        };
        let found = |message: &str| module(message, &dir);
        assert_eq!(found(&message("compiler-artifact", &dir, "/t/a.wasm")), Some("/t/a.wasm".into()));
        assert_eq!(found(&message("compiler-artifact", &dir, "/t/a.rlib")), None);
        assert_eq!(found(&message("compiler-artifact", Path::new("/"), "/t/a.wasm")), None);
        assert_eq!(found(&message("build-finished", &dir, "/t/a.wasm")), None);
        assert_eq!(found("hello"), None);
    }
}
