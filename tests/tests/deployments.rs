//! Deployments that are good, bad, or bad in a way that only events show: what runs goes on running, and says why.

use std::process::Command;
use std::time::Duration;

use function_package::Package;
use system_tests::{Device, Function, Inlet, Summary, System, World, binary, oracle, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(60);

const EVERYWHERE: &str = "label:site=home";

/// A packed function `echo`, which emits each payload to the stream `echo`; `extra` is more of its module, and `handler`
/// comes first when an event is handled.
fn echo(version: &str, extra: &str, handler: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (import "edge_v1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "echo")
            {extra}
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param i32 i32) (result i32)
                {handler}
                (call $emit (i32.const 0) (i32.const 4)
                    (i32.add (local.get 0) (i32.load offset=48 (local.get 0))) (i32.load offset=52 (local.get 0))
                    (i32.const 0))
                (i32.const 0)))"#
    );
    pack(&wat::parse_str(module).unwrap(), version)
}

fn pack(module: &[u8], version: &str) -> Vec<u8> {
    let manifest = format!(
        "manifest = 1\nname = \"echo\"\nversion = \"{version}\"\n[[trigger]]\nmqtt = \"sensors/+/temperature\"\n\
         [allow]\nstreams = [\"echo\"]\n"
    );
    Package::pack(module, &manifest).unwrap().bytes().to_vec()
}

/// A system with one good function, `echo` 1.0.0, that has passed its trial.
fn system() -> System {
    let system = System::start(World::new().unwrap(), Inlet::Own, &[]).unwrap();
    deploy(&system, "1.0.0", &echo("1.0.0", "", ""));
    wait_for(&system, "running", |echo| echo.status == "trial");
    publish(&system, "first", 20);
    wait_for(&system, "the trial to pass", |echo| echo.status == "running");
    system
}

/// Answers the number of the deployment.
fn deploy(system: &System, version: &str, package: &[u8]) -> u64 {
    let file = system.world.write(&format!("echo-{version}.wasm"), package).unwrap();
    system.operator.push_file(&file).unwrap();
    let made = system.operator.run(["deploy", &format!("echo@{version}"), "--to", EVERYWHERE]).unwrap();
    made["number"].as_u64().unwrap_or_else(|| panic!("no number in {made}"))
}

fn wait_for(system: &System, what: &str, is: impl Fn(&Function) -> bool) -> Function {
    wait_until(what, DEADLINE, || {
        let functions = system.gateway.status().map_err(|error| format!("{error:#}"))?.functions;
        functions.iter().find(|function| is(function)).cloned().ok_or(format!("{functions:?}"))
    })
    .unwrap()
}

fn publish(system: &System, device: &str, readings: usize) -> Summary {
    let mut device: Device = system.device(device, None, 1_000.0, Some(readings)).unwrap();
    device.finish(DEADLINE).unwrap()
}

fn assert_every_event_once(system: &System, devices: &[Summary]) {
    system.gateway.wait_until_drained(DEADLINE).unwrap();
    let records = system.cloud.records("echo").unwrap();
    let of_devices: Vec<_> =
        records.into_iter().filter(|record| devices.iter().any(|device| device.device == record.device)).collect();
    oracle::assert_exact(devices, &of_devices);
}

#[test]
fn a_version_that_traps_on_its_first_events_is_sent_back_and_no_event_is_lost() {
    let system = system();
    deploy(&system, "2.0.0", &echo("2.0.0", "", "(unreachable)"));
    wait_for(&system, "the new version", |echo| echo.status == "trial" && echo.version == "2.0.0");
    let device = publish(&system, "second", 50);
    let echo = wait_for(&system, "the rollback", |echo| echo.status == "rolled_back");
    assert_eq!(echo.version, "1.0.0");
    assert!(echo.detail.contains("echo") && echo.detail.contains("unreachable"), "{}", echo.detail);
    assert_every_event_once(&system, &[device]);
    assert_eq!(system.gateway.status().unwrap().dead_letters, 0);

    // The control plane knows it too.
    let gateways = system.operator.run(["gateways"]).unwrap();
    let reported = &gateways["gateways"][0]["reported"]["functions"][0];
    assert_eq!((&reported["status"], &reported["version"]), (&"rolled_back".into(), &"1.0.0".into()));
}

#[test]
fn what_cannot_be_loaded_never_replaces_what_runs() {
    let system = system();
    let hostile = [
        ("2.0.1", pack(&wat::parse_str("(module)").unwrap(), "2.0.1"), "memory"),
        ("2.0.2", echo("2.0.2", "(func $start unreachable) (start $start)", ""), "start"),
        ("2.0.3", pack(&wat::parse_str("(module (memory (export \"memory\") 65536))").unwrap(), "2.0.3"), "memory"),
        ("2.0.4", pack(b"\0asm\x01\0\0\0\x0a\x04\x01\x02\xff\xff", "2.0.4"), ""),
        ("2.0.5", pack(&wat::parse_str(r#"(module (import "edge_v9" "emit" (func)))"#).unwrap(), "2.0.5"), "version 9"),
    ];
    for (version, package, cause) in hostile {
        let deployment = deploy(&system, version, &package);
        let refused = format!("{version} to be refused");
        let echo = wait_for(&system, &refused, |echo| echo.status == "rolled_back" && echo.deployment == deployment);
        assert_eq!(echo.version, "1.0.0", "{version}");
        assert!(echo.detail.contains("echo") && echo.detail.contains(cause), "{version}: {}", echo.detail);
        let device = publish(&system, &format!("after-{}", version.replace('.', "-")), 30);
        assert_every_event_once(&system, &[device]);
    }
    // And a good one still takes over.
    deploy(&system, "3.0.0", &echo("3.0.0", "", ""));
    wait_for(&system, "the good version", |echo| echo.status == "trial" && echo.version == "3.0.0");
}

#[test]
fn a_function_that_nobody_trusted_signed_does_not_run() {
    let system = System::start(World::new().unwrap(), Inlet::Own, &[]).unwrap();
    let file = system.world.write("echo.wasm", echo("1.0.0", "", "")).unwrap();
    let key = system.world.path("stranger.key");
    let stranger = key.to_str().unwrap();
    system.operator.run(["key", "new", "--out", stranger]).unwrap();
    system.operator.run(["push", file.to_str().unwrap(), "--key", stranger]).unwrap();
    system.operator.deploy("echo", EVERYWHERE).unwrap();
    let echo = wait_for(&system, "the refusal", |echo| echo.status == "failed");
    assert!(echo.detail.contains("does not trust"), "{}", echo.detail);
    assert_eq!(echo.version, "");
}

#[test]
fn a_deployment_survives_a_restart_without_a_link_and_can_be_taken_back() {
    let mut system = system();
    system.link.cut();
    system.gateway.kill9();
    system.gateway.start().unwrap();
    let device = publish(&system, "offline", 30);
    system.link.restore().unwrap();
    assert_every_event_once(&system, &[device]);

    system.operator.run(["undeploy", "echo", "--to", EVERYWHERE]).unwrap();
    system.gateway.wait_for_functions(&[], DEADLINE).unwrap();
}

#[test]
fn a_configuration_that_names_a_missing_function_stops_the_agent_before_it_listens() {
    let world = World::new().unwrap();
    let config = "[gateway]\ndata_dir = \"data\"\n[mqtt.listen]\naddress = \"127.0.0.1:0\"\n[[function]]\npath = \"gone.wasm\"\n";
    let config = world.write("agent.toml", config).unwrap();
    let output = Command::new(binary("edge-agent").unwrap()).args(["run", "--config"]).arg(config).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("gone.wasm") && log.contains("[[function]]"), "{log}");
    assert!(!log.contains("listens"), "{log}");
}
