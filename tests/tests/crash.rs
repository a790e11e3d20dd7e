//! Short versions of `cargo xtask crash` and `cargo xtask power-cut`: under kills at every edge, and under power cuts, what
//! devices were told is acknowledged reaches the cloud, once.

use std::io::Write as _;

use system_tests::Report;
use system_tests::crash::{cannot_cut_power, cannot_trace, crash, draw, power_cut};

/// The same each time: a failure here is to be met again. Other seeds are for the long versions.
const SEED: u64 = 3;

fn note(line: &str) {
    // The test's own output; there is nobody left to tell if it fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn assert_clean(report: &Report) {
    assert!(report.is_clean(), "{report}");
    // It judged something.
    assert!(report.acknowledged > 1_000 && report.resent > 0, "{report}");
}

#[test]
fn thirty_kills_lose_and_double_nothing() {
    let untraced = cannot_trace();
    if let Some(reason) = &untraced {
        note(&format!("skipped: kills at system calls, since strace cannot trace here ({reason})"));
    }
    let report = crash(SEED, &draw(SEED, 30, untraced.is_none()), note).unwrap();
    assert_clean(&report);
    // A busy machine may be late for an edge; it is not for most.
    assert!(report.not_reached <= 5, "{report}");
}

#[test]
fn thirty_power_cuts_lose_and_double_nothing() {
    if let Some(reason) = cannot_cut_power() {
        note(&format!("skipped: the power cannot be cut here; it takes root, loop devices and ext4 ({reason})"));
        return;
    }
    assert_clean(&power_cut(SEED, 30, note).unwrap());
}
