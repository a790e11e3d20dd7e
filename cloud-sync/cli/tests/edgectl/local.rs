//! A function on this machine, from a file: fixtures, benchmarks, a broker.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use agent_broker::{Broker, Inbound, Ingest, Options};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::world::{Done, bare};

const MANIFEST: &str = "manifest = 1\nname = 'echo'\nversion = '1.0.0'\n[[trigger]]\nmqtt = 'in/+'\n[allow]\n\
                        streams = ['s']\npublish = ['out/#']\n[config]\nlimit = 30.0\n";

/// Emits and publishes what it gets; traps on an empty payload.
const ECHO: &str = r#"(module
    (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "publish" (func $publish (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "log" (func $log (param i32 i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "sout/x")
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "edge_handle") (param $at i32) (param i32) (result i32)
        (local $from i32) (local $len i32)
        (local.set $len (i32.load offset=52 (local.get $at)))
        (local.set $from (i32.add (local.get $at) (i32.load offset=48 (local.get $at))))
        (if (i32.eqz (local.get $len)) (then unreachable))
        (call $log (i32.const 2) (i32.const 9) (i32.const 3))
        (call $emit (i32.const 8) (i32.const 1) (local.get $from) (local.get $len) (i32.const 0))
        (call $publish (i32.const 9) (i32.const 5) (local.get $from) (local.get $len) (i32.const 1))
        (i32.const 0)))"#;

/// A folder with the function in `echo.wasm`.
fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    pack(dir.path(), ECHO, "echo.wasm");
    dir
}

fn pack(dir: &Path, module: &str, to: &str) {
    fs::write(dir.join("m.wasm"), wat::parse_str(module).unwrap()).unwrap();
    fs::write(dir.join("function.toml"), MANIFEST).unwrap();
    let done = run(dir, &["fn", "build", "--wasm", "m.wasm", "--manifest", "function.toml", "--out", to]);
    assert_eq!(done.status, 0, "{}", done.stderr);
}

fn run(dir: &Path, args: &[&str]) -> Done {
    Done::from(bare(dir, args).output().unwrap())
}

fn fixture(dir: &Path, name: &str, lines: &[&str]) {
    fs::create_dir_all(dir.join("fixtures")).unwrap();
    fs::write(dir.join("fixtures").join(name), lines.join("\n")).unwrap();
}

#[test]
fn a_snapshot_is_missing_until_it_is_approved() {
    let dir = world();
    let test =
        |more: &[&str]| run(dir.path(), &[&["fn", "test", "echo.wasm", "--fixtures", "fixtures"], more].concat());
    let none = test(&[]);
    assert!(none.status == 1 && none.stderr.contains("there are no events for echo in fixtures"), "{}", none.stderr);
    let which = run(dir.path(), &["fn", "test", "echo.wasm"]);
    assert!(which.status == 2 && which.stderr.contains("--fixtures"), "{}", which.stderr);

    let events = [
        r#"{"fixture": 1, "device_level": 2}"#,
        r#"{"topic": "in/d", "json": {"a": 1}}"#,
        r#"{"topic": "in/d"}"#,
        r#"{"topic": "in/d", "hex": "00ff"}"#,
        r#"{"topic": "elsewhere"}"#,
    ];
    fixture(dir.path(), "a.events.jsonl", &events);
    let missing = test(&[]);
    assert_eq!(missing.status, 1);
    assert!(
        missing.stdout.contains("fixtures/a.effects.snap is not there: nothing was approved yet"),
        "{}",
        missing.stdout
    );
    assert!(!dir.path().join("fixtures/a.effects.snap").exists());
    assert_eq!(test(&["--approve"]).status, 0);
    let snapshot = fs::read_to_string(dir.path().join("fixtures/a.effects.snap")).unwrap();
    let body = snapshot.split_once("\n\n").unwrap().1;
    assert_eq!(
        body,
        "1  in/d  from d  {\"a\": 1}\n    emit     s  {\"a\": 1}\n    publish  out/x (qos 1)  {\"a\": 1}\n    log      info  \
         out\n\n\
         2  in/d  from d  (empty)\n    trap     unreachable  reached an \"unreachable\" instruction, which is how most \
         languages end a panic or a failed assertion; its log lines may say more\n\n\
         3  in/d  from d  0x00ff\n    emit     s  0x00ff\n    publish  out/x (qos 1)  0x00ff\n    log      info  out\n\n\
         4  elsewhere  (empty)\n    not run  no trigger of the manifest is for it\n"
    );
    let same = test(&["--json"]);
    let same: Value = serde_json::from_str(&same.stdout).unwrap();
    assert_eq!((&same["passed"], &same["fixtures"][0]["diff"]), (&json!(true), &json!("")));

    // A version alone is no other behaviour.
    fs::write(dir.path().join("function.toml"), MANIFEST.replace("1.0.0", "1.0.1")).unwrap();
    let built =
        run(dir.path(), &["fn", "build", "--wasm", "m.wasm", "--manifest", "function.toml", "--out", "echo.wasm"]);
    assert_eq!((built.status, test(&[]).status), (0, 0));
    fixture(dir.path(), "b.events.jsonl", &["{\"topic\": \"in/d\"", ""]);
    let broken = test(&[]);
    assert!(broken.status == 1 && broken.stderr.contains("fixtures/b.events.jsonl:1: column 16"), "{}", broken.stderr);
    assert_eq!(test(&["--only", "a"]).status, 0);
    let unknown = test(&["--only", "c"]);
    assert!(unknown.status == 1 && unknown.stderr.contains("c.events.jsonl"), "{}", unknown.stderr);
}

#[test]
fn every_example_was_approved() {
    // What it makes is compared by `cargo xtask functions`, which has compiled it.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../function-examples");
    for folder in fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()) {
        // What every language must do alike has a table of its own, in the tests of the whole system.
        if !folder.join("function.toml").is_file() || folder.ends_with("conformance") {
            continue;
        }
        let files =
            fs::read_dir(folder.join("fixtures")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let names: Vec<String> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let events: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".events.jsonl")).collect();
        let snapshots: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".effects.snap")).collect();
        assert!(!events.is_empty() && events.len() + snapshots.len() == names.len(), "{names:?}");
        assert!(events.iter().all(|name| snapshots.contains(name)) && events.len() == snapshots.len(), "{names:?}");
    }
}

#[test]
fn a_module_that_no_gateway_would_load_is_shown_all_the_same() {
    let dir = world();
    let wasi =
        ECHO.replacen("(import", "(import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i32)))\n(import", 1);
    pack(dir.path(), &wasi, "wasi.wasm");
    let refused = run(dir.path(), &["--json", "fn", "inspect", "wasi.wasm"]);
    assert!(refused.status == 1 && refused.stderr.contains("a gateway would refuse wasi.wasm"), "{}", refused.stderr);
    let shown: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(shown["imports"][0], json!({"module": "wasi_snapshot_preview1", "name": "fd_write", "known": false}));
    assert_eq!(shown["imports"][1], json!({"module": "edge_v1", "name": "emit", "known": true}));
    assert!(shown["refusal"].as_str().unwrap().contains("without WASI"), "{shown}");
    assert_eq!((&shown["exports"][0], &shown["memory_bytes"]), (&json!("memory"), &json!(65_536)));
    let text = run(dir.path(), &["fn", "inspect", "wasi.wasm"]).stdout;
    assert!(text.contains("wasi_snapshot_preview1 fd_write (unknown)") && text.contains("loads:   no: "), "{text}");
    assert!(run(dir.path(), &["fn", "inspect", "echo.wasm"]).stdout.contains("loads:   yes"));

    fs::write(dir.path().join("garbage.wasm"), b"\x7fELF garbage").unwrap();
    let garbage = run(dir.path(), &["fn", "inspect", "garbage.wasm"]);
    assert!(garbage.status == 1 && garbage.stderr.contains("garbage.wasm: the file is not WebAssembly"));
    assert!(garbage.stdout.is_empty());
    let mut cut = fs::read(dir.path().join("echo.wasm")).unwrap();
    cut.truncate(100);
    fs::write(dir.path().join("cut.wasm"), cut).unwrap();
    let cut = run(dir.path(), &["fn", "inspect", "cut.wasm"]);
    assert!(cut.status == 1 && cut.stderr.contains("damaged"), "{}", cut.stderr);
    assert_eq!(run(dir.path(), &["fn", "inspect", "none.wasm"]).status, 3);
}

#[test]
fn a_benchmark_says_what_each_event_costs() {
    let dir = world();
    let events = [r#"{"topic": "in/d", "text": "x"}"#, r#"{"topic": "in/d"}"#, r#"{"topic": "other"}"#];
    fixture(dir.path(), "a.events.jsonl", &events);
    let bench = |more: &[&str]| {
        let args = ["fn", "bench", "echo.wasm", "--events", "fixtures/a.events.jsonl", "--runs", "7"];
        let done = run(dir.path(), &[&args, more].concat());
        assert_eq!(done.status, 0, "{}", done.stderr);
        done.stdout
    };
    let report: Value = serde_json::from_str(&bench(&["--json"])).unwrap();
    let file = &report["files"][0];
    let costs = file["events"].as_array().unwrap();
    assert_eq!((costs.len(), &file["runs"], &file["passed_over"]), (2, &json!(7), &json!(1)));
    assert_eq!(
        (&costs[0]["failed"], &costs[1]["failed"], &costs[0]["memory_bytes"]),
        (&json!(false), &json!(true), &json!(65_536))
    );
    for cost in costs {
        let [min, median, p99] = ["min", "median", "p99"].map(|which| cost["time_ns"][which].as_u64().unwrap());
        assert!(0 < min && min <= median && median <= p99 && cost["fuel"].as_u64() > Some(1_000), "{cost}");
    }
    assert_eq!((&report["total"]["events"], &report["total"]["failed"]), (&json!(2), &json!(1)));
    let again: Value = serde_json::from_str(&bench(&["--json"])).unwrap();
    assert_eq!(again["total"]["fuel"], report["total"]["fuel"], "fuel is no matter of chance");
    let text = bench(&[]);
    assert!(text.contains("MEDIAN") && text.contains("2 events, 1 of them traps"), "{text}");

    let empty = run(dir.path(), &["fn", "bench", "echo.wasm", "--events", "/dev/null"]);
    assert!(empty.status == 1 && empty.stderr.contains("echo sees none of the events"), "{}", empty.stderr);
    let file = run(dir.path(), &["--json", "fn", "run", "echo.wasm", "--events", "fixtures/a.events.jsonl"]);
    let lines: Vec<Value> = file.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outcomes: Vec<&Value> = lines.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, [&json!("done"), &json!("failed"), &json!("unwanted"), &Value::Null]);
    assert_eq!(lines[3]["summary"]["emitted"], 1);
}

/// Takes what is published, and tells the test.
struct Told(mpsc::UnboundedSender<(String, Vec<u8>)>);

impl Ingest for Told {
    async fn submit(&self, inbound: Inbound) {
        let _ = self.0.send((inbound.topic.to_string(), inbound.payload.to_vec()));
        inbound.ack.accept();
    }
}

/// A function that listens, and what it says.
struct Listening {
    child: Child,
    stdout: mpsc::UnboundedReceiver<String>,
    stderr: mpsc::UnboundedReceiver<String>,
}

impl Listening {
    async fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = bare(dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let mut listening = Self { child, stdout, stderr };
        let first = listening.stderr.recv().await.unwrap();
        assert!(first.contains("listening at") && first.contains("in/+"), "{first}");
        listening
    }

    async fn line(&mut self) -> Value {
        serde_json::from_str(&self.stdout.recv().await.unwrap()).unwrap()
    }

    fn interrupt(&mut self) -> i32 {
        let killed = std::process::Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    receiver
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_runs_on_what_a_broker_sends_and_sends_only_when_told() {
    let dir = world();
    let broker = Broker::bind(Options { listen: "127.0.0.1:0".parse().unwrap(), ..Options::default() }).await.unwrap();
    let address = broker.local_addr().to_string();
    let (sender, mut told) = mpsc::unbounded_channel();
    tokio::spawn(async move { broker.run(Arc::new(Told(sender)), std::future::pending()).await });
    let mut options =
        rumqttc::MqttOptions::new("device", "127.0.0.1", address.rsplit_once(':').unwrap().1.parse().unwrap());
    options.set_keep_alive(std::time::Duration::from_secs(60));
    let (device, mut events) = rumqttc::AsyncClient::new(options, 10);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    let send = async |payload: &str| {
        device.publish("in/d", rumqttc::QoS::AtLeastOnce, false, payload).await.unwrap();
    };

    // Read-only, and recorded.
    let args =
        ["--json", "fn", "run", "echo.wasm", "--broker", &address, "--device-level", "2", "--record", "r.events.jsonl"];
    let mut listening = Listening::start(dir.path(), &args).await;
    send("one").await;
    let shown = listening.line().await;
    assert_eq!((&shown["device"], &shown["text"], &shown["outcome"]), (&json!("d"), &json!("one"), &json!("done")));
    assert_eq!(
        shown["effects"][1],
        json!({"effect": "publish", "topic": "out/x", "qos": 1, "retain": false, "text": "one"})
    );
    assert_eq!(told.recv().await.unwrap(), ("in/d".to_owned(), b"one".to_vec()));
    assert_eq!(listening.interrupt(), 0);
    assert_eq!(listening.line().await["summary"]["published"], 1);
    let recorded = run(dir.path(), &["--json", "fn", "run", "echo.wasm", "--events", "r.events.jsonl"]);
    assert!(recorded.status == 0 && recorded.stdout.contains("\"device\":\"d\""), "{}", recorded.stderr);

    // With its publishes, which leave before it does.
    let args = ["--json", "fn", "run", "echo.wasm", "--broker", &address, "--publish", "--count", "2"];
    let mut listening = Listening::start(dir.path(), &args).await;
    send("two").await;
    assert_eq!(listening.line().await["device"], "in/d");
    send("three").await;
    let mut found = Vec::new();
    while found.len() < 4 {
        found.push(told.recv().await.unwrap());
    }
    found.sort();
    let topics: Vec<&str> = found.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["in/d", "in/d", "out/x", "out/x"]);
    assert_eq!(found[2].1, b"three");
    assert!(listening.child.wait().unwrap().success());
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let dir = world();
    // Port 9 of this machine, where nothing listens.
    let gone = run(dir.path(), &["fn", "run", "echo.wasm", "--broker", "127.0.0.1:9"]);
    assert!(gone.status == 4 && gone.stderr.contains("127.0.0.1:9"), "{}", gone.stderr);
    let wrong = run(dir.path(), &["fn", "run", "echo.wasm", "--broker", "mqtt://gw"]);
    assert!(wrong.status == 2 && wrong.stderr.contains("HOST:PORT"), "{}", wrong.stderr);
    for usage in [&["fn", "run", "echo.wasm"][..], &["fn", "run", "echo.wasm", "--events", "x", "--publish"]] {
        assert_eq!(run(dir.path(), usage).status, 2, "{usage:?}");
    }
}

#[test]
fn every_command_can_be_completed_and_says_how_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, sign) in [("bash", "_edgectl()"), ("zsh", "#compdef edgectl"), ("fish", "complete -c edgectl")] {
        let script = run(dir.path(), &["completions", shell]);
        assert!(script.status == 0 && script.stdout.contains(sign), "{shell}: {}", script.stderr);
        for word in ["inspect", "--approve", "--broker", "undeploy"] {
            assert!(script.stdout.contains(word.trim_start_matches('-')), "{shell} does not know {word}");
        }
    }
    assert_eq!(run(dir.path(), &["completions", "cmd"]).status, 2);
    let help = run(dir.path(), &["--help"]).stdout;
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/functions.md")).unwrap();
    for line in help.split_once("Exit status:").unwrap().1.trim().lines() {
        let (status, meaning) = line.trim().split_once("  ").unwrap();
        assert!(page.contains(&format!("| {status} | {meaning} |")), "docs/functions.md does not say: {line}");
    }
}
