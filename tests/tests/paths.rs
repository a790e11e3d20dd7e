//! The pages that describe the project name no path that is not there.

use std::fs;
use std::path::{Path, PathBuf};

const PAGES: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/abi.md",
    "docs/functions.md",
    "docs/guarantees.md",
    "docs/performance.md",
];

/// What has a slash in it and is no path of the project: topics, media types, and what a build makes.
const NO_PATHS: [&str; 8] =
    ["BUCKET/", "sensors/", "celsius/", "machines/", "alerts/", "application/", "target/", "fixtures/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn every_path_that_a_page_names_is_there() {
    let mut missing = Vec::new();
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        let named = paths(&text, Path::new(page).parent().unwrap());
        // A page without a single path is no map: the search would have lost its way.
        assert!(page == "CONTRIBUTING.md" || !named.is_empty(), "{page} names no path");
        missing.extend(named.into_iter().filter(|path| !root().join(path).exists()).map(|path| (page, path)));
    }
    assert!(missing.is_empty(), "paths that are not there: {missing:#?}");
}

/// What stands in backticks and has a slash, from the root; and what is linked to, from the page's folder. Not in blocks of
/// code.
fn paths(page: &str, folder: &Path) -> Vec<PathBuf> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).filter_map(path));
            found.extend(line.split("](").skip(1).filter_map(|rest| linked(rest.split(')').next()?, folder)));
        }
    }
    found
}

fn path(code: &str) -> Option<PathBuf> {
    let is_path = |character: char| character.is_ascii_alphanumeric() || "._-/*".contains(character);
    let other = code.starts_with('/') || NO_PATHS.iter().any(|start| code.starts_with(start));
    if other || !code.contains('/') || !code.chars().all(is_path) {
        return None;
    }
    Some(code.split('/').take_while(|level| !level.contains('*')).collect())
}

fn linked(target: &str, folder: &Path) -> Option<PathBuf> {
    let file = target.split('#').next()?;
    (!file.is_empty() && !target.contains("://")).then(|| folder.join(file))
}

#[test]
fn paths_are_found() {
    let page = "See `a/b.rs` and [c](d/e.md#f), `x` or `cargo run a/b`.\n```sh\n`g/h` [i](j)\n```\n\
                `k/*` `/status` `sensors/+/t` `sensors/x` [w](https://w.org/w) [here](#here) `l/m/`";
    let expected: Vec<PathBuf> = ["a/b.rs", "d/e.md", "k", "l/m/"].iter().map(PathBuf::from).collect();
    assert_eq!(paths(page, Path::new("")), expected);
    assert_eq!(paths("[c](../d.md)", Path::new("docs")), [PathBuf::from("docs/../d.md")]);
}
