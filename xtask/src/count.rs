//! Counts the instructions of an event's way, and fails if there are more than there were.
//!
//! Counted are those of `tests/event-cost`, by callgrind, with two numbers of events; the difference is what the events
//! took. Unlike times these numbers are the same on every machine and in every run, but for a thousandth.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::cargo::{self, cannot_start, cargo, run as run_program, target_dir, workspace};
use crate::report::{Failure, Outcome, say};
use crate::setup;

/// What an event may take, part by part.
const BUDGET: &str = "tests/event-cost/budget.txt";

/// Events of the two runs. Whole groups of commits.
const EVENTS: (u64, u64) = (128, 640);

/// By how much a part may exceed its budget, in hundredths.
const TOLERANCE: u64 = 10;

/// The function whose events are counted.
const FUNCTION: &str = "functions/unit-conversion.wasm";

/// Counts all parts. Where there is no valgrind, says so.
pub(crate) fn count() -> Outcome {
    if !setup::is_on_path("valgrind") {
        return setup::lacking("valgrind is not installed", "The instructions of an event are not counted");
    }
    run_program(cargo().args(["build", "--release", "--locked", "--package", "event-cost"]))?;
    let file = workspace().join(BUDGET);
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::because(format!("cannot read {}: {error}", file.display())))?;
    let mut exceeded = Vec::new();
    for (part, budget) in budget(&text)? {
        let counted = (instructions(&part, EVENTS.1)? - instructions(&part, EVENTS.0)?) / (EVENTS.1 - EVENTS.0);
        let change = counted as f64 / budget as f64 * 100.0 - 100.0;
        say(format_args!("    {part:<8} {counted:>9} instructions an event, budget {budget} ({change:+.1} %)"));
        match judge(counted, budget) {
            Judged::Within => {}
            Judged::Below => {
                say(format_args!("    {part} takes much less now: lower its budget in {BUDGET} to {counted}"))
            }
            Judged::Exceeded => {
                exceeded.push(format!("{part} takes {counted} instructions an event in place of {budget}"))
            }
        }
    }
    if exceeded.is_empty() {
        return Ok(());
    }
    Err(Failure::because(format!(
        "{}. What they are spent on: valgrind --tool=callgrind {} PART {} {}, then callgrind_annotate. If it has to be, \
         raise the budget in {BUDGET} in the same commit, and say why",
        exceeded.join("; "),
        program()?.display(),
        EVENTS.1,
        target_dir()?.join(FUNCTION).display(),
    )))
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Within,
    Below,
    Exceeded,
}

fn judge(counted: u64, budget: u64) -> Judged {
    if counted * 100 > budget * (100 + TOLERANCE) {
        Judged::Exceeded
    } else if counted * (100 + TOLERANCE) < budget * 100 {
        Judged::Below
    } else {
        Judged::Within
    }
}

/// Lines of a part and a number; those that begin with # are for people.
fn budget(text: &str) -> Outcome<BTreeMap<String, u64>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (part, number) = line.split_once(' ').unwrap_or((line, ""));
            match number.trim().parse() {
                Ok(number) if number > 0 => Ok((part.to_owned(), number)),
                _ => Err(Failure::because(format!("{BUDGET}: {line:?} is no part and a number above 0"))),
            }
        })
        .collect()
}

fn program() -> Outcome<PathBuf> {
    Ok(target_dir()?.join("release/event-cost"))
}

/// What a whole run takes.
fn instructions(part: &str, events: u64) -> Outcome<u64> {
    let mut valgrind = cargo::command("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program()?);
    valgrind.args([part, &events.to_string()]).arg(Path::new(&target_dir()?).join(FUNCTION));
    // Which memset and memcpy glibc takes depends on the processor; without these it is the same for all.
    valgrind.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM");
    let output = valgrind.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| cannot_start(valgrind.get_program(), &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = said.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    match counted {
        Some(counted) if output.status.success() => Ok(counted),
        _ => Err(Failure::because(format!("valgrind could not count the part {part}: {}", said.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_too_much_and_a_tenth_less_is_worth_a_word() {
        assert_eq!([1_100, 1_101].map(|counted| judge(counted, 1_000)), [Judged::Within, Judged::Exceeded]);
        assert_eq!([910, 909].map(|counted| judge(counted, 1_000)), [Judged::Within, Judged::Below]);
    }

    #[test]
    fn the_budget_is_lines_of_a_part_and_a_number() {
        let read = budget("# why\n\nroute 12\nrun  345\n").unwrap();
        assert_eq!(read, BTreeMap::from([("route".to_owned(), 12), ("run".to_owned(), 345)]));
        assert!(budget("route").is_err() && budget("route 0").is_err() && budget("route many").is_err());
    }

    #[test]
    fn the_budget_in_the_repository_names_every_part() {
        let read = budget(include_str!("../../tests/event-cost/budget.txt")).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["commit", "route", "run", "whole"]);
    }
}
