//! The way of a function's author, from nothing to a function that is tested.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use function_package::Package;
use serde_json::{Value, json};

use crate::world::{Done, bare};

/// Where all tests of this file compile, so that dependencies are built once for all.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = bare(dir, args);
    command.env("CARGO_TARGET_DIR", target().join("authors")).env_remove("RUSTFLAGS").env_remove("EDGECTL_SDK");
    command
}

fn run(dir: &Path, args: &[&str]) -> Done {
    Done::from(command(dir, args).output().unwrap())
}

fn json_of(dir: &Path, args: &[&str]) -> Value {
    let done = run(dir, &[&["--json"], args].concat());
    assert_eq!(done.status, 0, "{args:?}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", done.stdout))
}

#[test]
fn a_new_function_compiles_passes_its_tests_and_is_approved_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let made = json_of(dir.path(), &["fn", "new", "too-warm"]);
    assert_eq!((made["name"].as_str(), made["dir"].as_str()), (Some("too-warm"), Some("too-warm")));
    let folder = dir.path().join("too-warm");
    assert_eq!(fs::read_to_string(folder.join("README.md")).unwrap().lines().count(), 3);
    let again = run(dir.path(), &["fn", "new", "too-warm"]);
    assert!(again.status == 3 && again.stderr.contains("not empty"), "{}", again.stderr);

    // What the template approved is what the module makes.
    let tested = json_of(&folder, &["fn", "test", "--install-target"]);
    assert_eq!((&tested["passed"], &tested["fixtures"][0]["verdict"]), (&json!(true), &json!("same")), "{tested}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut handler = Command::new(cargo);
    handler.args(["test", "--lib"]).current_dir(&folder).env("CARGO_TARGET_DIR", target().join("authors"));
    let handler = Done::from(handler.env_remove("RUSTFLAGS").output().unwrap());
    assert!(handler.status == 0 && handler.stdout.contains("1 passed"), "{}{}", handler.stdout, handler.stderr);

    let built = json_of(&folder, &["fn", "build", "--out", "f.wasm", "."]);
    assert_eq!(Package::open(fs::read(folder.join("f.wasm")).unwrap()).unwrap().digest().to_string(), built["digest"]);
    let inspected = json_of(&folder, &["fn", "inspect", "f.wasm"]);
    assert_eq!((&inspected["loads"], &inspected["partition"]), (&json!(true), &json!("device")));
    assert_eq!(inspected["limits"]["fuel"], 50_000_000);
    assert!(inspected["sections"].as_array().unwrap().iter().any(|section| section["name"] == "code"));

    // Another behaviour is a difference until somebody approves it.
    let code = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    fs::write(folder.join("src/lib.rs"), code.replace("\"too warm\"", "\"hot\"")).unwrap();
    let differs = run(&folder, &["fn", "test"]);
    assert_eq!(differs.status, 1, "{}", differs.stderr);
    for line in [
        "-    emit     alerts  {\"device\":\"kitchen\",\"state\":\"too warm\",\"celsius\":31.5}",
        "+    emit     alerts  {\"device\":\"kitchen\",\"state\":\"hot\",\"celsius\":31.5}",
    ] {
        assert!(differs.stdout.lines().any(|found| found == line), "{}", differs.stdout);
    }
    assert!(differs.stderr.contains("1 of 1 fixtures of too-warm") && differs.stderr.contains("--approve"));
    assert!(!differs.stdout.contains('\u{1b}'), "colours are for terminals");
    assert_eq!(run(&folder, &["fn", "test", "--approve"]).status, 0);
    assert_eq!(run(&folder, &["fn", "test"]).status, 0);

    // So are other values of the configuration.
    let cold = run(&folder, &["fn", "test", "--config", "limit=10"]);
    assert!(cold.status == 1 && cold.stdout.contains("21.5"), "{}{}", cold.stdout, cold.stderr);
    let unknown = run(&folder, &["fn", "test", "--config", "limt=10"]);
    assert!(unknown.status == 1 && unknown.stderr.contains("did you mean \"limit\""), "{}", unknown.stderr);
}

#[test]
fn a_new_function_needs_the_sdk_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let none = run(dir.path(), &["fn", "new", "f", "--sdk", "nowhere"]);
    assert!(none.status == 3 && none.stderr.contains("nowhere") && none.stderr.contains("--sdk"), "{}", none.stderr);
    assert!(!dir.path().join("f").exists(), "nothing half made is left behind");
    assert_eq!(run(dir.path(), &["fn", "new", "Bad Name"]).status, 2);
    assert_eq!(run(dir.path(), &["fn", "new", "f", "--lang", "cobol"]).status, 2);

    // Within somebody's workspace it is a workspace of its own, unless that one has it as a member.
    let root = dir.path().join("Cargo.toml");
    fs::write(&root, "[workspace]\nmembers = [\"f\"]\nresolver = \"3\"\n").unwrap();
    assert_eq!(run(dir.path(), &["fn", "new", "f"]).status, 0);
    assert_eq!(run(dir.path(), &["fn", "new", "g"]).status, 0);
    let own =
        |name: &str| fs::read_to_string(dir.path().join(name).join("Cargo.toml")).unwrap().contains("[workspace]");
    assert!(!own("f") && own("g"));
}

#[test]
fn dev_tests_again_whenever_a_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    json_of(dir.path(), &["fn", "new", "f"]);
    let folder = dir.path().join("f");
    let mut child = command(dir.path(), &["--json", "fn", "dev", "f", "--install-target"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test's own deadline is the test runner's.
    let mut round = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let first = round();
    assert!(first["passed"] == true && first["error"].is_null(), "{first}");
    let edit = |name: &str, from: &str, to: &str| {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        // In one step, so that no half is seen.
        fs::write(folder.join(".new"), text.replace(from, to)).unwrap();
        fs::rename(folder.join(".new"), path).unwrap();
    };
    edit("function.toml", "limit = 30.0", "limit = 35.0");
    let second = round();
    assert!(second["passed"] == false && second["fixtures"][0]["verdict"] == "differs", "{second}");
    edit("src/lib.rs", "#[function]", "#[functoin]");
    let third = round();
    assert!(third["error"].as_str().unwrap().contains("could not compile"), "{third}");
    edit("src/lib.rs", "#[functoin]", "#[function]");
    edit("function.toml", "limit = 35.0", "limit = 30.0");
    while round()["passed"] != true {}
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && child.wait().unwrap().success());
    let nothing = run(dir.path(), &["fn", "dev", "nowhere"]);
    assert!(nothing.status == 3 && nothing.stderr.contains("nowhere/function.toml"), "{}", nothing.stderr);
}
