//! What a fixture makes, as a text that a person reads, approves and commits.

use std::fmt::Write as _;

use function_package::Package;
use similar::TextDiff;

use crate::args::Over;
use crate::failure::Failure;
use crate::local::{self, Fixture, Local};

/// From so many on, events without effects share a line: a hundred of them say no more than their number.
const QUIET: usize = 3;

/// Runs a fixture from an empty state; answers with its snapshot.
pub(super) fn take(package: &Package, fixture: &Fixture, over: &Over) -> Result<String, Failure> {
    let mut local = Local::load(package, fixture.setting(over), fixture.seed)?;
    let mut text = format!(
        "# What each event of {}.events.jsonl makes. `edgectl fn test --approve` writes this; read it before you commit it.\n",
        fixture.name
    );
    if !fixture.hide.is_empty() {
        let left_out: Vec<&str> = fixture.hide.iter().map(|hide| hide.name()).collect();
        let _ = writeln!(text, "# Left out: {}.", left_out.join(", "));
    }
    let mut quiet: Vec<String> = Vec::new();
    for (index, event) in fixture.events.iter().enumerate() {
        let ran = local.run(event);
        let title = local::title(index + 1, event);
        let lines = local::lines(&ran, &fixture.hide);
        if lines.is_empty() {
            quiet.push(title);
            continue;
        }
        hush(&mut text, &mut quiet, index);
        let _ = writeln!(text, "\n{title}");
        for line in lines {
            let _ = writeln!(text, "    {}", line.text);
        }
    }
    hush(&mut text, &mut quiet, fixture.events.len());
    Ok(text)
}

/// Writes the events without effects that came before the event `next`, counted from 0.
fn hush(text: &mut String, quiet: &mut Vec<String>, next: usize) {
    if quiet.len() < QUIET {
        for title in quiet.drain(..) {
            let _ = writeln!(text, "\n{title}\n    nothing");
        }
        return;
    }
    let _ = writeln!(text, "\n{} to {next}\n    nothing", next + 1 - quiet.len());
    quiet.clear();
}

/// What has changed, as `diff -u` writes it; empty if nothing has.
pub(super) fn differences(approved: &str, now: &str, file: &str) -> String {
    if approved == now {
        return String::new();
    }
    TextDiff::from_lines(approved, now).unified_diff().context_radius(3).header(file, "what it makes now").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_quiet_events_share_a_line() {
        let said = |count: usize| {
            let mut text = String::new();
            hush(&mut text, &mut (1..=count).map(|number| format!("{number}  a/b")).collect(), count);
            text
        };
        assert_eq!(said(0), "");
        assert_eq!(said(2), "\n1  a/b\n    nothing\n\n2  a/b\n    nothing\n");
        assert_eq!(said(7), "\n1 to 7\n    nothing\n");
    }

    #[test]
    fn a_difference_shows_both_sides() {
        assert_eq!(differences("a\nb\n", "a\nb\n", "f"), "");
        let diff = differences("a\nb\n", "a\nc\n", "f.snap");
        assert_eq!(diff, "--- f.snap\n+++ what it makes now\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
    }
}
