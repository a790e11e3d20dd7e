//! Effects and reads beside records and messages, with the real agent: state that ends and is bounded, secrets, log lines with
//! fields, and what devices are said to be.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use function_package::Package;
use serde_json::json;
use system_tests::{Inlet, Port, System, World, http, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(90);

const SECRET: &str = "hunter2-and-some-more";

/// Does by the first byte of the body, with the second one as the key of the state and the body as its value:
///
/// - `p`, `s`, `h`: puts it for good, for a second, for an hour; `d` deletes it; `g` answers with it, or 404;
/// - `k`: answers with the secret "key", or 404; `K` reads it and traps;
/// - `l`: logs it, with a field; `r`: reports it as the property "battery".
const MODULE: &str = r#"(module
    (import "edge_v1" "state_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "state_put" (func $put (param i32 i32 i32 i32)))
    (import "edge_v1" "state_put_ttl" (func $put_ttl (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "state_delete" (func $delete (param i32 i32)))
    (import "edge_v1" "secret_get" (func $secret (param i32 i32 i32 i32) (result i32)))
    (import "edge_v1" "twin_report" (func $report (param i32 i32 i32 i32)))
    (import "edge_v1" "log_with" (func $log (param i32 i32 i32 i32 i32)))
    (import "edge_v1" "respond" (func $respond (param i32 i32 i32 i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "key")
    (data (i32.const 24) "battery")
    (data (i32.const 32) "\04\00\00\00\05\00\00\00room\22big\22")
    (global $at (mut i32) (i32.const 0))
    (func $is (param i32) (result i32) (i32.eq (i32.load8_u (global.get $at)) (local.get 0)))
    (func $answer (param $n i32)
        (if (i32.lt_s (local.get $n) (i32.const 0))
            (then (call $respond (i32.const 404) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
            (else (call $respond (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 64) (local.get $n)))))
    (func (export "edge_alloc") (param i32) (result i32) (i32.const 8192))
    (func (export "edge_handle") (param $event i32) (param i32) (result i32)
        (local $len i32) (local $key i32)
        (local.set $len (i32.load offset=52 (local.get $event)))
        (global.set $at (i32.add (local.get $event) (i32.load offset=48 (local.get $event))))
        (local.set $key (i32.add (global.get $at) (i32.const 1)))
        (if (call $is (i32.const 112))
            (then (call $put (local.get $key) (i32.const 1) (global.get $at) (local.get $len))))
        (if (call $is (i32.const 115))
            (then (call $put_ttl (local.get $key) (i32.const 1) (global.get $at) (local.get $len) (i32.const 1))))
        (if (call $is (i32.const 104))
            (then (call $put_ttl (local.get $key) (i32.const 1) (global.get $at) (local.get $len) (i32.const 3600))))
        (if (call $is (i32.const 100)) (then (call $delete (local.get $key) (i32.const 1))))
        (if (call $is (i32.const 103))
            (then (call $answer (call $get (local.get $key) (i32.const 1) (i32.const 64) (i32.const 4096)))))
        (if (call $is (i32.const 107))
            (then (call $answer (call $secret (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 4096)))))
        (if (call $is (i32.const 75))
            (then (call $answer (call $secret (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 4096))) unreachable))
        (if (call $is (i32.const 108))
            (then (call $log (i32.const 2) (global.get $at) (local.get $len) (i32.const 32) (i32.const 17))))
        (if (call $is (i32.const 114))
            (then (call $report (i32.const 24) (i32.const 7) (global.get $at) (local.get $len))))
        (i32.const 0)))"#;

struct House {
    system: System,
    http: SocketAddr,
    _port: Port,
}

/// A gateway that runs the function, with these limits of it and this in the gateway's configuration.
fn house(limits: &str, config: &str) -> House {
    let port = Port::free().unwrap();
    let http = port.address();
    let world = World::new().unwrap();
    world.write("the-secret", format!("{SECRET}\n")).unwrap();
    let config = format!("\n[http]\nlisten = \"{http}\"\n{config}");
    let system = System::start_with(world, Inlet::Own, &[], &config).unwrap();
    let manifest = format!(
        "manifest = 1\nname = \"doer\"\nversion = \"1.0.0\"\n[[trigger]]\nhttp = \"POST /do\"\n[allow]\n\
         secrets = [\"key\"]\ntwin = [\"battery\"]\n[limits]\n{limits}\n"
    );
    let package = Package::pack(&wat::parse_str(MODULE).unwrap(), &manifest).unwrap().bytes().to_vec();
    system.deploy(&[("doer", package)]).unwrap();
    House { system, http, _port: port }
}

impl House {
    fn post(&self, body: &str) -> (u16, String) {
        let (status, body) = http::post(self.http, "/do", &[], body.as_bytes()).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    fn state_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.system.gateway.status()?.functions[0].state_bytes)
    }

    fn gateway_id(&self) -> String {
        self.system.operator.run(["gateways"]).unwrap()["gateways"][0]["id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn state_ends_by_itself_and_is_deleted() {
    // The shortest time to live of a stream says how often the agent looks.
    let mut house = house("", "[[stream]]\nname = \"any\"\nttl_s = 10\n");
    for body in ["sa for a second", "hb for an hour", "pc for good"] {
        assert_eq!(house.post(body).0, 204);
    }
    let wait_for_the_end = |house: &House, key: &str| {
        wait_until("the value to end", DEADLINE, || {
            let (status, body) = house.post(&format!("g{key}"));
            ensure!(status == 404, "{status} {body}");
            Ok(())
        })
        .unwrap();
    };
    wait_for_the_end(&house, "a");
    assert_eq!(house.post("gb"), (200, "hb for an hour".to_owned()));
    assert_eq!(house.post("sd as well").0, 204);
    house.system.gateway.kill9();
    house.system.gateway.start().unwrap();
    wait_for_the_end(&house, "d");
    assert_eq!(house.post("gb"), (200, "hb for an hour".to_owned()), "its end is on disk, too");
    // Also what was put for an hour before can be put for a second, and the other way round.
    assert_eq!((house.post("sb for a second now").0, house.post("hd for an hour now").0), (204, 204));
    wait_for_the_end(&house, "b");
    assert_eq!(house.post("gd"), (200, "hd for an hour now".to_owned()));
    let left = ("hd for an hour now".len() + "pc for good".len() + 2) as u64;
    wait_until("what has ended to be deleted", DEADLINE, || {
        let bytes = house.state_bytes()?;
        ensure!(bytes == left, "{bytes} bytes are held, {left} should");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_function_that_keeps_too_much_is_told_so() {
    let house = house("state_kib = 1", "");
    let put = |key: &str| format!("p{key}{}", "x".repeat(598));
    assert_eq!(house.post(&put("a")).0, 204);
    assert_eq!(house.post(&put("b")).0, 500);
    assert_eq!(house.post("gb").0, 404, "a run that fails leaves nothing");
    assert_eq!(house.post(&put("a")).0, 204, "what is replaced makes room");
    assert_eq!(house.state_bytes().unwrap(), 601);
    assert_eq!((house.post("da").0, house.post(&put("b")).0), (204, 204));
    assert_eq!(house.state_bytes().unwrap(), 601);
    let letters = wait_until("the dead letter", DEADLINE, || {
        let list = house.system.operator.run(["dead", "list"])?;
        let letters = list["letters"].as_array().unwrap().clone();
        ensure!(letters.len() == 1, "{list}");
        Ok(letters)
    })
    .unwrap();
    let letter = letters[0]["letter"].to_string();
    let shown = house.system.operator.run(["dead", "show", &house.gateway_id(), &letter]).unwrap();
    assert_eq!(shown["dead"]["detail"], "state_full");
    let reason = shown["dead"]["reason"].as_str().unwrap();
    assert!(reason.contains("its state would come to 1202 bytes, 1024 are allowed, and 601 are taken"), "{reason}");
}

#[test]
fn a_secret_comes_to_the_function_and_nowhere_else() {
    let mut house = house("", "[secrets]\nkey = { file = \"the-secret\" }\n");
    assert_eq!(house.post("k"), (200, SECRET.to_owned()));
    assert_eq!(house.post("K").0, 500);
    let list = wait_until("the dead letter", DEADLINE, || {
        let list = house.system.operator.run(["dead", "list"])?;
        ensure!(list["letters"].as_array().unwrap().len() == 1, "{list}");
        Ok(list)
    })
    .unwrap();
    let letter = list["letters"][0]["letter"].to_string();
    let shown = house.system.operator.run(["dead", "show", &house.gateway_id(), &letter]).unwrap();
    assert!(!shown.to_string().contains(SECRET), "{shown}");
    house.system.gateway.wait_until_drained(DEADLINE).unwrap();
    house.system.gateway.terminate(DEADLINE).unwrap();
    let mut looked = 0;
    look(&house.system.world.path("."), &mut looked);
    assert!(looked > 5, "stores, logs and configuration: {looked} files");
}

/// No file has the secret but the one that it was read from.
fn look(folder: &Path, looked: &mut u32) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look(&path, looked);
        } else if !path.ends_with("the-secret") {
            // One that is gone meanwhile was the control plane's.
            let Ok(bytes) = fs::read(&path) else { continue };
            assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{}", path.display());
            *looked += 1;
        }
    }
}

#[test]
fn a_gateway_without_the_secret_says_that_there_is_none() {
    let house = house("", "[secrets]\nother = \"x\"\n");
    assert_eq!(house.post("k").0, 404);
}

#[test]
fn a_log_line_has_its_fields() {
    let house = house("", "");
    assert_eq!(house.post("lights are on").0, 204);
    let line = wait_until("the line", DEADLINE, || {
        let log = fs::read_to_string(house.system.world.logs().join("gateway.log"))?;
        let line = log.lines().find(|line| line.contains("lights are on")).map(str::to_owned);
        line.ok_or_else(|| anyhow::anyhow!("it is not there"))
    })
    .unwrap();
    assert!(line.contains("INFO function: lights are on function=\"doer\""), "{line}");
    assert!(line.ends_with(r#"fields={"room":"\"big\""}"#), "{line}");
}

#[test]
fn the_latest_report_of_a_device_reaches_the_control_plane() {
    let mut house = house("", "");
    let id = house.gateway_id();
    let wait_for = |house: &House, value: &str| {
        wait_until("the report", DEADLINE, || {
            let twins = house.system.operator.run(["twin", "show", &id, "@http"])?;
            ensure!(twins["properties"][0]["value"] == json!({"text": value}), "{twins}");
            Ok(twins)
        })
        .unwrap()
    };
    assert_eq!(house.post("r87 %").0, 204);
    let twins = wait_for(&house, "r87 %");
    let property = &twins["properties"][0];
    assert_eq!((&property["property"], &property["function"]), (&json!("battery"), &json!("doer")));
    // Offline it waits, through a kill, as every record does.
    house.system.link.cut();
    for percent in (80..87).rev() {
        assert_eq!(house.post(&format!("r{percent} %")).0, 204);
    }
    house.system.gateway.kill9();
    house.system.gateway.start().unwrap();
    house.system.link.restore().unwrap();
    let twins = wait_for(&house, "r80 %");
    assert_eq!(twins["properties"].as_array().unwrap().len(), 1);
    assert_eq!(house.system.cloud.records("@twin").unwrap().len(), 8, "each report is a record");
}
