//! Bodies made smaller on their way.

use std::io::Read as _;

use crate::frame::FrameError;

/// The value of `Content-Encoding` for a body that went through [`compress`] (RFC 8878, section 7.2).
pub const ENCODING: &str = "zstd";

/// The level that costs least: records of one stream look alike, and higher levels gain little on them.
const LEVEL: i32 = 1;

/// The body, compressed.
pub fn compress(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, LEVEL).expect("compressing from memory into memory that grows cannot fail")
}

/// The most memory that reading a body may ask for, as a power of two: what RFC 9659 (section 3) allows for a window.
/// Without it a frame of a few bytes asks for 128 MiB.
const WINDOW_LOG: u32 = 23;

/// The body that was compressed.
///
/// # Errors
/// It is no such body, or it is longer than `limit`, in bytes: so few bytes cannot become many.
pub fn decompress(compressed: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let failed = |error: std::io::Error| FrameError::Compressed(error.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(failed)?;
    decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
    let mut body = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut body).map_err(failed)?;
    if body.len() > limit { Err(FrameError::TooLong { bytes: body.len(), limit }) } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MAX_BODY_BYTES;

    proptest! {
        #[test]
        fn a_body_comes_back(body in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            prop_assert_eq!(decompress(&compress(&body), 5_000).unwrap(), body);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decompress(&bytes, 1_000);
        }
    }

    #[test]
    fn what_is_no_body_is_named() {
        let read = |bytes: &[u8]| decompress(bytes, MAX_BODY_BYTES);
        assert!(matches!(read(b"no"), Err(FrameError::Compressed(_))));
        let mut cut = compress(&[7; 1_000]);
        cut.pop();
        assert!(matches!(read(&cut), Err(FrameError::Compressed(_))));
        // A few hundred bytes that would fill the memory.
        let bomb = compress(&vec![0; MAX_BODY_BYTES + 1]);
        assert!(bomb.len() < 2_000);
        let (bytes, limit) = (MAX_BODY_BYTES + 1, MAX_BODY_BYTES);
        assert!(matches!(read(&bomb), Err(FrameError::TooLong { bytes: b, limit: l }) if (b, l) == (bytes, limit)));
        assert_eq!(read(&compress(&vec![0; MAX_BODY_BYTES])).unwrap().len(), MAX_BODY_BYTES);
    }

    #[test]
    fn a_frame_cannot_ask_for_more_memory_than_a_body_needs() {
        // RFC 8878, section 3.1.1: the magic number, a descriptor that says that a window follows, and a window of
        // 2^(10 + exponent) bytes; then the last block, which is raw and empty.
        let frame = |exponent: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
        assert_eq!(decompress(&frame(13), 100).unwrap(), []);
        assert!(matches!(decompress(&frame(14), 100), Err(FrameError::Compressed(_))));
    }
}
