//! How a recording lies in a file.
//!
//! ```text
//! "EDGEREC" version:u8  { length:u32 crc32:u32 frame }*
//! ```
//!
//! Numbers are little-endian; the checksum (CRC-32, IEEE) is of the frame, which is a [`Frame`] in postcard. A reader takes
//! all frames up to the first that is damaged, and says so. A recording that lacks its [`Frame::End`] was cut.

use std::io::{self, Read};

use agent_core::event::Payload;

use super::Frame;

/// How a file begins: what it is, and the version of the format.
pub const HEADER: &[u8; 8] = b"EDGEREC\x01";

/// Largest frame in bytes: an event, what a run may read while it is recorded (1 MiB), and its effects (1 MiB at most).
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Length and checksum.
const PREFIX: usize = 8;

/// Adds a frame to the bytes of a recording; `false`, and nothing is added, if it is too large.
pub fn write(out: &mut Vec<u8>, frame: &Frame) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    *out = postcard::to_extend(frame, std::mem::take(out))
        .expect("frames hold only types that postcard can write, and a Vec takes any number of bytes");
    let len = out.len() - start - PREFIX;
    if len > MAX_FRAME_BYTES {
        out.truncate(start);
        return false;
    }
    let checksum = crc32fast::hash(&out[start + PREFIX..]);
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    out[start + 4..start + PREFIX].copy_from_slice(&checksum.to_le_bytes());
    true
}

/// Bytes of the first frame in `bytes`, its prefix included, as far as it is there as a whole.
pub fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (len, _) = prefix(bytes.first_chunk()?);
    bytes.get(..PREFIX.checked_add(len)?)
}

/// A dead letter's recording with the payload of its event, which the letter has beside it.
///
/// # Errors
/// What is wrong with it.
pub fn with_payload(recording: &[u8], payload: &Payload) -> Result<Vec<u8>, Damage> {
    let mut whole = HEADER.to_vec();
    for frame in Frames::new(recording)? {
        let mut frame = frame?;
        if let Frame::Run(run) = &mut frame {
            run.event.payload = payload.clone();
        }
        if !write(&mut whole, &frame) {
            return Err(Damage::Damaged("with its payload it is too large".to_owned()));
        }
    }
    Ok(whole)
}

fn prefix(bytes: &[u8; PREFIX]) -> (usize, u32) {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (number(0) as usize, number(4))
}

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is something else.
    #[error("it is no recording: it does not begin with \"EDGEREC\"")]
    NoRecording,
    /// It is of a later version.
    #[error("it is a recording in version {0} of the format, and this program reads version {ours}", ours = HEADER[7])]
    Version(u8),
    /// The file ends within a frame.
    #[error("it was cut within what comes next")]
    Cut,
    /// The file ends behind a frame that is not the last one.
    #[error("it was cut here: it has no end")]
    NoEnd,
    /// Bytes are not what was written.
    #[error("what comes next is damaged: {0}")]
    Damaged(String),
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Reads a recording frame by frame; after damage there is nothing more.
#[derive(Debug)]
pub struct Frames<R> {
    from: R,
    over: bool,
}

impl<R: Read> Frames<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no recording of this version, or cannot be read.
    pub fn new(mut from: R) -> Result<Self, Damage> {
        let mut header = Vec::new();
        (&mut from).take(HEADER.len() as u64).read_to_end(&mut header)?;
        match header.strip_prefix(&HEADER[..7]) {
            Some([version]) if *version == HEADER[7] => Ok(Self { from, over: false }),
            Some([version]) => Err(Damage::Version(*version)),
            _ => Err(Damage::NoRecording),
        }
    }

    fn read(&mut self) -> Result<Frame, Damage> {
        let mut head = Vec::new();
        (&mut self.from).take(PREFIX as u64).read_to_end(&mut head)?;
        let Some(head) = head.first_chunk() else {
            return Err(if head.is_empty() { Damage::NoEnd } else { Damage::Cut });
        };
        let (len, checksum) = prefix(head);
        if len > MAX_FRAME_BYTES {
            return Err(Damage::Damaged(format!("it says that it has {len} bytes, {MAX_FRAME_BYTES} are the most")));
        }
        let mut bytes = Vec::new();
        (&mut self.from).take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() < len {
            return Err(Damage::Cut);
        }
        if crc32fast::hash(&bytes) != checksum {
            return Err(Damage::Damaged("its checksum is another one".to_owned()));
        }
        match postcard::take_from_bytes(&bytes) {
            Ok((frame, [])) => Ok(frame),
            Ok((_, rest)) => Err(Damage::Damaged(format!("there are {} bytes after its end", rest.len()))),
            Err(error) => Err(Damage::Damaged(error.to_string())),
        }
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = Result<Frame, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let frame = self.read();
        self.over = !matches!(&frame, Ok(frame) if !matches!(frame, Frame::End { .. }));
        Some(frame)
    }
}
