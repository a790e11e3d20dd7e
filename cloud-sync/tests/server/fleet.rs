//! What should run where, and how gateways learn of it.

use std::time::{Duration, Instant};

use function_package::{Digest, SigningKey};
use reqwest::Method;
use sync_core::api;
use sync_core::health::Health;
use sync_protocol::fleet::{self, FunctionReport, FunctionStatus, MAX_STREAM_REPORTS, Report, StreamReport};

use crate::world::{EPOCH, Gateway, World, json, package, push, refused, wait_for};

/// (name, version) of what should run, and the generation.
async fn desired(gateway: &Gateway) -> (u64, Vec<(String, String)>) {
    let desired = gateway.desired(0).await.unwrap();
    let functions = desired.functions.into_iter().map(|function| (function.name, function.version)).collect();
    (desired.generation, functions)
}

fn names(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
}

#[tokio::test]
async fn the_newest_deployment_that_matches_is_in_force() {
    let world = World::new().await;
    let (a, b) = (world.api.gateway(&[("site", "north")]).await, world.api.gateway(&[]).await);
    for version in ["1.0.0", "1.1.0"] {
        push(&world.api, "alert", version).await;
    }
    push(&world.api, "mean", "2.0.0").await;

    let (start, nothing) = desired(&a).await;
    assert!(start > 0 && nothing.is_empty(), "a gateway that has nothing is told so");
    assert_eq!(a.desired(start).await, None);

    world.api.deploy("alert@1.0.0", "all").await.unwrap();
    world.api.deploy("mean", "label:site=north").await.unwrap();
    let (one, functions) = desired(&a).await;
    assert_eq!(functions, names(&[("alert", "1.0.0"), ("mean", "2.0.0")]));
    assert_eq!(desired(&b).await.1, names(&[("alert", "1.0.0")]));
    assert!(one > start);

    world.api.deploy("alert", &format!("gateway:{}", b.id)).await.unwrap();
    assert_eq!(desired(&b).await.1, names(&[("alert", "1.1.0")]), "without a version: the highest");
    assert_eq!(a.desired(one).await, None, "this one is not concerned");

    world.api.undeploy("alert", "all").await.unwrap();
    let (two, functions) = desired(&a).await;
    assert_eq!(functions, names(&[("mean", "2.0.0")]));
    assert!(two > one);
    assert_eq!(desired(&b).await.1, names(&[]), "the last word counts, whatever its target");

    // Another label, another desired state, a higher generation: also when what then counts is older.
    let relabel = |labels: serde_json::Value| {
        let path = format!("/gateways/{}", a.id);
        json::<api::Gateway>(world.api.request(Method::PATCH, &path).json(&serde_json::json!({"labels": labels})))
    };
    let changed = relabel(serde_json::json!({"site": null, "line": "4"})).await.unwrap();
    assert_eq!(changed.labels, [("line".to_owned(), "4".to_owned())].into());
    let (three, functions) = desired(&a).await;
    assert!(functions.is_empty() && three > two);
    relabel(serde_json::json!({"site": "north"})).await.unwrap();
    let (four, functions) = desired(&a).await;
    assert!(functions == names(&[("mean", "2.0.0")]) && four > three);
    assert_eq!(relabel(serde_json::json!({"a b": "c"})).await, refused(400, "bad_label"));
    assert_eq!(a.desired(four).await, None, "labels that were refused change nothing");

    let world = world.restart().await;
    let list: api::Deployments = world.api.get("/deployments").await.unwrap();
    let list: Vec<_> = list.deployments.iter().map(|d| (d.function.as_str(), d.target.as_str(), d.kind)).collect();
    let to_b = format!("gateway:{}", b.id);
    assert_eq!(
        list,
        [
            ("alert", "all", api::Kind::Remove),
            ("alert", to_b.as_str(), api::Kind::Set),
            ("mean", "label:site=north", api::Kind::Set)
        ]
    );
}

#[tokio::test]
async fn a_gateway_that_waits_is_woken_by_what_concerns_it_only() {
    let world = World::new().await;
    let (a, b) = (world.api.gateway(&[]).await, world.api.gateway(&[]).await);
    push(&world.api, "alert", "1.0.0").await;
    let generation = desired(&a).await.0;

    let waiting = {
        let a = a.clone();
        tokio::spawn(
            async move { a.sync(&fleet::Request { generation, wait_s: 50, commands_done: 0, report: None }).await },
        )
    };
    wait_for("the request that waits", || async {
        (world.api.gateway_state(&a.id).await.health == Health::Online).then_some(())
    })
    .await;
    world.api.deploy("alert", &format!("gateway:{}", b.id)).await.unwrap();
    assert_eq!(a.desired(generation).await, None);
    assert!(!waiting.is_finished());

    let begun = Instant::now();
    let deployment = world.api.deploy("alert", &format!("gateway:{}", a.id)).await.unwrap();
    let fleet::Reply::Desired(desired) = waiting.await.unwrap().unwrap() else { panic!("nothing new") };
    assert!(begun.elapsed() < Duration::from_secs(10), "woken, not timed out");
    assert_eq!(desired.functions[0].deployment, deployment.number);

    // The wait ends by itself, and is cut short when the control plane stops.
    let request = fleet::Request { generation: desired.generation, wait_s: 1, commands_done: 0, report: None };
    let begun = Instant::now();
    assert_eq!(a.sync(&request).await, Ok(fleet::Reply::Unchanged));
    assert!(begun.elapsed() >= Duration::from_millis(900));
    let request = fleet::Request { wait_s: 50, ..request };
    let seen = world.api.gateway_state(&a.id).await.last_seen_us;
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(a.sync(&request), async {
        // Once the writer has seen the request.
        wait_for("the request that waits", || async {
            (world.api.gateway_state(&a.id).await.last_seen_us > seen).then_some(())
        })
        .await;
        world.server.stop().await;
    });
    assert_eq!(answer, Ok(fleet::Reply::Unchanged));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn an_artifact_arrives_as_it_was_signed() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let (package, key) = (package("alert", "1.0.0"), SigningKey::generate().unwrap());
    let pushed = world.api.push(&package, &key.sign(&package.digest())).await.unwrap();
    assert_eq!((pushed.verified, pushed.size), (false, package.bytes().len() as u64));
    let body = serde_json::json!({"function": pushed.digest, "target": "all", "config": {"limit": "31"}});
    world.api.post::<api::Deployment>("/deployments", body).await.unwrap();

    let desired = gateway.desired(0).await.unwrap();
    let [function] = desired.functions.as_slice() else { panic!("{desired:?}") };
    assert_eq!(function.config, [("limit".to_owned(), "31".to_owned())]);
    let digest = Digest::from_bytes(function.digest);
    let bytes = gateway.artifact(&digest.to_string()).await.unwrap();
    assert_eq!(bytes, &**package.bytes());
    let signature = function_package::Signature {
        key_id: function.key_id.parse().unwrap(),
        bytes: function.signature.as_slice().try_into().unwrap(),
    };
    key.public_key().verify(&Digest::of(&bytes), &signature).unwrap();

    assert_eq!(gateway.artifact(&Digest::of(b"other").to_string()).await, refused(404, "unknown_artifact"));
    assert_eq!(gateway.artifact("..%2Fdb").await, refused(400, "bad_digest"));
}

#[tokio::test]
async fn what_runs_is_shown_as_it_was_reported() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let function = |name: &str, digest, status, detail: &str| FunctionReport {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        digest,
        deployment: 4,
        status,
        detail: detail.to_owned(),
    };
    let report = Report {
        agent_version: "0.2.0".to_owned(),
        generation: 1,
        uptime_s: 17,
        epoch: EPOCH,
        waiting: 12,
        streams: vec![StreamReport { name: "even".to_owned(), waiting: 9, bytes: 1_234 }],
        handled: 30,
        dead_letters: 2,
        functions: vec![
            function("alert", [7; 32], FunctionStatus::RolledBack, "alert 1.1.0 trapped"),
            function("mean", [0; 32], FunctionStatus::Failed, ""),
        ],
    };
    let request = fleet::Request { generation: 1, wait_s: 0, commands_done: 0, report: Some(report) };
    gateway.sync(&request).await.unwrap();
    gateway.sync(&fleet::Request { report: None, ..request.clone() }).await.unwrap();
    let mut many = request;
    let report = many.report.as_mut().unwrap();
    report.streams = vec![report.streams[0].clone(); MAX_STREAM_REPORTS + 1];
    assert_eq!(gateway.sync(&many).await, refused(400, "bad_report"));

    let state = world.restart().await.api.gateway_state(&gateway.id).await;
    assert_eq!((state.health, state.agent_version.as_str()), (Health::Online, "0.2.0"));
    let reported = state.reported.unwrap();
    assert_eq!((reported.generation, reported.uptime_s), (1, 17));
    assert_eq!((reported.waiting, reported.handled, reported.dead_letters), (12, 30, 2));
    assert_eq!(reported.streams, [api::StreamReport { name: "even".to_owned(), waiting: 9, bytes: 1_234 }]);
    let [alert, mean] = reported.functions.as_slice() else { panic!() };
    assert_eq!((alert.status, alert.detail.as_str()), (api::Status::RolledBack, "alert 1.1.0 trapped"));
    assert_eq!(alert.digest, Some(Digest::from_bytes([7; 32]).to_string()));
    assert_eq!((mean.status, &mean.digest, mean.deployment), (api::Status::Failed, &None, 4));
}

#[tokio::test]
async fn a_generation_from_before_a_restore_is_passed() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    push(&world.api, "alert", "1.0.0").await;
    let ahead = 1 << 61;
    let generation = gateway.desired(ahead).await.unwrap().generation;
    assert!(generation > ahead, "a database that was put back goes beyond what the gateway has");
    world.api.deploy("alert", "all").await.unwrap();
    assert!(gateway.desired(generation).await.unwrap().generation > generation);
    let absurd = fleet::Request { generation: u64::MAX, wait_s: 0, commands_done: 0, report: None };
    assert_eq!(gateway.sync(&absurd).await, refused(400, "bad_generation"));
}
