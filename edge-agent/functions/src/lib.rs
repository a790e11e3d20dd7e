//! Runs functions: wasmi and nothing else.
//!
//! [`Engine::load`] checks and compiles a module, [`Function::run`] gives it one event and answers the effects that it
//! lists. A run is a calculation: all that goes in is the event, the configuration, the state through [`Reads`] and a
//! seed; nothing is done before the caller commits the effects. So a run can be repeated, thrown away and replayed.
//!
//! What keeps a function from hurting anybody:
//!
//! - An instance that is as new for every event: no byte of one event is visible to the next.
//! - Each resource has a bound, see [`Limits`], and what is not named in [`Permissions`] is refused.
//! - Fuel pays for all work: the function's own instructions, what the host does for it in an import
//!   ([`fuel`]), and the work of instantiating it.
//! - A panic of the interpreter is contained, and becomes a [`LoadError`] or a [`Trap`].
//! - Each function has an interpreter of its own, for that keeps compiled code until it is dropped: a function that was
//!   replaced leaves nothing behind.
//!
//! A trap has a backtrace ([`Function::backtrace`]), and a run can be [recorded](record) and replayed.
//!
//! The contract that a module must keep is the page of the crate `function-abi`. Plug-ins of Extism keep another one, and run
//! beside, under the same bounds: [`Extism`].

mod backtrace;
mod contain;
mod error;
mod extism;
pub mod fuel;
mod function;
mod hidden;
mod host;
mod imports;
mod instance;
mod limits;
mod load;
mod permissions;
mod random;
mod reads;
pub mod record;
mod request;
mod scan;
mod secrets;
mod source;
mod spec;
mod trap;

pub use backtrace::{MAX_FRAMES, MAX_NAME_BYTES};
pub use error::{LoadCause, LoadError};
pub use function::{Function, LogLine, Outcome, Run};
pub use function_package::{Extism, ExtismInput};
pub use imports::{IMPORTS, WITH_NUMBER};
pub use limits::Limits;
pub use load::Engine;
pub use permissions::{MAX_STREAM_BYTES, Permissions, StreamError, StreamPattern, check_stream};
pub use reads::{NoReads, ReadError, Reads};
pub use secrets::Secrets;
pub use source::Source;
pub use spec::{Spec, SpecCause, SpecError};
pub use trap::{Trap, TrapKind};
