//! A function as it travels from its author to the gateways: one plain `.wasm` file.
//!
//! The file is the compiled module with the text of its `function.toml` in a custom section, [`SECTION`]; every Wasm
//! engine ignores that section, so nothing is locked in. The SHA-256 of the whole file is the function's [`Digest`],
//! under which it is stored, deployed and signed.
//!
//! ```
//! use function_package::{Package, SigningKey};
//!
//! let module = b"\0asm\x01\0\0\0"; // what the compiler made
//! let manifest = "manifest = 1\nname = \"noop\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"a/+\"";
//!
//! // The author's side.
//! let package = Package::pack(module, manifest)?;
//! let key = SigningKey::generate()?;
//! let signature = key.sign(&package.digest());
//!
//! // The gateway's side.
//! let received = Package::open(package.bytes().to_vec())?;
//! key.public_key().verify(&received.digest(), &signature)?;
//! assert_eq!(received.manifest().name, "noop");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blob;
pub mod checked;
mod config;
mod digest;
mod extism;
mod host;
mod manifest;
mod names;
mod package;
mod route;
mod schedule;
mod sign;
mod text_form;
mod trigger;

pub use blob::{BlobError, BlobPattern, check_blob_name, check_bucket};
pub use config::{ConfigError, ConfigValue, config_value};
pub use digest::Digest;
pub use extism::{Extism, ExtismInput};
pub use host::{AllowedHost, HostError, MAX_URL_BYTES, Target, UrlError};
pub use manifest::{Allow, Limits, Manifest, Partition, Retry};
pub use names::{
    FilterError, MAX_TWIN_NAME_BYTES, MAX_TWIN_VALUE_BYTES, NameError, check_filter, check_function_name,
    check_metric_name, check_secret_name, check_stream_name, check_twin_name, pattern_matches,
};
pub use package::{Package, PackageError};
pub use route::{Route, RouteError};
pub use schedule::{Schedule, ScheduleError};
pub use sign::{KeyId, PublicKey, Signature, SignatureError, SigningKey};
pub use text_form::TextFormError;
pub use trigger::{Missed, Presence, Trigger};

/// Name of the custom section that holds the manifest's text.
pub const SECTION: &str = "edge.function";

/// Largest package in bytes. A Rust function has some 40 KB and a whole JavaScript engine 700 KB, so this is ten times
/// what is known to be useful, and still little enough to be held in memory and compiled by a small gateway.
pub const MAX_PACKAGE_BYTES: usize = 8 * 1024 * 1024;

/// Largest manifest in bytes: a page or two of text with all of its limits used.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// The highest limit for all effects of a run together, in KiB. Each of them must fit into one message to the control plane.
pub const MAX_OUTPUT_KIB: u32 = 1_024;

/// Bytes of the stack that Rust functions are linked with, `-C link-arg=-zstack-size=16384`.
///
/// Of it the examples use 5,900 at most (the anomaly detector, whose state is large), and 1,300 where only JSON is read
/// and written, whatever the payload. More would leave less of the first 64 KiB page for the constants of a function
/// with JSON (18 to 33 KB), and a second page would make each instance dearer. The linker places the stack first, so
/// one that overflows runs into address 0 and ends as a trap; it cannot reach other data. That happens to
/// `serde_json::Value`, which needs some 380 bytes for each level of nesting: 41 levels or so end the run.
pub const STACK_BYTES: u32 = 16 * 1024;
