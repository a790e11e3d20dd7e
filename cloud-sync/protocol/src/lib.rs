//! The messages between a gateway and the control plane, version 1.
//!
//! The gateway opens every connection; the control plane only answers. All bodies are a version byte followed by
//! [postcard](https://postcard.jamesmunns.com/wire-format) (see [`frame`]), under [`CONTENT_TYPE`]. A gateway proves
//! who it is with `Authorization: Bearer <credential>`, the credential it was given when it [enrolled](enroll).
//!
//! | request | body | answer | what for |
//! |---|---|---|---|
//! | `POST /gateway/v1/enroll` | [`enroll::Request`] | [`enroll::Reply`] | a claim token for a credential, once |
//! | `POST /gateway/v1/records` | [`records::Request`] | [`records::Reply`] | delivers records; may be sent again |
//! | `POST /gateway/v1/sync` | [`fleet::Request`] | [`fleet::Reply`] | reports what runs, waits for what should run |
//! | `GET /gateway/v1/artifacts/sha256:{hex}` | | the file | a function, byte for byte as it was signed; larger than [`MAX_BODY_BYTES`] if need be |
//!
//! Every refusal has a status of 400 or above and a [`Refusal`] as its body. The gateway sends again after 429 and 5xx
//! and after no answer at all; after any other refusal sending the same again cannot help.
//!
//! A body may be compressed, with `Content-Encoding: zstd` (RFC 8878), see [`compress()`].
//!
//! # Records take effect once
//!
//! A record is named by (gateway, store epoch, [`records::Class`], sequence). Sequences of one epoch and class start
//! at 1 and have no gaps: each stands for a record, or for one that is [gone](records::Gone) with a reason. The control
//! plane stores a request in one transaction and answers with the request's checksum; the gateway then deletes what that
//! request brought, and nothing else. What is sent again is counted and dropped.
//!
//! Ranges may come in any order. Up to its high-water mark the control plane has everything, or knows that it is gone;
//! above it it remembers which sequences it has.
//!
//! # What is asked of a gateway is done once
//!
//! [Commands](dead::Command) are numbered for each gateway. They come with answers to [`fleet::Request`] for as long as
//! the gateway does not say that they are done, and it notes their number in the transaction that does what they ask
//! for.

mod bounded;
mod compress;
pub mod dead;
pub mod enroll;
pub mod fleet;
pub mod frame;
pub mod records;
pub mod twin;
pub mod usage;

pub use compress::{ENCODING, compress, decompress};
pub use frame::{CONTENT_TYPE, FrameError, MAX_BODY_BYTES, VERSION, decode, encode};

/// Path of [`enroll`].
pub const PATH_ENROLL: &str = "/gateway/v1/enroll";
/// Path of [`records`].
pub const PATH_RECORDS: &str = "/gateway/v1/records";
/// Path of [`fleet`].
pub const PATH_SYNC: &str = "/gateway/v1/sync";
/// Path of the artifacts, to which `/{digest}` is added.
pub const PATH_ARTIFACTS: &str = "/gateway/v1/artifacts";

/// Why the control plane refused a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// A stable name in snake_case, for programs: `unknown_credential`, `claim_used`, `hash_mismatch`, …
    pub code: String,
    /// What was refused, why, and what to do, for a person.
    pub message: String,
}
