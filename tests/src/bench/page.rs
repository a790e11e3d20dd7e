//! The table: on the terminal, and in `docs/performance.md`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Settings;
use super::chart::Chart;
use super::row::{Goal, Row, Samples};

/// What stands around the part of the page that is written anew, and nothing else is.
const BEGIN: &str = "<!-- results: written by `cargo xtask bench --write-docs` -->";
const END: &str = "<!-- end of results -->";

/// A number as a person reads it: three digits that say something, and the thousands apart.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut apart = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && apart != "-" {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart + rest
}

fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

fn goal(goal: Option<Goal>) -> String {
    match goal {
        None => String::new(),
        Some(Goal::RatioAtLeast(least)) => format!("ratio ≥ {}", number(least)),
        Some(Goal::RatioAtMost(most)) => format!("ratio ≤ {}", number(most)),
        Some(Goal::AtLeast(least)) => format!("≥ {}", number(least)),
        Some(Goal::Below(most)) => format!("< {}", number(most)),
    }
}

fn met(met: Option<bool>) -> &'static str {
    match met {
        None => "",
        Some(true) => "yes",
        Some(false) => "no",
    }
}

/// A row as a line of text.
pub(super) fn line(row: &Row) -> String {
    let mut line = format!("{}: {} {}", row.name, maybe(row.value), row.unit);
    if let Some(peer) = &row.peer {
        let _ = write!(line, "; {peer} {}; ratio {}", maybe(row.peer_value), maybe(row.ratio));
    }
    if row.goal.is_some() {
        let met = row.met.map_or("not known", |met| if met { "met" } else { "MISSED" });
        let _ = write!(line, "; goal {}: {met}", goal(row.goal));
    }
    if row.value.is_none() || row.peer_value.is_none() && row.peer.is_some() {
        let _ = write!(line, " ({})", row.note);
    }
    line
}

const HEAD: [&str; 8] = ["what", "value", "unit", "beside", "its value", "ratio", "goal", "met"];

fn cells(row: &Row) -> [String; 8] {
    [
        row.name.clone(),
        maybe(row.value),
        row.unit.to_owned(),
        row.peer.clone().unwrap_or_default(),
        if row.peer.is_some() { maybe(row.peer_value) } else { String::new() },
        if row.peer.is_some() { maybe(row.ratio) } else { String::new() },
        goal(row.goal),
        met(row.met).to_owned(),
    ]
}

/// All rows, for a terminal.
pub(super) fn table(rows: &[Row]) -> String {
    let rows: Vec<[String; 8]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = format!("\n{}\n", machine());
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// What it was measured on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory = memory.and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or_default() / f64::from(1 << 20);
    let release = read("/etc/os-release");
    let system =
        release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{}, {cores} cores, {memory:.0} GiB; {system}, Linux {}; load before the end {}",
        model.unwrap_or("a processor without a name"),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}

/// Writes rows and charts into `docs/performance.md` and `docs/charts`.
pub(super) fn write(settings: &Settings, rows: &[Row], charts: &[Chart]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join("docs")).unwrap_or_default();
    let folder = docs.join("charts");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for chart in charts {
        std::fs::write(folder.join(format!("{}.svg", chart.name)), chart.svg())?;
    }
    let file: PathBuf = docs.join("performance.md");
    let page = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let page = replace(&page, &section(settings, rows, charts))
        .with_context(|| format!("{} has no two lines {BEGIN:?} and {END:?}", file.display()))?;
    std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))
}

fn replace(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{section}\n{END}{after}"))
}

fn section(settings: &Settings, rows: &[Row], charts: &[Chart]) -> String {
    let quick = if settings.quick { " --quick" } else { "" };
    let runs = settings.runs;
    let mut text = format!("`cargo xtask bench{quick} --runs {runs}` on {}.\n\n", machine());
    text.push_str("| what | value | beside | its value | ratio | ratio of each run | goal | met |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for row in rows {
        let [name, value, unit, peer, peer_value, ratio, goal, met] = cells(row);
        let each = each(&row.ratios);
        let _ =
            writeln!(text, "| {name} | {value} {unit} | {peer} | {peer_value} | {ratio} | {each} | {goal} | {met} |");
    }
    let skipped: Vec<&Row> = rows.iter().filter(|row| row.value.is_none()).collect();
    if !skipped.is_empty() {
        text.push('\n');
    }
    for row in skipped {
        let _ = writeln!(text, "- {}: {}", row.name, row.note);
    }
    for chart in charts {
        let _ = write!(text, "\n![{}](charts/{}.svg)\n", chart.title, chart.name);
    }
    text
}

// Where there are many, their spread says more.
fn each(ratios: &Samples) -> String {
    match ratios.0.len() {
        0 => String::new(),
        1..=5 => ratios.0.iter().copied().map(number).collect::<Vec<_>>().join(", "),
        many => {
            let (least, greatest) = ratios.spread();
            format!("{} to {}, {many} runs", number(least), number(greatest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        let cases = [(0.0, "0.00"), (0.256, "0.26"), (12.34, "12.3"), (999.6, "1,000"), (1_234_567.0, "1,234,567")];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
        assert_eq!((number(-1_234.0).as_str(), number(-123.0).as_str()), ("-1,234", "-123"));
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        assert_eq!(replace(&page, "new").unwrap(), format!("# Title\n{BEGIN}\n\nnew\n{END}\nrest\n"));
        assert_eq!(replace("# Title", "new"), None);
    }

    #[test]
    fn a_missed_goal_and_a_missing_peer_are_said() {
        let row = Row::new("a", Samples(vec![1.0]), "events/s").against("peer", &Samples(vec![2.0]));
        let row = row.goal(Goal::RatioAtLeast(0.6));
        assert_eq!(line(&row), "a: 1.00 events/s; peer 2.00; ratio 0.50; goal ratio ≥ 0.60: MISSED");
        let row = Row::new("a", Samples(vec![1.0]), "events/s").against("peer", &Samples::default());
        let row = row.goal(Goal::RatioAtLeast(0.6)).note("peer is not installed");
        assert!(line(&row).ends_with("goal ratio ≥ 0.60: not known (peer is not installed)"), "{}", line(&row));
    }

    #[test]
    fn the_page_has_a_place_for_the_table() {
        let page = include_str!("../../../docs/performance.md");
        assert!(replace(page, "").is_some());
    }
}
