//! Bodies that are compressed.

use sync_core::api::RecordCounts;
use sync_protocol::{ENCODING, MAX_BODY_BYTES, PATH_SYNC, compress, encode, fleet};

use crate::records::{counts, sequences};
use crate::world::{World, message, range, refused};

#[tokio::test]
async fn a_compressed_body_is_as_good_as_another() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let request = range(1, 500, 1);
    let body = compress(&encode(&request));
    assert!(4 * body.len() < encode(&request).len(), "records look alike");
    assert_eq!(gateway.send_as(&request, body.clone(), &[ENCODING]).await, Ok(500));
    assert_eq!(gateway.send_as(&request, body, &["ZSTD"]).await, Ok(500), "names of encodings have no case");
    assert_eq!(gateway.send(&request).await, Ok(500));
    let expected = RecordCounts { stored: 500, duplicates: 1_000, ..RecordCounts::default() };
    assert_eq!(counts(&world, &gateway).await, expected);

    let ask = fleet::Request { generation: 0, wait_s: 0, commands_done: 0, report: None };
    let sent = gateway.post(PATH_SYNC, compress(&encode(&ask))).header("content-encoding", ENCODING);
    assert!(matches!(message::<fleet::Reply>(sent).await, Ok(fleet::Reply::Desired(_))), "any body may be");
}

#[tokio::test]
async fn other_encodings_are_refused_by_name() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let request = range(1, 2, 1);
    let body = compress(&encode(&request));
    for wrong in [&["gzip"][..], &["br"], &[""], &["zstd, zstd"], &["zstd", "zstd"], &["identity", "zstd"]] {
        let answer = gateway.send_as(&request, body.clone(), wrong).await;
        assert_eq!(answer, refused(415, "content_encoding"), "{wrong:?}");
    }
    assert_eq!(gateway.send_as(&request, body.clone(), &[]).await, refused(400, "protocol_version"), "not said");
    assert_eq!(gateway.send_as(&request, encode(&request), &[ENCODING]).await, refused(400, "malformed"), "not done");
    assert_eq!(gateway.send_as(&request, body[..9].to_vec(), &[ENCODING]).await, refused(400, "malformed"), "cut");
    assert_eq!(gateway.send_as(&request, vec![], &[ENCODING]).await, refused(400, "malformed"));
    assert_eq!(gateway.send_as(&request, compress(&body), &[ENCODING]).await, refused(400, "protocol_version"));
    assert_eq!(counts(&world, &gateway).await, RecordCounts::default());
    assert_eq!(sequences(&world).await, Vec::<u64>::new());
}

#[tokio::test]
async fn few_bytes_cannot_become_many() {
    let world = World::new().await;
    let gateway = world.api.gateway(&[]).await;
    let request = range(1, 2, 1);
    let bomb = compress(&vec![1; 64 * MAX_BODY_BYTES]);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    assert_eq!(gateway.send_as(&request, bomb, &[ENCODING]).await, refused(413, "too_large"));
    let just_too_large = compress(&vec![1; MAX_BODY_BYTES + 1]);
    assert_eq!(gateway.send_as(&request, just_too_large, &[ENCODING]).await, refused(413, "too_large"));
    assert_eq!(gateway.send(&request).await, Ok(2), "and the gateway goes on");
}
