//! Keys, claims, and what goes wrong before anything is sent.

use std::os::unix::fs::PermissionsExt;

use function_package::{PublicKey, SigningKey};

use crate::world::{Done, World, bare};

#[test]
fn a_key_is_for_its_owner_only_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Done::from(bare(dir.path(), args).output().unwrap());
    let made = run(&["--json", "key", "new", "--out", "k"]);
    assert_eq!(made.status, 0, "{}", made.stderr);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let (secret, public) = (dir.path().join("k"), dir.path().join("k.pub"));
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&secret).unwrap();
    let key = SigningKey::from_text(&text).unwrap();
    let found: PublicKey = std::fs::read_to_string(&public).unwrap().trim().parse().unwrap();
    assert_eq!(found, key.public_key());
    assert_eq!(made["key_id"], key.public_key().key_id().to_string());
    assert!(!made.to_string().contains("secret-key-v1"), "the secret is printed nowhere");

    let again = run(&["key", "new", "--out", "k"]);
    assert!(again.status == 3 && again.stderr.contains("not overwritten"), "{}", again.stderr);
    std::fs::remove_file(&secret).unwrap();
    assert_eq!(run(&["key", "new", "--out", "k"]).status, 3, "nor is the public half");
    assert!(!secret.exists());
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Done::from(bare(dir.path(), args).output().unwrap());
    for usage in
        [&["fly"][..], &["deploy", "x"], &["deploy", "x", "--to", "site=a"], &["claim", "new", "--expires", "1w"]]
    {
        assert_eq!(run(usage).status, 2, "{usage:?}");
    }
    let none = run(&["gateways"]);
    assert!(none.status == 3 && none.stderr.contains("--token-file"), "{}", none.stderr);
    let file = run(&["gateways", "--token-file", "nowhere"]);
    assert!(file.status == 3 && file.stderr.contains("nowhere"), "{}", file.stderr);
    // Port 9 of this machine, where nothing listens.
    let mut gone = bare(dir.path(), &["gateways", "--server", "http://127.0.0.1:9"]);
    let gone = Done::from(gone.env("EDGECTL_TOKEN", "x").output().unwrap());
    assert!(
        gone.status == 4 && gone.stderr.contains("127.0.0.1:9") && gone.stderr.contains("refused"),
        "{}",
        gone.stderr
    );
    let mut ftp = bare(dir.path(), &["gateways", "--server", "ftp://x"]);
    let ftp = Done::from(ftp.env("EDGECTL_TOKEN", "x").output().unwrap());
    assert!(ftp.status == 2 && ftp.stderr.contains("ftp"), "{}", ftp.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_printed_alone_and_makes_a_gateway() {
    let world = World::new().await;
    let token = world.text(&["claim", "new", "--label", "site=north", "--label", "line=4", "--expires", "30m"]);
    assert!(token.starts_with("edge-claim-") && token.lines().count() == 1, "{token}");
    assert_eq!(world.json(&["claim", "list"])["claims"][0]["state"], "open");

    let gateway = world.gateway(&["--label", "site=north"]).await;
    let list = world.json(&["gateways"]);
    let shown = &list["gateways"][0];
    assert_eq!((shown["id"].as_str(), shown["health"].as_str()), (Some(gateway.id.as_str()), Some("never_seen")));
    assert_eq!(shown["labels"], serde_json::json!({"site": "north"}));
    let table = world.text(&["gateways"]);
    assert!(table.contains(&gateway.id) && table.contains("site=north") && table.contains("never_seen"), "{table}");

    let changed = world.json(&["gateway", "label", &gateway.id, "site=", "rack=r/1"]);
    assert_eq!(changed["labels"], serde_json::json!({"rack": "r/1"}));
    let unknown = world.fails(&["gateway", "label", "gw-none", "a=b"]);
    assert!(unknown.contains("gw-none") && unknown.contains("unknown_gateway"), "{unknown}");
    assert_eq!(world.json(&["stats"])["gateways"], 1);

    let mut wrong = world.command(&["gateways"]);
    let wrong = Done::from(wrong.env_remove("EDGECTL_TOKEN_FILE").env("EDGECTL_TOKEN", "wrong").output().unwrap());
    assert!(wrong.status == 1 && wrong.stderr.contains("unknown_token"), "{}", wrong.stderr);
}
