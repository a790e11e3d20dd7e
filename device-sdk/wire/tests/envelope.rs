//! The envelope's bytes: round trips, truncation, arbitrary bytes, and each error by name.

use device_wire::{
    DecodeError, DeviceNameError, EncodeError, Envelope, MAGIC, MAX_DEVICE_BYTES, MAX_HEADER_BYTES, VERSION,
    check_device,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = vec![0; MAX_HEADER_BYTES + envelope.payload.len()];
    let length = envelope.encode(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// An envelope's header with these bytes after the version.
fn with_header(header: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &[VERSION], header].concat()
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(
        device in "[-A-Za-z0-9_.:]{1,64}",
        boot: u32,
        sequence in 1..=u64::MAX,
        payload in vec(any::<u8>(), 0..300),
    ) {
        let envelope = Envelope { device: &device, boot, sequence, payload: &payload };
        let bytes = encoded(&envelope);
        prop_assert_eq!(bytes.len(), envelope.encoded_len());
        prop_assert!(bytes.len() <= MAX_HEADER_BYTES + payload.len());
        prop_assert_eq!(Envelope::decode(&bytes), Ok(Some(envelope)));
    }

    #[test]
    fn a_truncated_header_is_refused(
        device in "[-A-Za-z0-9_.:]{1,64}",
        boot: u32,
        sequence in 1..=u64::MAX,
    ) {
        let bytes = encoded(&Envelope { device: &device, boot, sequence, payload: b"" });
        for length in MAGIC.len()..bytes.len() {
            prop_assert_eq!(Envelope::decode(&bytes[..length]), Err(DecodeError::Truncated));
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused(
        sequence in 1..=u64::MAX,
        payload in vec(any::<u8>(), 0..50),
        short in 1usize..60,
    ) {
        let envelope = Envelope { device: "d", boot: 1, sequence, payload: &payload };
        let needed = envelope.encoded_len();
        let available = needed.saturating_sub(short);
        let mut buffer = vec![0; available];
        prop_assert_eq!(envelope.encode(&mut buffer), Err(EncodeError::BufferTooSmall { needed, available }));
    }

    /// Whatever decodes has exactly one encoding; nothing panics.
    #[test]
    fn arbitrary_bytes_decode_to_what_encodes_to_them(header in vec(any::<u8>(), 0..120)) {
        let bytes = with_header(&header);
        if let Ok(envelope) = Envelope::decode(&bytes) {
            let envelope = envelope.expect("the magic is there");
            prop_assert_eq!(encoded(&envelope), bytes);
        }
    }

    /// The same, from bytes that are mostly valid: a name, then bytes that look like varints.
    #[test]
    fn nearly_valid_bytes_decode_to_what_encodes_to_them(
        device in "[a-z]{1,3}",
        numbers in vec(prop_oneof![Just(0x80u8), Just(0), Just(1), Just(0xFF), any::<u8>()], 0..20),
    ) {
        let mut header = vec![device.len() as u8];
        header.extend_from_slice(device.as_bytes());
        header.extend_from_slice(&numbers);
        let bytes = with_header(&header);
        if let Ok(envelope) = Envelope::decode(&bytes) {
            let envelope = envelope.expect("the magic is there");
            prop_assert_eq!(encoded(&envelope), bytes);
        }
    }

    #[test]
    fn text_is_a_plain_payload(text: String) {
        prop_assert_eq!(Envelope::decode(text.as_bytes()), Ok(None));
    }
}

#[test]
fn shorter_than_the_magic_is_a_plain_payload() {
    assert_eq!(Envelope::decode(b""), Ok(None));
    assert_eq!(Envelope::decode(b"\xFF"), Ok(None));
    assert_eq!(Envelope::decode(b"\xFFE"), Ok(None));
}

#[test]
fn the_longest_header_has_the_length_that_is_promised() {
    let device = "d".repeat(MAX_DEVICE_BYTES);
    let longest = Envelope { device: &device, boot: u32::MAX, sequence: u64::MAX, payload: b"" };
    assert_eq!(encoded(&longest).len(), MAX_HEADER_BYTES);
}

#[test]
fn malformed_envelopes_are_named() {
    let decode = |header: &[u8]| Envelope::decode(&with_header(header)).map(|_| ());
    assert_eq!(decode(b"\x01d\x01\x01payload"), Ok(()));
    assert_eq!(decode(b"\x00\x01\x01"), Err(DecodeError::Device(DeviceNameError::Empty)));
    assert_eq!(
        decode(b"\x01/\x01\x01"),
        Err(DecodeError::Device(DeviceNameError::Character { character: '/', at: 0 }))
    );
    assert_eq!(decode(b"\x01\xFF\x01\x01"), Err(DecodeError::DeviceNotText));
    assert_eq!(decode(b"\x01d\x01\x00"), Err(DecodeError::ZeroSequence));
    assert_eq!(decode(b"\x01d\x80\x00\x01"), Err(DecodeError::Varint), "padded boot");
    assert_eq!(decode(b"\x81\x00d\x01\x01"), Err(DecodeError::Varint), "padded length");
    assert_eq!(decode(b"\x01d\xFF\xFF\xFF\xFF\x1F\x01"), Err(DecodeError::Varint), "33 bits of boot");
    assert_eq!(decode(b"\x7Fd\x01\x01"), Err(DecodeError::Truncated), "a name beyond the end");
    let long = [&[65][..], &[b'd'; 65], &[1, 1]].concat();
    assert_eq!(decode(&long), Err(DecodeError::Device(DeviceNameError::TooLong { bytes: 65 })));
    assert_eq!(Envelope::decode(b"\xFFEV\x02\x01d\x01\x01"), Err(DecodeError::UnknownVersion { version: 2 }));
}

#[test]
fn what_may_not_be_sent_is_not_encoded() {
    let good = Envelope { device: "d", boot: 0, sequence: 1, payload: b"" };
    let mut out = [0; 200];
    assert_eq!(good.encode(&mut out), Ok(8));
    let zero = Envelope { sequence: 0, ..good };
    assert_eq!(zero.encode(&mut out), Err(EncodeError::ZeroSequence));
    let nameless = Envelope { device: "", ..good };
    assert_eq!(nameless.encode(&mut out), Err(EncodeError::Device(DeviceNameError::Empty)));
}

#[test]
fn device_names() {
    assert_eq!(check_device("Thermostat-1_a.b:c"), Ok(()));
    assert_eq!(check_device(&"d".repeat(64)), Ok(()));
    assert_eq!(check_device(&"d".repeat(65)), Err(DeviceNameError::TooLong { bytes: 65 }));
    for (name, character, at) in [("a/b", '/', 1), ("+", '+', 0), ("a#", '#', 1), ("ab ", ' ', 2), ("zoé", 'é', 2)] {
        assert_eq!(check_device(name), Err(DeviceNameError::Character { character, at }));
    }
}
