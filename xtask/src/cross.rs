//! The agent for a small gateway's processor, built here.
//!
//! Its C parts (SQLite, zstd, ring) are compiled by Zig, which brings the headers of musl; Rust's own linker does the rest.

use std::path::PathBuf;

use crate::cargo::{cargo, run as run_program, target_dir};
use crate::report::{Failure, Outcome, say};
use crate::{languages, setup};

/// In the names of Rust, and in those of Zig.
const TARGET: (&str, &str) = ("aarch64-unknown-linux-musl", "aarch64-linux-musl");

/// Builds it; without what that takes it is left out, with a word.
pub(crate) fn build() -> Outcome {
    languages::install()?;
    let Some(zig) = languages::zig_program()? else {
        say("the agent is not built for another processor: there is no Zig to compile its C parts");
        return Ok(());
    };
    if setup::target(TARGET.0).is_err() {
        say(format_args!("the agent is not built for another processor: Rust's {} is missing", TARGET.0));
        return Ok(());
    }
    setup::install_packages(&[("qemu-user-static", "qemu-aarch64-static")]);
    let script = |name: &str, arguments: &str| -> Outcome<PathBuf> {
        let file = target_dir()?.join("toolchains").join(format!("{name}-{}", TARGET.1));
        let text = format!("#!/bin/sh\nexec '{}' {arguments} \"$@\"\n", zig.display());
        let cannot = |error: std::io::Error| Failure::because(format!("cannot write {}: {error}", file.display()));
        std::fs::write(&file, text).map_err(cannot)?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).map_err(cannot)?;
        Ok(file)
    };
    let name = TARGET.0.replace('-', "_");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "edge-agent", "--bins", "--target", TARGET.0]);
    build.env(format!("CC_{name}"), script("cc", &format!("cc -target {}", TARGET.1))?);
    build.env(format!("AR_{name}"), script("ar", "ar")?);
    // cc would name the target once more, in Rust's words, which Zig does not know.
    build.env("CRATE_CC_NO_DEFAULTS", "1");
    build.env(format!("CFLAGS_{name}"), "-O2 -fPIC -ffunction-sections -fdata-sections");
    build.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), "rust-lld");
    run_program(&mut build)
}
