//! Replays: what differs, what is not known, and what a recording lacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use agent_core::Event;
use agent_core::event::EventKind;
use agent_functions::record::{Answers, Ended, Frame, Recorded, RecordedRun, RunResult, file};
use function_package::Package;

use crate::world::{Done, bare};

/// In Rust, without the SDK: panics in a function of its own on every event.
const CODE: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn edge_alloc(_len: u32) -> u32 { 65_528 - 8_192 }
#[inline(never)]
fn checked(celsius: u32) -> u32 {
    if celsius < 1_000 { panic!("too cold: {celsius}") }
    celsius
}
#[unsafe(no_mangle)]
pub extern "C" fn edge_handle(_event: u32, len: u32) -> i32 { checked(std::hint::black_box(len)) as i32 }
"#;

fn manifest(name: &str) -> String {
    format!("manifest = 1\nname = \"{name}\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"a/+\"\n")
}

fn build(dir: &Path) {
    fs::create_dir_all(dir.join("cold/src")).unwrap();
    let cargo = "[package]\nname = \"cold\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(dir.join("cold/Cargo.toml"), cargo).unwrap();
    fs::write(dir.join("cold/function.toml"), manifest("cold")).unwrap();
    fs::write(dir.join("cold/src/lib.rs"), CODE).unwrap();
    let mut command = bare(dir, &["fn", "build", "cold", "--install-target"]);
    let done = Done::from(command.env("CARGO_TARGET_DIR", "target").output().unwrap());
    assert_eq!(done.status, 0, "{}", done.stderr);
}

/// A recording of one run, which ended so, with these frames behind it.
fn recording(dir: &Path, ended: Ended, rest: &[Frame]) {
    let digest = *Package::open(fs::read(dir.join("cold.wasm")).unwrap()).unwrap().digest().as_bytes();
    let version = Recorded { name: "cold".into(), version: "1.0.0".into(), digest, config: BTreeMap::new() };
    let run = RecordedRun {
        partition: "d".into(),
        event: Event::new(EventKind::Mqtt, "d", "a/b", *b"21", 1_700_000_000_000_000),
        seed: 1,
        reads: Answers::default(),
        complete: true,
        result: RunResult { ended, logs: Vec::new(), logs_dropped: 0, fuel: 7, memory_bytes: 65_536 },
    };
    let mut bytes = file::HEADER.to_vec();
    for frame in [Frame::Version(version), Frame::Run(Box::new(run))].iter().chain(rest) {
        assert!(file::write(&mut bytes, frame));
    }
    fs::write(dir.join("cold.edgerec"), bytes).unwrap();
}

fn replay(dir: &Path, with: &str) -> Done {
    Done::from(bare(dir, &["replay", "cold.edgerec", "--with", with]).output().unwrap())
}

#[test]
fn a_panic_in_rust_is_shown_with_the_function_that_panicked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    build(dir);
    let end = Frame::End { why: "enough".into() };
    recording(dir, Ended::Done(Vec::new()), &[Frame::Gap { runs: 3, why: "too fast".into() }, end.clone()]);
    let done = replay(dir, "cold.wasm");
    assert_eq!(done.status, 5, "{}", done.stdout);
    let at = |name: &str| done.stdout.find(&format!("at {name}\n")).unwrap_or_else(|| panic!("{}", done.stdout));
    assert!(
        at("cold::checked") < at("edge_handle") && done.stdout.contains("+trap     unreachable"),
        "{}",
        done.stdout
    );
    assert!(done.stdout.contains("3 runs are missing here: too fast") && done.stdout.contains("ends: enough"));
    assert!(done.stdout.contains("7 was recorded, and now it is"), "{}", done.stdout);
    assert!(done.stderr.contains("of 1 runs 1 differ"), "{}", done.stderr);

    // Cut: what is there is replayed, and it is said.
    recording(dir, Ended::Done(Vec::new()), &[]);
    let done = replay(dir, "cold.wasm");
    assert!(done.status == 5 && done.stderr.contains("it has no end") && done.stdout.contains("ends: cut"));

    // Another function, and no recording.
    let other = Package::pack(b"\0asm\x01\0\0\0", &manifest("warm")).unwrap();
    fs::write(dir.join("warm.wasm"), other.bytes()).unwrap();
    let done = replay(dir, "warm.wasm");
    assert!(done.status == 1 && done.stderr.contains("a version of warm"), "{}", done.stderr);
    fs::write(dir.join("cold.edgerec"), "hello").unwrap();
    let done = replay(dir, "cold.wasm");
    assert!(done.status == 1 && done.stderr.contains("it is no recording"), "{}", done.stderr);
}
