//! Where the built things are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A binary of the workspace, beside the one that runs.
///
/// # Errors
/// It has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    built(folder()?.join(name))
}

/// A function of `function-examples`, packed.
///
/// # Errors
/// It has not been built.
pub fn function(name: &str) -> Result<PathBuf> {
    built(target()?.join("functions").join(format!("{name}.wasm")))
}

/// The module of a function in Rust, as it was before it was packed.
///
/// # Errors
/// It has not been built.
pub fn module(name: &str) -> Result<PathBuf> {
    built(target()?.join("wasm32-unknown-unknown/release").join(format!("{}.wasm", name.replace('-', "_"))))
}

// The folder that all that cargo builds is in.
fn target() -> Result<PathBuf> {
    let folder = folder()?;
    Ok(folder.parent().unwrap_or(&folder).to_owned())
}

fn built(path: PathBuf) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is missing; `cargo xtask test` builds it, and `cargo xtask demo` too", path.display());
    }
    Ok(path)
}

// Cargo puts binaries into a folder, tests into `deps` in it, and examples into `examples`.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the folder of the binaries")?;
    let folder = program.parent().context("the program lies in no folder")?;
    let folder = if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(Path::to_owned(folder))
}
