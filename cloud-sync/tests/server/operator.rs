//! The operator's interface.

use function_package::SigningKey;
use reqwest::Method;
use sync_core::api::{self, Body, RecordQuery};

use crate::world::{Api, World, changed, client, json, package, push, range, record, refused};

#[tokio::test]
async fn nothing_is_shown_without_the_token() {
    let world = World::new().await;
    for token in ["", "x", &world.api.token[..20]] {
        let other = Api { token: token.to_owned(), ..world_api(&world) };
        let lists = ["claims", "gateways", "publishers", "functions", "deployments", "records", "streams", "stats"];
        for path in lists.into_iter().chain(["gateways/x", "gateways/x/gaps"]) {
            let answer = other.get::<serde_json::Value>(&format!("/{path}")).await;
            assert_eq!(answer, refused(401, "unknown_token"), "{path}");
        }
        let answer = other.post::<serde_json::Value>("/claims", ()).await;
        assert_eq!(answer, refused(401, "unknown_token"));
    }
    let gateway = world.api.gateway(&[]).await;
    let other = Api { token: gateway.credential, ..world_api(&world) };
    assert_eq!(other.get::<serde_json::Value>("/stats").await, refused(401, "unknown_token"));
    let bare = client().get(format!("{}/api/v1/stats", world.api.base));
    assert_eq!(json::<serde_json::Value>(bare).await, refused(401, "unknown_token"));
}

fn world_api(world: &World) -> Api {
    Api::new(world.server.address(), world.dir.path())
}

#[tokio::test]
async fn the_token_is_for_its_owner_only_and_stays() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    let path = world.dir.path().join(cloud_sync::OPERATOR_TOKEN_FILE);
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = world.api.token.clone();
    assert_eq!(world.restart().await.api.token, before);
}

#[tokio::test]
async fn one_directory_is_served_once() {
    let world = World::new().await;
    let config = cloud_sync::Config { data: world.dir.path().to_owned(), listen: "127.0.0.1:0".parse().unwrap() };
    assert!(matches!(cloud_sync::serve(&config).await, Err(cloud_sync::ServeError::InUse(_))));
}

#[tokio::test]
async fn pages_lead_through_all_records_that_match_once() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    gateway.send(&range(1, 25, 1)).await.unwrap();

    let walk = async |query: RecordQuery| {
        let (mut query, mut sequences, mut pages) = (query, Vec::new(), 0);
        loop {
            let page = world.api.page(&query).await.unwrap();
            sequences.extend(page.records.iter().map(|record| record.sequence));
            pages += 1;
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return (sequences, pages, page.resume),
            }
        }
    };
    let all = RecordQuery { limit: Some(10), ..RecordQuery::default() };
    let (sequences, pages, resume) = walk(all.clone()).await;
    assert_eq!((sequences, pages), ((1..=25).collect(), 3));
    let even = RecordQuery { stream: Some("even".into()), limit: Some(4), ..RecordQuery::default() };
    assert_eq!(walk(even.clone()).await.0, (1..=12).map(|n| 2 * n).collect::<Vec<_>>());
    let device = RecordQuery { device: Some("dev-1".into()), ..RecordQuery::default() };
    assert_eq!(walk(device.clone()).await.0, (0..=8).map(|n| 3 * n + 1).collect::<Vec<_>>());
    let both = RecordQuery { stream: Some("even".into()), ..device };
    assert_eq!(walk(both).await.0, [4, 10, 16, 22]);
    let time = RecordQuery { from: Some(5_000), to: Some(8_000), ..all.clone() };
    assert_eq!(walk(time).await.0, [5, 6, 7], "from is included, to is not");
    for none in [
        RecordQuery { stream: Some("none".into()), ..all.clone() },
        RecordQuery { device: Some("none".into()), ..all.clone() },
        RecordQuery { gateway: Some("none".into()), ..all.clone() },
        RecordQuery { function: Some("none".into()), ..all.clone() },
    ] {
        assert_eq!(walk(none).await.0, Vec::<u64>::new());
    }

    // Going on later.
    gateway.send(&range(26, 2, 1)).await.unwrap();
    assert_eq!(walk(RecordQuery { cursor: Some(resume), ..all.clone() }).await.0, [26, 27]);

    for (limit, cursor, code) in [(0, None, "bad_limit"), (1_001, None, "bad_limit"), (1, Some("zz"), "bad_cursor")] {
        let query = RecordQuery { limit: Some(limit), cursor: cursor.map(str::to_owned), ..RecordQuery::default() };
        assert_eq!(world.api.page(&query).await.map(drop), refused(400, code));
    }
    let answer = json::<api::Page>(world.api.request(Method::GET, "/records?sream=even")).await;
    assert_eq!(answer.map(drop), refused(400, "bad_query"));
}

#[tokio::test]
async fn a_record_is_shown_as_it_was_sent() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let sent = changed(range(1, 2, 1), |sequence, record| {
        if sequence == 2 {
            record.body = vec![0, 255];
            record.origin.identity = None;
            record.stamp.synchronised = false;
        }
    });
    gateway.send(&sent).await.unwrap();

    let page = world.api.page(&RecordQuery::default()).await.unwrap();
    let [first, second] = page.records.as_slice() else { panic!() };
    let Body::Json(body) = &first.body else { panic!() };
    assert_eq!(body.get().as_bytes(), record(1, "a").body);
    assert!(matches!(&second.body, Body::Hex(hex) if hex == "00ff"));
    assert_eq!((first.gateway.as_str(), first.epoch.as_str()), (gateway.id.as_str(), "fedcba9876543210"));
    let identity = first.identity.as_ref().unwrap();
    assert_eq!((identity.boot_epoch.as_str(), identity.sequence.as_str()), ("18446744073709551615", "1"));
    assert_eq!(second.identity, None);
    assert_eq!((first.device.as_str(), first.topic.as_str()), ("dev-1", "sensors/temperature"));
    assert_eq!((first.wall_us, first.monotonic_us, first.boot.as_str()), (1_000, 7, "18446744073709551614"));
    assert_eq!((first.clock_synchronised, second.clock_synchronised), (true, false));
    assert!(first.intact && second.intact && first.received_us > 1_700_000_000_000_000);
}

#[tokio::test]
async fn a_record_that_changed_on_the_disk_is_shown_as_damaged() {
    let world = World::new().await;
    world.api.gateway(&[]).await.send(&range(1, 2, 1)).await.unwrap();
    let World { dir, server, .. } = world;
    server.stop().await;
    let database = rusqlite::Connection::open(dir.path().join("cloud-sync.sqlite")).unwrap();
    assert_eq!(database.execute("UPDATE records SET body = x'7b7d' WHERE sequence = 1", []), Ok(1));
    drop(database);
    let page = World::on(dir).await.api.page(&RecordQuery::default()).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.intact).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_large_page_is_cut_by_its_bytes() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    for first in [1, 3, 5] {
        let sent = changed(range(first, 2, 1), |_, record| record.body = vec![b'x'; 1 << 20]);
        gateway.send(&sent).await.unwrap();
    }
    let page = world.api.page(&RecordQuery::default()).await.unwrap();
    assert_eq!(page.records.len(), 4);
    let rest = world.api.page(&RecordQuery { cursor: page.next, ..RecordQuery::default() }).await.unwrap();
    assert_eq!((rest.records.len(), rest.next), (2, None));
}

#[tokio::test]
async fn a_version_is_pushed_once_and_signatures_of_known_keys_are_checked() {
    let world = World::new().await;
    let (mine, key, other) =
        (package("alert", "1.0.0"), SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let publisher = serde_json::json!({"public_key": key.public_key().to_string()});
    let known: api::Publisher = world.api.post("/publishers", &publisher).await.unwrap();
    assert_eq!(known.key_id, key.public_key().key_id().to_string());
    let list: api::Publishers = world.api.get("/publishers").await.unwrap();
    assert_eq!(list.publishers, [known]);

    let of_another = key.sign(&package("alert", "2.0.0").digest());
    assert_eq!(world.api.push(&mine, &of_another).await, refused(422, "bad_signature"));
    let signature = key.sign(&mine.digest());
    let pushed = world.api.push(&mine, &signature).await.unwrap();
    assert!(pushed.verified);
    assert_eq!(world.api.push(&mine, &signature).await, Ok(pushed.clone()), "the same again is fine");
    assert_eq!(world.api.push(&mine, &other.sign(&mine.digest())).await, refused(409, "signed_otherwise"));
    let changed = function_package::Package::pack(
        b"\0asm\x01\0\0\0\x00\x02\x01x",
        "manifest = 1\nname = \"alert\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"a\"",
    )
    .unwrap();
    assert_eq!(world.api.push(&changed, &key.sign(&changed.digest())).await, refused(409, "version_exists"));
    let functions: api::Functions = world.api.get("/functions").await.unwrap();
    assert_eq!(functions.functions, [pushed]);

    let post = |query: &str, body: Vec<u8>| {
        json::<api::Function>(world.api.request(Method::POST, &format!("/functions{query}")).body(body))
    };
    assert_eq!(post("", vec![]).await, refused(400, "bad_query"));
    assert_eq!(post("?signature=abc", vec![]).await, refused(400, "bad_signature"));
    let query = format!("?signature={signature}");
    assert_eq!(post(&query, b"hello".to_vec()).await, refused(400, "bad_package"));
    let large = vec![0; function_package::MAX_PACKAGE_BYTES + 1];
    assert_eq!(post(&query, large).await, refused(413, "too_large"));
    let bad_key = serde_json::json!({"public_key": "edge-public-key-v1:00"});
    let answer = world.api.post::<api::Publisher>("/publishers", bad_key).await;
    assert_eq!(answer, refused(400, "bad_public_key"));
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_by_name() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    push(&world.api, "alert", "1.0.0").await;
    let generation = gateway.desired(0).await.unwrap().generation;
    let other = package("other", "1.0.0").digest().to_string();
    for (function, target, status, code) in [
        ("none", "all", 404, "unknown_function"),
        ("alert@9.0.0", "all", 404, "unknown_function"),
        (other.as_str(), "all", 404, "unknown_function"),
        ("sha256:xyz", "all", 400, "bad_function"),
        ("alert", "everywhere", 400, "bad_target"),
        ("alert", "label:site", 400, "bad_target"),
        ("alert", "gateway:none", 404, "unknown_gateway"),
    ] {
        assert_eq!(world.api.deploy(function, target).await, refused(status, code), "{function} to {target}");
    }
    assert_eq!(world.api.undeploy("none", "all").await, refused(404, "unknown_function"));
    let post = async |body: serde_json::Value| world.api.post::<api::Deployment>("/deployments", body).await;
    let config =
        |key: &str, value: &str| serde_json::json!({"function": "alert", "target": "all", "config": {key: value}});
    assert_eq!(post(config("limits", "3")).await, refused(400, "bad_config"));
    assert_eq!(post(config("limit", "hot")).await, refused(400, "bad_config"));
    assert_eq!(post(serde_json::json!({"function": "alert"})).await, refused(400, "bad_json"));
    assert_eq!(post(serde_json::json!({"function": "alert", "target": "all", "x": 1})).await, refused(400, "bad_json"));
    assert_eq!(gateway.desired(generation).await, None, "nothing of this changed anything");
    assert!(post(config("limit", "3")).await.is_ok());
}

#[tokio::test]
async fn claims_and_paths_are_checked() {
    let world = World::new().await;
    let post = async |body: serde_json::Value| world.api.post::<api::Claim>("/claims", body).await.map(drop);
    assert_eq!(post(serde_json::json!({"expires_s": 0})).await, refused(400, "bad_expiry"));
    assert_eq!(post(serde_json::json!({"expires_s": 99_999_999})).await, refused(400, "bad_expiry"));
    assert_eq!(post(serde_json::json!({"expires_s": 9, "labels": {"a b": "c"}})).await, refused(400, "bad_label"));
    assert_eq!(post(serde_json::json!("x".repeat(600_000))).await, refused(413, "too_large"));
    assert_eq!(world.api.get::<api::Claims>("/clams").await, refused(404, "unknown_path"));
    let answer = json::<api::Stats>(world.api.request(Method::POST, "/stats")).await;
    assert_eq!(answer, refused(405, "wrong_method"));
    let path = "/gateways/none";
    let answer = json::<api::Gateway>(world.api.request(Method::PATCH, path).json(&serde_json::json!({"labels": {}})));
    assert_eq!(answer.await, refused(404, "unknown_gateway"));
    assert_eq!(world.api.get::<api::GatewayDetail>(path).await, refused(404, "unknown_gateway"));
    assert_eq!(world.api.get::<api::Gaps>("/gateways/none/gaps").await, refused(404, "unknown_gateway"));
}
