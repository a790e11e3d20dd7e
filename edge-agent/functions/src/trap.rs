//! How a run fails.

use std::fmt;

use wasmi::errors::ErrorKind;
use wasmi::{Error, TrapCode};

use crate::host::{Host, Stop};
use crate::load::Identity;

/// A run that failed: the function's own fault, and thus an outcome like any other. None of its effects take place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trap {
    /// What happened, for counters and rules.
    pub kind: TrapKind,
    /// What happened, for a person: names the function, the cause, and what to do.
    pub message: String,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TrapKind {
    /// The fuel of the run is used up.
    OutOfFuel,
    /// The function gave up after more memory was refused.
    OutOfMemory,
    /// Too many open calls, or too large ones.
    StackOverflow,
    /// An `unreachable` instruction: in most languages a panic.
    Unreachable,
    /// An access outside the memory, by the function itself.
    MemoryBounds,
    /// An access outside a table, or a call through a wrong entry of one.
    TableBounds,
    /// A division by zero, an overflowing division, or a conversion of a float that has no integer.
    Arithmetic,
    /// An import was given a range outside the memory.
    BadPointer,
    /// `edge_alloc` answered an address that cannot take the event.
    BadAlloc,
    /// An import was given text that is not UTF-8.
    BadText,
    /// An import was given a number without a meaning.
    BadArgument,
    /// An import was given a topic that nobody can publish to.
    BadTopic,
    /// An import was given a stream's name that breaks the rules.
    BadStream,
    /// A key or a value of the state breaks the limits.
    BadState,
    /// The function's state would take more room than it may.
    StateFull,
    /// A blob's name or type breaks the rules.
    BadBlob,
    /// There is no room for a blob on the gateway.
    BlobsFull,
    /// Outside of the function's permissions.
    NotAllowed,
    /// More effects than allowed.
    TooManyEffects,
    /// More bytes of effects than allowed.
    OutputTooLarge,
    /// The event is larger than the function's whole memory may be.
    EventTooLarge,
    /// The function itself said that it failed.
    Failed,
    /// The interpreter failed, not the function.
    EngineFault,
}

impl TrapKind {
    /// A stable name in snake case, for metrics, records and rules.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfFuel => "out_of_fuel",
            Self::OutOfMemory => "out_of_memory",
            Self::StackOverflow => "stack_overflow",
            Self::Unreachable => "unreachable",
            Self::MemoryBounds => "memory_bounds",
            Self::TableBounds => "table_bounds",
            Self::Arithmetic => "arithmetic",
            Self::BadPointer => "bad_pointer",
            Self::BadAlloc => "bad_alloc",
            Self::BadText => "bad_text",
            Self::BadArgument => "bad_argument",
            Self::BadTopic => "bad_topic",
            Self::BadStream => "bad_stream",
            Self::BadState => "bad_state",
            Self::StateFull => "state_full",
            Self::BadBlob => "bad_blob",
            Self::BlobsFull => "blobs_full",
            Self::NotAllowed => "not_allowed",
            Self::TooManyEffects => "too_many_effects",
            Self::OutputTooLarge => "output_too_large",
            Self::EventTooLarge => "event_too_large",
            Self::Failed => "failed",
            Self::EngineFault => "engine_fault",
        }
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Trap {
    /// Names the function in front of what happened.
    pub(crate) fn of(identity: &Identity, kind: TrapKind, what: impl fmt::Display) -> Self {
        Self { kind, message: format!("{identity}: {what}") }
    }

    pub(crate) fn out_of_fuel(host: &Host) -> Self {
        let what = format!(
            "used up its {} units of fuel; look for an endless loop, or raise the limit \"fuel\"",
            host.shared.limits.fuel
        );
        Self::of(&host.shared.identity, TrapKind::OutOfFuel, what)
    }

    /// What an error of the interpreter, or of an import, means.
    pub(crate) fn from_error(error: &Error, host: &Host) -> Self {
        let identity = &host.shared.identity;
        match error.downcast_ref::<Stop>() {
            Some(Stop::Trap(kind, what)) => return Self::of(identity, *kind, what),
            Some(Stop::OutOfFuel) => return Self::out_of_fuel(host),
            Some(Stop::ReadState) => {
                let what = "read its state where it cannot wait for the answer";
                return Self::of(identity, TrapKind::EngineFault, what);
            }
            None => {}
        }
        match error.as_trap_code() {
            Some(code) => Self::from_code(code, host),
            None => {
                let kind = match error.kind() {
                    ErrorKind::Instantiation(_) | ErrorKind::Memory(_) | ErrorKind::Table(_) => TrapKind::MemoryBounds,
                    _ => TrapKind::EngineFault,
                };
                Self::of(identity, kind, error)
            }
        }
    }

    fn from_code(code: TrapCode, host: &Host) -> Self {
        let limits = &host.shared.limits;
        let (kind, what) = match code {
            TrapCode::OutOfFuel => return Self::out_of_fuel(host),
            TrapCode::UnreachableCodeReached => match host.refusal() {
                Some(what) => (TrapKind::OutOfMemory, what),
                None => (
                    TrapKind::Unreachable,
                    "reached an \"unreachable\" instruction, which is how most languages end a panic or a failed \
                     assertion; its log lines may say more"
                        .to_owned(),
                ),
            },
            TrapCode::MemoryOutOfBounds => (TrapKind::MemoryBounds, "read or wrote outside of its memory".to_owned()),
            TrapCode::TableOutOfBounds => (TrapKind::TableBounds, "used an entry outside of a table".to_owned()),
            TrapCode::IndirectCallToNull => (TrapKind::TableBounds, "called through an empty table entry".to_owned()),
            TrapCode::BadSignature => {
                (TrapKind::TableBounds, "called a function through a table with another type than it has".to_owned())
            }
            TrapCode::IntegerDivisionByZero => (TrapKind::Arithmetic, "divided an integer by zero".to_owned()),
            TrapCode::IntegerOverflow => (TrapKind::Arithmetic, "the result of a division overflowed".to_owned()),
            TrapCode::BadConversionToInteger => {
                (TrapKind::Arithmetic, "converted a float to an integer that cannot hold it".to_owned())
            }
            TrapCode::StackOverflow => (
                TrapKind::StackOverflow,
                format!(
                    "its calls are more than {} deep or need more than {} bytes of stack; look for endless recursion, \
                     or raise the limits \"call_depth\" and \"stack_bytes\"",
                    limits.call_depth, limits.stack_bytes
                ),
            ),
            TrapCode::GrowthOperationLimited => (TrapKind::OutOfMemory, "asked for too much memory".to_owned()),
            TrapCode::OutOfSystemMemory => {
                (TrapKind::EngineFault, "the gateway has no memory left for it at the moment".to_owned())
            }
        };
        Self::of(&host.shared.identity, kind, what)
    }
}
