//! `edgectl replay`: makes the runs of a recording again, and says what differs: from the recording, or between two
//! versions.

mod show;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use agent_functions::record::file::Frames;
use agent_functions::record::{Different, Frame, NotRecorded, Played, Player, Recorded, RecordedRun, RunResult};
use agent_functions::{Engine, Function, Secrets, Spec};
use function_package::{Digest, Package};

use crate::args::Replay;
use crate::failure::Failure;
use crate::files;
use crate::out::{Out, note, plain};

/// Traps whose backtrace is made; each costs another run.
const BACKTRACES: usize = 20;

/// A version that runs are made again with.
struct Version {
    engine: Engine,
    package: Package,
    player: Player,
    // With the configuration of the runs at hand.
    function: Option<Function>,
    fuel: Vec<u64>,
}

/// The runs that all others are compared with.
enum Baseline {
    /// As they were recorded.
    Recording(Player, Vec<u64>),
    /// As another version makes them.
    Version(Box<Version>),
}

/// How many runs ended how.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    runs: u64,
    same: u64,
    differ: u64,
    not_recorded: u64,
    /// Runs that are missing in the recording, as far as it says.
    missing: u64,
}

/// A run that is worth showing.
struct Event<'a> {
    number: usize,
    run: &'a RecordedRun,
    before: &'a Result<Played, NotRecorded>,
    after: &'a Result<Played, NotRecorded>,
    different: Different,
}

/// Does what the command line says.
pub(crate) fn replay(out: &Out, wanted: &Replay) -> Result<(), Failure> {
    let path = &wanted.recording;
    let wrong = |why: String| Failure::Recording { path: path.clone(), why };
    let file = File::open(path).map_err(Failure::file("cannot read the recording in", path))?;
    let mut frames = Frames::new(BufReader::new(file)).map_err(|damage| wrong(damage.to_string()))?;
    let first = frames.next();
    let Some(Ok(Frame::Version(recorded))) = first else {
        return Err(wrong(match first {
            Some(Err(damage)) => damage.to_string(),
            _ => "it has no runs".to_owned(),
        }));
    };
    let secrets = Secrets::new(wanted.secrets.iter().cloned().collect());
    let mut with = Version::open(&wanted.with, &secrets)?;
    let mut baseline = match &wanted.against {
        Some(other) => Baseline::Version(Box::new(std::mem::replace(&mut with, Version::open(other, &secrets)?))),
        None => Baseline::Recording(Player::default(), Vec::new()),
    };
    let mut counts = Counts::default();
    let mut current = recorded;
    let mut ended = None;
    prepare(&current, &mut baseline, &mut with, wanted.limit_fuel)?;
    show::head(out, &current, &baseline, &with)?;
    for frame in frames {
        match frame {
            Ok(Frame::Version(recorded)) => {
                current = recorded;
                prepare(&current, &mut baseline, &mut with, wanted.limit_fuel)?;
            }
            Ok(Frame::Run(run)) => {
                // Of the recorded version everything must be the same; of another one the work it takes is its own.
                let exact = matches!(baseline, Baseline::Recording(..))
                    && with.package.digest() == Digest::from_bytes(current.digest)
                    && wanted.limit_fuel.is_none();
                one(out, &run, &mut baseline, &mut with, exact, &mut counts)?;
            }
            Ok(Frame::Gap { runs, why }) => {
                counts.missing += runs;
                baseline.player().gap();
                with.player.gap();
                show::gap(out, runs, &why)?;
            }
            Ok(Frame::End { why }) => ended = Some(why),
            Err(damage) => note(&plain(&format!("edgectl: {}: {damage}", path.display()))),
        }
    }
    show::end(out, &baseline, &with, counts, ended.as_deref())?;
    if counts.runs == 0 {
        return Err(wrong("it has no runs".to_owned()));
    }
    match counts.differ + counts.not_recorded {
        0 => Ok(()),
        _ => Err(Failure::Replayed { differ: counts.differ, not_recorded: counts.not_recorded, runs: counts.runs }),
    }
}

/// Makes one run again, and shows it if there is something to see.
fn one(
    out: &Out,
    run: &RecordedRun,
    baseline: &mut Baseline,
    with: &mut Version,
    exact: bool,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let before = match baseline {
        Baseline::Recording(player, fuel) => {
            player.follow(run);
            fuel.push(run.result.fuel);
            Ok(Played { result: run.result.clone(), backtrace: Vec::new() })
        }
        Baseline::Version(version) => version.play(run),
    };
    let after = with.play(run);
    counts.runs += 1;
    let different = match (&before, &after) {
        (Ok(before), Ok(after)) => {
            let Different { ended, logs, fuel, memory } = after.result.differs(&before.result);
            Different { ended, logs, fuel: fuel && exact, memory: memory && exact }
        }
        _ => Different::default(),
    };
    let not_recorded = before.is_err() || after.is_err();
    match (not_recorded, different.any()) {
        (true, _) => counts.not_recorded += 1,
        (false, true) => counts.differ += 1,
        (false, false) => counts.same += 1,
    }
    let trapped = after.as_ref().is_ok_and(|played| !played.backtrace.is_empty());
    if not_recorded || different.any() || trapped {
        let number = usize::try_from(counts.runs).unwrap_or(usize::MAX);
        show::event(out, &Event { number, run, before: &before, after: &after, different })?;
    }
    Ok(())
}

/// Loads the versions with the configuration of the runs that follow.
fn prepare(
    recorded: &Recorded,
    baseline: &mut Baseline,
    with: &mut Version,
    limit_fuel: Option<u64>,
) -> Result<(), Failure> {
    if let Baseline::Version(version) = baseline {
        version.load(recorded, limit_fuel)?;
    }
    with.load(recorded, limit_fuel)
}

impl Baseline {
    fn player(&mut self) -> &mut Player {
        match self {
            Self::Recording(player, _) => player,
            Self::Version(version) => &mut version.player,
        }
    }
}

impl Version {
    fn open(path: &Path, secrets: &Secrets) -> Result<Self, Failure> {
        let package = files::open(path)?;
        let engine = Engine::with_secrets(secrets.clone());
        Ok(Self { engine, package, player: Player::new(BACKTRACES), function: None, fuel: Vec::new() })
    }

    fn load(&mut self, recorded: &Recorded, limit_fuel: Option<u64>) -> Result<(), Failure> {
        let manifest = self.package.manifest();
        if manifest.name != recorded.name {
            return Err(Failure::OtherFunction { found: manifest.name.clone(), recorded: recorded.name.clone() });
        }
        // What another version has no setting for, a deployment of it would not set.
        let set = recorded.config.iter().filter(|(key, _)| manifest.config.contains_key(*key));
        let config: BTreeMap<String, String> = set.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut spec = Spec::of(manifest, &config).map_err(Failure::Spec)?;
        spec.limits.fuel = limit_fuel.unwrap_or(spec.limits.fuel);
        self.function = Some(self.engine.load(spec, self.package.bytes()).map_err(Failure::Load)?);
        Ok(())
    }

    fn play(&mut self, run: &RecordedRun) -> Result<Played, NotRecorded> {
        let function = self.function.as_ref().expect("it is loaded before the first run, or the command has failed");
        let played = self.player.play(function, run)?;
        self.fuel.push(played.result.fuel);
        Ok(played)
    }

    fn result(played: &Result<Played, NotRecorded>) -> Result<&RunResult, &NotRecorded> {
        played.as_ref().map(|played| &played.result)
    }
}
