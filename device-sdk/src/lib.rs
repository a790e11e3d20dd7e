#![doc = include_str!("../README.md")]
#![no_std]

mod backoff;
mod boot;
mod error;
mod queue;
mod session;
mod settings;
pub mod temperature;

pub use boot::BootCounter;
pub use device_wire::{DeviceNameError, EncodeError, Envelope, MAX_HEADER_BYTES, WINDOW};
pub use error::{PublishError, StartError, TopicError};
pub use session::{Action, Counters, Outgoing, Session, Token};
pub use settings::{Settings, WhenFull};
