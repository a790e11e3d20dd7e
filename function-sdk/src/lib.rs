#![doc = include_str!("../README.md")]

#[cfg(any(test, all(target_family = "wasm", feature = "allocator")))]
mod arena;
mod context;
mod error;
mod event;
mod fields;
#[cfg(target_family = "wasm")]
mod guest;
#[cfg(all(target_family = "wasm", feature = "allocator"))]
mod heap;
mod payload;
mod request;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use context::{Context, Random, StateKeys};
pub use error::{Error, Result};
pub use event::{Event, FromEvent, Identity};
pub use fields::Fields;
pub use function_abi::{Attributes, EventKind, LogLevel, Priority, PublishFlags};
pub use function_macros::function;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use guest::handle as __handle;
pub use payload::{Json, Postcard, ToBytes};
pub use request::Request;
