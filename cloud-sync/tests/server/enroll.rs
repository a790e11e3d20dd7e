//! Claims and credentials.

use sync_core::api::{Claim, ClaimState, Claims, NewClaim};
use sync_protocol::fleet;

use crate::world::{Gateway, World, client, enroll_request, message, refused, wait_for};

#[tokio::test]
async fn a_claim_makes_one_gateway_and_answers_the_same_nonce_again() {
    let world = World::new().await;
    let claim = world.api.claim(&[("site", "north")]).await;
    let first = world.api.enroll(&enroll_request(&claim, 1)).await.unwrap();
    let again = world.api.enroll(&enroll_request(&claim, 1)).await.unwrap();
    assert_eq!(again, first, "an answer that was lost is given again");
    assert_eq!(world.api.enroll(&enroll_request(&claim, 2)).await, refused(403, "claim_used"));
    assert_eq!(world.api.enroll(&enroll_request("edge-claim-0", 1)).await, refused(403, "claim_unknown"));

    let other = world.api.gateway(&[]).await;
    assert_ne!((&other.id, &other.credential), (&first.gateway, &first.credential));

    // Also by a control plane that was started again.
    let world = world.restart().await;
    assert_eq!(world.api.enroll(&enroll_request(&claim, 1)).await.unwrap(), first);
    let state = world.api.gateway_state(&first.gateway).await;
    assert_eq!(state.labels["site"], "north");
    assert_eq!((state.name.as_str(), state.agent_version.as_str()), ("hall 3", "0.1.0"));
    assert_eq!(state.health, sync_core::health::Health::NeverSeen);
    let claims: Claims = world.api.get("/claims").await.unwrap();
    let states: Vec<_> = claims.claims.iter().map(|claim| (claim.state, claim.gateway.as_deref())).collect();
    assert_eq!(states, [(ClaimState::Used, Some(other.id.as_str())), (ClaimState::Used, Some(first.gateway.as_str()))]);
}

#[tokio::test]
async fn two_enrolments_at_once_share_no_claim() {
    let world = World::new().await;
    let claim = world.api.claim(&[]).await;
    let (one, two) = (enroll_request(&claim, 1), enroll_request(&claim, 2));
    let (one, two) = tokio::join!(world.api.enroll(&one), world.api.enroll(&two));
    let used = [one, two].into_iter().filter(|answer| *answer == refused(403, "claim_used")).count();
    assert_eq!(used, 1);
}

#[tokio::test]
async fn a_claim_ends() {
    let world = World::new().await;
    let wanted = NewClaim { labels: Default::default(), expires_s: 1 };
    let claim: Claim = world.api.post("/claims", wanted).await.unwrap();
    wait_for("the end of the claim", || async {
        let list: Claims = world.api.get("/claims").await.unwrap();
        (list.claims[0].state == ClaimState::Expired).then_some(())
    })
    .await;
    assert_eq!(world.api.enroll(&enroll_request(&claim.claim, 1)).await, refused(403, "claim_expired"));
}

#[tokio::test]
async fn nothing_is_done_without_the_right_credential() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let ask = fleet::Request { generation: 0, wait_s: 0, commands_done: 0, report: None };
    let with = |credential: &str| Gateway { credential: credential.to_owned(), ..gateway.clone() };
    for wrong in ["", "edge-gateway-00", &world.api.token, &gateway.credential[..70]] {
        assert_eq!(with(wrong).sync(&ask).await, refused(401, "unknown_credential"), "{wrong:?}");
        assert_eq!(with(wrong).artifact("x").await, refused(401, "unknown_credential"));
        assert_eq!(with(wrong).send(&crate::world::range(1, 1, 1)).await, refused(401, "unknown_credential"));
    }
    assert!(gateway.sync(&ask).await.is_ok());
}

#[tokio::test]
async fn a_name_that_is_too_long_does_not_use_the_claim_up() {
    let world = World::new().await;
    let claim = world.api.claim(&[]).await;
    let mut request = enroll_request(&claim, 1);
    request.name = "x".repeat(129);
    assert_eq!(world.api.enroll(&request).await, refused(400, "bad_name"));
    request.name = "x".repeat(9_000);
    assert_eq!(world.api.enroll(&request).await, refused(413, "too_large"));
    // Compressed it would be small enough: before anybody proved who he is, few bytes cannot become many.
    let bytes = sync_protocol::compress(&sync_protocol::encode(&request));
    assert!(bytes.len() < 300);
    let sent = client().post(format!("{}{}", world.api.base, sync_protocol::PATH_ENROLL)).body(bytes);
    let sent = sent.header("content-encoding", sync_protocol::ENCODING);
    assert_eq!(message::<()>(sent).await, refused(413, "too_large"));
    assert!(world.api.enroll(&enroll_request(&claim, 1)).await.is_ok());
}
