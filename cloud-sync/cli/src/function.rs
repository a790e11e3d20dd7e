//! The commands of function authors.

mod bench;
mod dev;
mod inspect;
mod new;
mod run;
mod snapshot;
mod test;

use std::path::PathBuf;

use function_package::Package;

use crate::args::FunctionCommand;
use crate::compile;
use crate::failure::Failure;
use crate::local::{Fixture, Kind};
use crate::out::{Out, Paint};
use crate::source::Source;

/// The folder of a function's fixtures, within its own.
const FIXTURES: &str = "fixtures";

/// Does what the command line says.
pub(crate) async fn run(out: &Out, command: FunctionCommand) -> Result<(), Failure> {
    match command {
        FunctionCommand::New(new) => new::new(out, &new),
        FunctionCommand::Build(build) => compile::build(out, &build),
        FunctionCommand::Test(test) => test::test(out, &test),
        FunctionCommand::Run(run) => run::run(out, &run).await,
        FunctionCommand::Inspect(inspect) => inspect::inspect(out, &inspect),
        FunctionCommand::Bench(bench) => bench::bench(out, &bench),
        FunctionCommand::Dev(dev) => dev::dev(out, &dev).await,
    }
}

/// The fixtures of a function, where somebody said so or in its own folder; at least one.
fn fixtures(
    source: &Source,
    package: &Package,
    said: Option<&PathBuf>,
    option: &'static str,
) -> Result<Vec<PathBuf>, Failure> {
    let folder = match (said, source.folder()) {
        (Some(folder), _) => folder.clone(),
        // Shown to people, for whom "./" says nothing.
        (None, Some(folder)) => folder.strip_prefix(".").unwrap_or(folder).join(FIXTURES),
        (None, None) => return Err(Failure::WhichEvents { path: source.path().to_owned(), option }),
    };
    let found = Fixture::find(&folder)?;
    if found.is_empty() {
        return Err(Failure::NoEvents { function: package.manifest().name.clone(), folder });
    }
    Ok(found)
}

/// In which colour a line of effects is shown.
fn paint(kind: Kind) -> Paint {
    match kind {
        Kind::Emit | Kind::Publish => Paint::Good,
        Kind::State | Kind::Metric => Paint::Dim,
        Kind::Log | Kind::Note => Paint::Warn,
        Kind::Trap => Paint::Bad,
    }
}
