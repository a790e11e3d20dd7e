//! `docs/abi.md` says what is so: what it shows runs, and its tables are those of the runtime.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_core::Effect;
use agent_functions::{Engine, StreamPattern};
use common::{State, effects, event, load, spec, trap};
use function_abi::{EventHeader, Priority};

const PAGE: &str = include_str!("../../../docs/abi.md");

/// The lines below a heading, up to the next one of its level.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    rest.split("\n## ").next().unwrap()
}

/// The cells of the first table in a text whose head begins with `head`, backticks taken off.
fn table(text: &str, head: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(&format!("| {head} |")));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect();
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table {head:?}");
    rows
}

fn example() -> Vec<u8> {
    let (_, rest) = PAGE.split_once("```wat\n").unwrap();
    let text = rest.split("```").next().unwrap();
    assert!(text.lines().filter(|line| !line.trim().is_empty()).count() <= 31, "it is said to have 30 lines");
    wat::parse_str(text).unwrap()
}

#[test]
fn the_function_on_the_page_does_what_the_page_says() {
    let mut spec = spec();
    spec.permissions.streams = vec![StreamPattern::new("seen").unwrap()];
    let function = Engine::new().load(spec, &example()).unwrap();
    let mut state = State::default();
    for (count, payload) in [(1_u64, vec![b'x'; 100]), (2, vec![b'y'; 101]), (3, Vec::new())] {
        let mut event = event();
        event.payload = payload.clone().into();
        let priority = if payload.len() > 100 { Priority::High } else { Priority::Normal };
        let value = count.to_le_bytes().to_vec();
        assert_eq!(
            effects(function.run(&event, &mut state, 0)),
            [
                Effect::StatePut { key: b"count".to_vec(), value: value.clone(), ttl_s: None },
                Effect::Emit { stream: "seen".to_owned(), body: payload, priority }
            ]
        );
        state.values.insert(b"count".to_vec(), Arc::from(value));
    }
    let mut event = event();
    event.payload = vec![0; 64_000].into();
    let trap = trap(function.run(&event, &mut state, 0));
    assert_eq!(trap.kind.name(), "bad_alloc", "{trap}");
}

#[test]
fn the_imports_on_the_page_are_those_of_the_runtime() {
    let rows = table(section("The imports"), "import");
    let mut module = String::from("(module");
    for row in &rows {
        let params = row[1].split(' ').filter(|name| !name.is_empty());
        let params: String = params.map(|name| if name == "number" { "f64 " } else { "i32 " }).collect();
        let answer = if row[2].contains("-1") { "(result i32)" } else { "" };
        module += &format!("(import \"edge_v1\" \"{}\" (func (param {params}) {answer}))\n", row[0]);
    }
    module += r#"(memory (export "memory") 1)
        (func (export "edge_alloc") (param i32) (result i32) (i32.const 8))
        (func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0)))"#;
    load(&wat::parse_str(module).unwrap());
    let on_page: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let known: BTreeSet<&str> = common::IMPORTS.split('"').skip(3).step_by(4).collect();
    assert_eq!(on_page, known);
}

#[test]
fn the_event_block_on_the_page_is_that_of_the_runtime() {
    let rows = table(section("The event block"), "offset");
    let mut end = 0;
    for row in &rows {
        assert_eq!(row[0].parse::<usize>().unwrap(), end, "{row:?}");
        end += match row[1].as_str() {
            "u32" => 4,
            "u64" | "span" => 8,
            other => panic!("{other}"),
        };
    }
    assert_eq!(end, EventHeader::LEN);
    let names: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    let fields = ["header_len", "kind", "time_us", "boot", "sequence", "device", "topic", "payload", "attributes"];
    assert_eq!(names, fields);
    assert!(rows[0][2..].concat().contains(&format!("{} now", EventHeader::LEN)), "{:?}", rows[0]);
}

#[test]
fn every_kind_of_failure_is_on_the_page() {
    let rows = table(section("How a run fails"), "kind");
    let on_page: BTreeSet<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    // The names are the variants of `TrapKind` in snake case.
    let source = include_str!("../src/trap.rs");
    let known: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\",")?.split_once("=> \""))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(on_page, known);
}
