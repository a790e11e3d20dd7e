//! What a replay finds, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_functions::record::{Ended, NotRecorded, Played, Player, Recorded, RecordedLine, RunResult};
use agent_functions::{LogLine, TrapKind};
use function_abi::LogLevel;
use function_package::Digest;
use serde::Serialize;
use similar::TextDiff;

use super::{Baseline, Counts, Event, Version};
use crate::failure::Failure;
use crate::local::{self, How, Incoming, Ran};
use crate::out::{Out, Paint, note, plain, table};

/// Keys of the state that are shown; `--json` has them all.
const KEYS: usize = 50;

/// How the baseline is called where a difference is shown.
fn before(baseline: &Baseline) -> String {
    match baseline {
        Baseline::Recording(..) => "recorded".to_owned(),
        Baseline::Version(version) => version.named(),
    }
}

impl Version {
    fn named(&self) -> String {
        let manifest = self.package.manifest();
        format!("{} {}", manifest.name, manifest.version)
    }
}

/// What is compared with what.
pub(super) fn head(out: &Out, recorded: &Recorded, baseline: &Baseline, with: &Version) -> Result<(), Failure> {
    let digest = Digest::from_bytes(recorded.digest);
    let versions = match baseline {
        Baseline::Recording(..) => vec![with],
        Baseline::Version(version) => vec![&**version, with],
    };
    for version in &versions {
        if version.package.digest() != digest {
            note(&format!(
                "{} ({}) is not the version that was recorded first, {} {} ({digest})",
                version.named(),
                version.package.digest(),
                plain(&recorded.name),
                plain(&recorded.version)
            ));
        }
    }
    if let [one, other] = versions[..]
        && one.package.manifest().partition != other.package.manifest().partition
    {
        note("the two versions divide events otherwise into partitions; both are given the state as it was recorded");
    }
    if out.json {
        return Ok(());
    }
    let (name, version) = (plain(&recorded.name), plain(&recorded.version));
    out.line(&format!(
        "recorded with {name} {version} ({digest}); {} is compared with {}",
        with.named(),
        before(baseline)
    ))
}

/// Runs are missing.
pub(super) fn gap(out: &Out, runs: u64, why: &str) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Gap<'a> {
        missing: u64,
        why: &'a str,
    }
    out.value(&Gap { missing: runs, why }, || {
        out.paint(Paint::Warn, format!("\n{runs} runs are missing here: {}; the state begins anew", plain(why)))
    })
}

#[derive(Serialize)]
struct Shown<'a> {
    event: usize,
    #[serde(flatten)]
    incoming: Incoming<'a>,
    partition: &'a str,
    /// In what it differs: `ended`, `logs`, `fuel`, `memory`.
    differs: Vec<&'static str>,
    /// What a version asked, and was not recorded.
    not_recorded: Option<String>,
    before: Option<Side<'a>>,
    after: Option<Side<'a>>,
}

#[derive(Serialize)]
struct Side<'a> {
    effects: Vec<String>,
    trap: Option<(&'a str, &'a str)>,
    backtrace: &'a [String],
    fuel: u64,
    memory_bytes: u64,
}

impl<'a> Side<'a> {
    fn of(played: &'a Result<Played, NotRecorded>) -> Option<Self> {
        let Played { result, backtrace } = played.as_ref().ok()?;
        let trap = match &result.ended {
            Ended::Trapped { kind, message } => Some((kind.as_str(), message.as_str())),
            Ended::Done(_) => None,
        };
        let (fuel, memory_bytes) = (result.fuel, result.memory_bytes);
        Some(Self { effects: lines(result), trap, backtrace, fuel, memory_bytes })
    }
}

/// A run that is worth showing.
pub(super) fn event(out: &Out, event: &Event<'_>) -> Result<(), Failure> {
    let Event { number, run, before, after, different } = event;
    let differs =
        [(different.ended, "ended"), (different.logs, "logs"), (different.fuel, "fuel"), (different.memory, "memory")];
    let differs: Vec<&str> = differs.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
    let missing = before.as_ref().err().or(after.as_ref().err()).map(ToString::to_string);
    let shown = || Shown {
        event: *number,
        incoming: Incoming::of(&run.event),
        partition: &run.partition,
        differs: differs.clone(),
        not_recorded: missing.clone(),
        before: Side::of(before),
        after: Side::of(after),
    };
    if out.json {
        return out.value(&shown(), String::new);
    }
    let mut text = format!("\n{}\n", local::title(*number, &run.event));
    let mut add = |paint, line: &str| text.push_str(&format!("    {}\n", out.paint(paint, plain(line))));
    if let Some(missing) = &missing {
        add(Paint::Warn, missing);
    }
    match (Version::result(before), Version::result(after)) {
        (Ok(before), Ok(after)) if different.ended || different.logs => {
            for line in difference(before, after) {
                let paint = match line.as_bytes().first() {
                    Some(b'+') => Paint::Good,
                    Some(b'-') => Paint::Bad,
                    _ => Paint::Plain,
                };
                add(paint, &line);
            }
        }
        (_, Ok(after)) => lines(after).iter().for_each(|line| add(Paint::Plain, line)),
        _ => {}
    }
    if let (Ok(before), Ok(after)) = (before, after) {
        let pairs = [
            (different.fuel, "fuel", before.result.fuel, after.result.fuel),
            (different.memory, "memory", before.result.memory_bytes, after.result.memory_bytes),
        ];
        for (_, what, before, after) in pairs.into_iter().filter(|(differs, ..)| *differs) {
            add(Paint::Bad, &format!("{what:<7}  {before} was recorded, and now it is {after}"));
        }
    }
    for frame in after.iter().flat_map(|after| &after.backtrace) {
        add(Paint::Dim, &format!("    at {frame}"));
    }
    out.line(text.trim_end())
}

/// All that came of a run, a thing a line, as `fn test` has it.
fn lines(result: &RunResult) -> Vec<String> {
    let effects = match &result.ended {
        Ended::Done(effects) => effects.clone(),
        Ended::Trapped { .. } => Vec::new(),
    };
    let level = |number: i32| LogLevel::from_i32(number).unwrap_or(LogLevel::Error);
    let logs = result.logs.iter().map(|line| {
        let RecordedLine { level: number, text, fields } = line.clone();
        LogLine { level: level(number), text, fields }
    });
    let ran = Ran {
        how: How::Done(effects),
        fuel: result.fuel,
        memory_bytes: usize::try_from(result.memory_bytes).unwrap_or(usize::MAX),
        took: Duration::ZERO,
        logs: logs.collect(),
        logs_dropped: result.logs_dropped,
    };
    let mut lines: Vec<String> = local::lines(&ran, &[]).into_iter().map(|line| line.text).collect();
    if let Ended::Trapped { kind, message } = &result.ended {
        // What a function says itself begins with the kind's name.
        let said = message.strip_prefix(TrapKind::Failed.name()).and_then(|said| said.strip_prefix(": "));
        lines.insert(0, format!("trap     {kind}  {}", said.unwrap_or(message)));
    }
    lines
}

/// The lines of both, with a sign in front.
fn difference(before: &RunResult, after: &RunResult) -> Vec<String> {
    let text = |result| lines(result).iter().fold(String::new(), |text, line| text + &line.replace('\n', " ") + "\n");
    let (before, after) = (text(before), text(after));
    let changes = TextDiff::from_lines(&before, &after);
    changes
        .iter_all_changes()
        .map(|change| format!("{}{}", change.tag(), change.value().trim_end_matches('\n')))
        .collect()
}

#[derive(Serialize)]
struct Report<'a> {
    runs: u64,
    same: u64,
    differ: u64,
    not_recorded: u64,
    missing: u64,
    /// Why the recording ends; `null` if it was cut.
    ended: Option<&'a str>,
    /// Where the state differs at the end.
    state: &'a [StateDifference],
    fuel_before: Fuel,
    fuel_after: Fuel,
}

#[derive(Serialize)]
struct StateDifference {
    partition: String,
    key: String,
    /// Nothing: it was not written, or deleted.
    before: Option<String>,
    after: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Fuel {
    total: u64,
    median: u64,
    p99: u64,
}

impl Fuel {
    fn of(each: &[u64]) -> Self {
        let mut each = each.to_vec();
        each.sort_unstable();
        let at = |percent: usize| each.get((each.len() * percent / 100).min(each.len().saturating_sub(1))).copied();
        let total = each.iter().fold(0_u64, |sum, one| sum.saturating_add(*one));
        Self { total, median: at(50).unwrap_or(0), p99: at(99).unwrap_or(0) }
    }
}

/// What there is to say when all runs were made.
pub(super) fn end(
    out: &Out,
    baseline: &Baseline,
    with: &Version,
    counts: Counts,
    ended: Option<&str>,
) -> Result<(), Failure> {
    let (player, fuel) = match baseline {
        Baseline::Recording(player, fuel) => (player, fuel),
        Baseline::Version(version) => (&version.player, &version.fuel),
    };
    let state = states(player, &with.player);
    let (fuel_before, fuel_after) = (Fuel::of(fuel), Fuel::of(&with.fuel));
    let Counts { runs, same, differ, not_recorded, missing } = counts;
    let report = Report { runs, same, differ, not_recorded, missing, ended, state: &state, fuel_before, fuel_after };
    out.value(&report, || {
        let mut text = String::new();
        if !state.is_empty() {
            text.push_str("\nstate at the end\n");
        }
        for StateDifference { partition, key, before, after } in state.iter().take(KEYS) {
            text.push_str(&format!("    {}  {}\n", plain(partition), plain(key)));
            for (sign, paint, value) in [('-', Paint::Bad, before), ('+', Paint::Good, after)] {
                let value = value.as_deref().unwrap_or("(nothing)");
                text.push_str(&format!("        {}\n", out.paint(paint, format!("{sign}{}", plain(value)))));
            }
        }
        if state.len() > KEYS {
            text.push_str(&format!("    and {} more\n", state.len() - KEYS));
        }
        let row =
            |name: String, fuel: Fuel| [name, fuel.total.to_string(), fuel.median.to_string(), fuel.p99.to_string()];
        let rows = [row(super::show::before(baseline), fuel_before), row(with.named(), fuel_after)];
        text.push_str(&format!("\n{}\n", table(["FUEL", "TOTAL", "MEDIAN", "P99"], rows)));
        let ended = ended.map_or("cut".to_owned(), plain);
        text.push_str(&format!("{runs} runs: {same} the same, {differ} differ, {not_recorded} not recorded"));
        let missing = if missing > 0 { format!("; {missing} are missing in the recording") } else { String::new() };
        text.push_str(&format!("{missing}; it ends: {ended}"));
        text
    })
}

/// Where what two versions left differs.
fn states(before: &Player, after: &Player) -> Vec<StateDifference> {
    let left = |player: &Player| -> BTreeMap<(String, Vec<u8>), Option<Vec<u8>>> {
        let owned = |(partition, key, value): (&str, &[u8], Option<&[u8]>)| {
            ((partition.to_owned(), key.to_vec()), value.map(<[u8]>::to_vec))
        };
        player.state().map(owned).collect()
    };
    let (before, after) = (left(before), left(after));
    let places: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let value = |of: &BTreeMap<_, Option<Vec<u8>>>, place| of.get(place).and_then(Option::as_deref).map(local::text);
    let different = places
        .into_iter()
        .filter(|place| before.get(*place).cloned().flatten() != after.get(*place).cloned().flatten());
    different
        .map(|place| StateDifference {
            partition: place.0.clone(),
            key: local::text(&place.1),
            before: value(&before, place),
            after: value(&after, place),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuel_in_three_numbers() {
        assert_eq!(Fuel::of(&[]), Fuel::default());
        assert_eq!(Fuel::of(&[7]), Fuel { total: 7, median: 7, p99: 7 });
        let each: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(Fuel::of(&each), Fuel { total: 5_050, median: 51, p99: 100 });
    }
}
