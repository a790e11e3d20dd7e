//! The languages besides Rust that functions are written in: what compiles them, and how.
//!
//! Compilers that Debian has are installed like any other of its packages. The others are packages of PyPI and npm, of one
//! version, in a folder of the target directory: nothing else on the machine changes, and `cargo clean` takes them away.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cargo::{self, run as run_program, target_dir, works, workspace};
use crate::report::{Failure, Outcome, say};
use crate::setup;

/// The stack that modules are linked with, in bytes: as Rust functions are, see `function_package::STACK_BYTES`.
const STACK_BYTES: &str = "16384";

const ZIG: &str = "0.17.1";
const ASSEMBLYSCRIPT: &str = "0.28.20";
/// What AssemblyScript depends on without naming one version; binaryen it names.
const LONG: &str = "5.3.2";

/// A language that a function's folder may have a source file of.
pub(crate) struct Language {
    /// Its name, as part of a file's name.
    pub(crate) name: &'static str,
    /// The file in a function's folder that is compiled.
    pub(crate) source: &'static str,
    /// The command that installs its compiler by hand.
    by_hand: fn() -> Outcome<String>,
    /// Installs the compiler, if it can; what went wrong has been said.
    install: fn() -> Outcome,
    /// The compiler, with all that every module is compiled with; `None`: it is not there.
    compiler: fn() -> Outcome<Option<Command>>,
    /// What names the source file and the module.
    files: fn(&mut Command, &Path, &Path),
}

pub(crate) const LANGUAGES: [Language; 3] = [
    Language {
        name: "c",
        source: "function.c",
        by_hand: || Ok("apt-get install clang lld (Debian; as root)".to_owned()),
        install: || {
            setup::install_packages(&[("clang", "clang"), ("lld", "wasm-ld")]);
            Ok(())
        },
        compiler: c,
        files: |clang, source, module| {
            clang.arg(source).arg("-o").arg(module);
        },
    },
    Language {
        name: "zig",
        source: "function.zig",
        by_hand: || Ok(line(&pip()?)),
        install: || fetch(pip()?, &toolchain("ziglang", ZIG)?),
        compiler: zig,
        files: |zig, source, module| {
            let module_of = |name: &str, path: &Path| format!("-M{name}={}", path.display());
            zig.args(["--dep", "edge", &module_of("root", source)]);
            zig.arg(module_of("edge", &workspace().join("function-sdk/zig/edge.zig")));
            zig.arg(format!("-femit-bin={}", module.display()));
        },
    },
    Language {
        name: "assemblyscript",
        source: "function.ts",
        by_hand: || Ok(line(&npm()?)),
        install: || fetch(npm()?, &toolchain("assemblyscript", ASSEMBLYSCRIPT)?),
        compiler: assemblyscript,
        files: |asc, source, module| {
            asc.arg(source.strip_prefix(workspace()).unwrap_or(source)).arg("--outFile").arg(module);
        },
    },
];

/// Installs the compilers that this machine lacks.
pub(crate) fn install() -> Outcome {
    for language in &LANGUAGES {
        if (language.compiler)()?.is_none() {
            (language.install)()?;
        }
        if (language.compiler)()?.is_none() {
            let (name, by_hand) = (language.name, (language.by_hand)()?);
            let lacking = format!("the compiler for {name} could not be installed; to do it by hand: {by_hand}");
            setup::lacking(&lacking, "Functions in it are not built, and their tests are skipped")?;
        }
    }
    Ok(())
}

impl Language {
    /// Compiles a function's folder to a module in the folder `out`; `None` where the compiler is not installed.
    pub(crate) fn compile(&self, folder: &Path, out: &Path) -> Outcome<Option<PathBuf>> {
        let Some(mut compiler) = (self.compiler)()? else { return Ok(None) };
        let name = folder.file_name().unwrap_or_default().display();
        let module = out.join(format!("{name}-{}.wasm", self.name));
        (self.files)(&mut compiler, &folder.join(self.source), &module);
        run_program(&mut compiler)?;
        Ok(Some(module))
    }
}

// ---- C: clang and lld, Debian's or any other that know WebAssembly. ----

fn c() -> Outcome<Option<Command>> {
    if !setup::is_on_path("clang") || !setup::is_on_path("wasm-ld") {
        return Ok(None);
    }
    let mut clang = cargo::command("clang");
    clang.args(["--target=wasm32", "-std=c11", "-Os", "-ffreestanding", "-mbulk-memory", "-nostdlib"]);
    clang.args(["-Wall", "-Wextra", "-Werror", "-I", "function-sdk/c"]);
    clang.args(["-Wl,--no-entry", "-Wl,--strip-all", &format!("-Wl,-zstack-size={STACK_BYTES}")]);
    Ok(Some(clang))
}

// ---- Zig: a wheel of PyPI that holds the compiler. ----

/// The compiler, if it is there; it compiles C, too.
pub(crate) fn zig_program() -> Outcome<Option<PathBuf>> {
    let program = toolchain("ziglang", ZIG)?.join("ziglang/zig");
    Ok(program.is_file().then_some(program))
}

fn zig() -> Outcome<Option<Command>> {
    let Some(program) = zig_program()? else { return Ok(None) };
    let mut zig = cargo::command(program);
    let cache = target_dir()?.join("toolchains/zig-cache");
    zig.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
    // Safe: what goes wrong ends with a message instead of a wrong record, for 6 KB more.
    zig.args([
        "build-exe",
        "-target",
        "wasm32-freestanding",
        "-O",
        "ReleaseSafe",
        "-fstrip",
        "-fno-entry",
        "-rdynamic",
    ]);
    zig.args(["--stack", STACK_BYTES]);
    Ok(Some(zig))
}

fn pip() -> Outcome<Command> {
    let mut pip = cargo::command("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    pip.arg("--target").arg(toolchain("ziglang", ZIG)?).arg(format!("ziglang=={ZIG}"));
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    Ok(pip)
}

// ---- AssemblyScript: packages of npm, which need no installation script. ----

fn assemblyscript() -> Outcome<Option<Command>> {
    let program = toolchain("assemblyscript", ASSEMBLYSCRIPT)?.join("node_modules/assemblyscript/bin/asc.js");
    if !program.is_file() || !works(Command::new("node").arg("--version")) {
        return Ok(None);
    }
    let mut asc = cargo::command("node");
    asc.arg(program).args(["--optimizeLevel", "3", "--shrinkLevel", "2", "--runtime", "stub"]);
    asc.args(["--use", "abort=function-sdk/assemblyscript/edge/onAbort"]);
    Ok(Some(asc))
}

fn npm() -> Outcome<Command> {
    let mut npm = cargo::command("npm");
    npm.args(["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]);
    npm.arg("--prefix").arg(toolchain("assemblyscript", ASSEMBLYSCRIPT)?);
    npm.args([format!("assemblyscript@{ASSEMBLYSCRIPT}"), format!("long@{LONG}")]);
    Ok(npm)
}

/// Where a compiler lies that is not Debian's.
fn toolchain(name: &str, version: &str) -> Outcome<PathBuf> {
    Ok(target_dir()?.join("toolchains").join(format!("{name}-{version}")))
}

/// Lets a package manager fill a folder. What it says, it says itself; whether it worked shows in whether the compiler is
/// there.
fn fetch(mut manager: Command, folder: &Path) -> Outcome {
    if !works(Command::new(manager.get_program()).arg("--version")) {
        say(format_args!("there is no {} on this machine", manager.get_program().display()));
        return Ok(());
    }
    let cannot = |error: std::io::Error| Failure::because(format!("cannot make {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(cannot)?;
    say(format_args!("installing into {}", folder.display()));
    let _ = run_program(manager.stdout(Stdio::null()));
    Ok(())
}

/// A command as a person types it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
