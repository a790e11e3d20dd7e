//! Bytes to events, and records to bytes.

use device_wire::{Envelope, MAX_HEADER_BYTES};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sync_protocol::records::{Origin, Record, Stamp};

const PAYLOAD: &[u8] = br#"{"time":"2013-07-04 00:00:00","fahrenheit":69.88}"#;

/// Records of one request.
const RECORDS: u64 = 1_000;

fn envelope() -> Vec<u8> {
    let mut bytes = vec![0; MAX_HEADER_BYTES + PAYLOAD.len()];
    let envelope = Envelope { device: "thermostat-1", boot: 3, sequence: 70_000, payload: PAYLOAD };
    let length = envelope.encode(&mut bytes).expect("room for it");
    bytes.truncate(length);
    bytes
}

#[divan::bench]
fn envelope_decode(bencher: Bencher) {
    let bytes = envelope();
    bencher.bench_local(|| Envelope::decode(black_box(&bytes)).expect("an envelope").expect("one is there").sequence);
}

#[divan::bench]
fn envelope_encode(bencher: Bencher) {
    bencher.bench_local(envelope);
}

fn records() -> Vec<Record> {
    (0..RECORDS)
        .map(|number| Record {
            stream: "temperature".to_owned(),
            function: "unit-conversion".to_owned(),
            origin: Origin {
                device: format!("thermostat-{}", number % 20),
                topic: format!("sensors/thermostat-{}/temperature", number % 20),
                identity: Some((1, number)),
            },
            stamp: Stamp { wall_us: 1_700_000_000_000_000 + number, monotonic_us: number, boot: 1, synchronised: true },
            body: format!(r#"{{"celsius":{}.{}}}"#, number % 40, number * 7_919 % 10_000).into_bytes(),
        })
        .collect()
}

/// What the uplink does with a request, but for reading it.
#[divan::bench]
fn records_encode_and_compress(bencher: Bencher) {
    let records = records();
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench_local(|| sync_protocol::compress(&sync_protocol::encode(black_box(&records))));
}

/// What the control plane does with it, but for storing it.
#[divan::bench]
fn records_decompress_and_decode(bencher: Bencher) {
    let encoded = sync_protocol::encode(&records());
    let compressed = sync_protocol::compress(&encoded);
    bencher.counter(BytesCount::new(encoded.len())).counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let body = sync_protocol::decompress(black_box(&compressed), encoded.len()).expect("what was compressed");
        sync_protocol::decode::<Vec<Record>>(&body).expect("what was encoded")
    });
}
