//! Deploys, and waits for what becomes of it.

use sync_protocol::fleet::FunctionStatus;

use crate::world::{Done, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_made_listed_and_removed() {
    let world = World::new().await;
    let gateway = world.gateway(&["--label", "site=north"]).await;
    world.push("alert", "1.0.0");
    let digest = world.push("alert", "1.1.0");
    let to = format!("gateway:{}", gateway.id);

    let made = world.json(&["deploy", "alert@1.0.0", "--to", "label:site=north", "--config", "limit=31.5"]);
    assert_eq!((&made["version"], &made["config"]), (&"1.0.0".into(), &serde_json::json!({"limit": "31.5"})));
    let by_file = world.json(&["deploy", "./alert-1.1.0.wasm", "--to", &to]);
    assert_eq!((&by_file["digest"], &by_file["target"]), (&digest.as_str().into(), &to.as_str().into()));
    assert!(world.text(&["deploy", &digest, "--to", "all"]).contains("alert 1.1.0 to all"));
    assert_eq!(world.json(&["gateways"])["gateways"][0]["desired"][0]["version"], "1.1.0");
    assert_eq!(world.json(&["undeploy", "alert", "--to", "all"])["kind"], "remove");
    assert_eq!(world.json(&["gateways"])["gateways"][0]["desired"], serde_json::json!([]));
    let list = world.text(&["deployments"]);
    assert!(list.lines().count() == 4 && list.contains("limit=31.5") && list.contains("remove"), "{list}");

    let unknown = world.fails(&["deploy", "none", "--to", "all"]);
    assert!(unknown.contains("deploying none to all") && unknown.contains("unknown_function"), "{unknown}");
    assert!(world.fails(&["deploy", "alert", "--to", "all", "--config", "limits=1"]).contains("bad_config"));
    let missing = world.run(&["deploy", "no/such.wasm", "--to", "all"]);
    assert!(missing.status == 3 && missing.stderr.contains("no/such.wasm"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_gateway_has_decided() {
    let world = World::new().await;
    let gateway = world.gateway(&[]).await;
    world.push("alert", "1.0.0");
    world.push("alert", "1.1.0");
    let deploy = |version: &str| {
        let mut command =
            world.command(&["deploy", &format!("alert@{version}"), "--to", "all", "--wait", "--timeout", "60s"]);
        tokio::task::spawn_blocking(move || Done::from(command.output().unwrap()))
    };
    let start = gateway.follow(0, |_| (FunctionStatus::Running, "")).await;

    let waiting = deploy("1.0.0");
    let generation = gateway.follow(start, |_| (FunctionStatus::Running, "")).await;
    let done = waiting.await.unwrap();
    assert_eq!(done.status, 0, "{}", done.stderr);
    let table = world.text(&["gateways"]);
    assert!(table.contains("alert@1.0.0 running") && table.contains("online"), "{table}");

    let waiting = deploy("1.1.0");
    gateway.follow(generation, |_| (FunctionStatus::RolledBack, "alert 1.1.0 trapped: unreachable")).await;
    let done = waiting.await.unwrap();
    assert_eq!(done.status, 1);
    assert!(done.stderr.contains(&gateway.id) && done.stderr.contains("trapped: unreachable"), "{}", done.stderr);
    assert!(world.text(&["gateways"]).contains("trapped: unreachable"));

    let nobody = world.fails(&["deploy", "alert", "--to", "label:site=none", "--wait", "--timeout", "1s"]);
    assert!(nobody.contains("no gateway is meant by label:site=none"), "{nobody}");
}
