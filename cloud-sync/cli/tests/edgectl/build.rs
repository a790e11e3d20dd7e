//! Builds, inspects and pushes functions.

use std::fs;
use std::path::Path;

use function_package::{Digest, Package, STACK_BYTES};

use crate::world::{Done, World, bare};

const MANIFEST: &str =
    "manifest = 1\nname = \"tiny\"\nversion = \"1.2.3\"\n[[trigger]]\nmqtt = \"a/+\"\n[config]\nlimit = 30.0\n";

/// A crate of its own, in no workspace, that says nothing of Wasm. Its function uses the stack.
fn write_crate(dir: &Path) {
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = "[package]\nname = \"tiny-function\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("function.toml"), MANIFEST).unwrap();
    let code = "#[unsafe(no_mangle)]\npub extern \"C\" fn f(n: usize) -> u8 {\n    let mut a = [0_u8; 64];\n    \
                std::hint::black_box(&mut a)[n & 63]\n}\n";
    fs::write(dir.join("src/lib.rs"), code).unwrap();
}

#[test]
fn a_crate_becomes_a_package_with_a_small_stack() {
    let dir = tempfile::tempdir().unwrap();
    write_crate(&dir.path().join("tiny"));
    let build = |flags: &str| {
        let mut command = bare(dir.path(), &["--json", "fn", "build", "tiny", "--install-target"]);
        command.env("CARGO_TARGET_DIR", "target").env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", flags);
        let done = Done::from(command.output().unwrap());
        assert_eq!(done.status, 0, "{}", done.stderr);
        serde_json::from_str::<serde_json::Value>(&done.stdout).unwrap()
    };
    let built = build("");
    assert_eq!((built["name"].as_str(), built["version"].as_str()), (Some("tiny"), Some("1.2.3")));
    let bytes = fs::read(dir.path().join("tiny.wasm")).unwrap();
    assert_eq!(built["digest"], Digest::of(&bytes).to_string());
    assert_eq!(built["size"], bytes.len());
    // The stack pointer begins at the stack's size: `i32.const 16384; end`.
    assert_eq!(STACK_BYTES, 16_384);
    let begins = [0x41, 0x80, 0x80, 0x01, 0x0b];
    assert!(bytes.windows(begins.len()).any(|window| window == begins));
    assert_eq!(Package::open(bytes.clone()).unwrap().manifest().name, "tiny");
    assert!(dir.path().join("target").is_dir(), "a relative target directory is meant from where the command ran");

    // Flags that the user has set count beside ours.
    build("-C link-arg=--export=__heap_base");
    let flagged = fs::read(dir.path().join("tiny.wasm")).unwrap();
    assert!(flagged.windows(11).any(|window| window == b"__heap_base"));
    assert!(flagged.windows(begins.len()).any(|window| window == begins));
}

#[test]
fn what_cannot_be_built_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let crate_dir = dir.path().join("tiny");
    let run = |args: &[&str]| Done::from(bare(dir.path(), args).output().unwrap());
    let missing = run(&["fn", "build", "tiny"]);
    assert!(missing.status == 3 && missing.stderr.contains("tiny/function.toml"), "{}", missing.stderr);

    fs::create_dir(dir.path().join("other")).unwrap();
    fs::write(dir.path().join("other/function.toml"), MANIFEST).unwrap();
    let other = run(&["fn", "build", "other"]);
    assert!(other.status == 1 && other.stderr.contains("has no Cargo.toml"), "{}", other.stderr);

    write_crate(&crate_dir);
    // A toolchain without the target.
    let rustc = dir.path().join("rustc");
    fs::write(&rustc, "#!/bin/sh\necho /nowhere\n").unwrap();
    fs::set_permissions(&rustc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = bare(dir.path(), &["fn", "build", "tiny"]);
    let no_target = Done::from(command.env("RUSTC", &rustc).output().unwrap());
    assert_eq!(no_target.status, 3);
    let lines: Vec<&str> = no_target.stderr.lines().map(str::trim).collect();
    assert!(lines.contains(&"rustup target add wasm32-unknown-unknown"), "{}", no_target.stderr);

    fs::write(crate_dir.join("src/lib.rs"), "no rust").unwrap();
    let mut command = bare(dir.path(), &["fn", "build", "tiny", "--install-target"]);
    let broken = Done::from(command.env("CARGO_TARGET_DIR", "target").output().unwrap());
    assert!(broken.status == 1 && broken.stderr.contains("could not compile"), "{}", broken.stderr);

    fs::write(crate_dir.join("function.toml"), MANIFEST.replace("name =", "nmae =")).unwrap();
    let wrong = run(&["fn", "build", "tiny"]);
    assert!(wrong.status == 1 && wrong.stderr.contains("tiny/function.toml:2"), "{}", wrong.stderr);
    let here = run(&["fn", "build"]);
    assert!(here.status == 3 && here.stderr.contains("./function.toml"), "{}", here.stderr);
    assert_eq!(run(&["fn", "build", "--wasm", "x"]).status, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_of_any_language_is_packed_inspected_signed_and_stored() {
    let world = World::new().await;
    fs::write(world.path("m.wasm"), b"\0asm\x01\0\0\0").unwrap();
    fs::write(world.path("function.toml"), MANIFEST).unwrap();
    let built = world.json(&["fn", "build", "--wasm", "m.wasm", "--manifest", "function.toml"]);
    // It has no exports, and so no gateway would load it; what is in it is shown all the same.
    let inspected = world.run(&["--json", "fn", "inspect", "tiny.wasm"]);
    assert_eq!(inspected.status, 1, "{}", inspected.stderr);
    let inspected: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(inspected["digest"], built["digest"]);
    assert_eq!(inspected["triggers"], serde_json::json!(["mqtt a/+"]));
    assert_eq!(inspected["config"], serde_json::json!({"limit": "30.0"}));
    assert!(world.run(&["fn", "inspect", "tiny.wasm"]).stdout.contains("tiny 1.2.3"));
    assert!(world.fails(&["fn", "inspect", "m.wasm"]).contains("holds no manifest"));

    world.text(&["key", "new", "--out", "key"]);
    let pushed = world.json(&["push", "tiny.wasm", "--key", "key"]);
    assert_eq!((&pushed["digest"], &pushed["verified"]), (&built["digest"], &false.into()));
    let registered = world.json(&["key", "register", "key.pub"]);
    assert_eq!(registered["key_id"], pushed["key_id"]);
    assert_eq!(world.json(&["key", "list"])["publishers"].as_array().unwrap().len(), 1);
    assert_eq!(world.json(&["push", "tiny.wasm", "--key", "key"])["verified"], true, "again, and checked now");
    let list = world.text(&["functions"]);
    assert!(list.contains("tiny") && list.contains("1.2.3") && list.contains("yes"), "{list}");

    let not_a_key = world.fails(&["push", "tiny.wasm", "--key", "key.pub"]);
    assert!(not_a_key.contains("key.pub") && not_a_key.contains("secret key"), "{not_a_key}");
    world.text(&["key", "new", "--out", "other"]);
    assert!(world.fails(&["push", "tiny.wasm", "--key", "other"]).contains("signed_otherwise"));
}
