//! What work costs, in units of fuel.
//!
//! The interpreter charges each WebAssembly instruction, at the start of its basic block, and bulk instructions
//! (`memory.copy`, `memory.fill`, `memory.init`, `memory.grow` and those for tables) one more unit for each 64 bytes
//! that they touch. What the host does for a function is charged by the rates below, so that imports and instantiation
//! are no way to work for free.
//!
//! Measured on two cores of a virtual machine: 1 to 4 nanoseconds for a unit of a function's own instructions, at worst
//! 14 (calls of a function with 999 locals); 0.1 to 2.5 nanoseconds for a unit that is charged by these rates.

/// Units after which a run pauses, so that others may be served: some half a millisecond.
pub const SLICE: u64 = 400_000;

/// Units after which the interpreter returns to us, and goes on.
///
/// Each of its instructions ends with a jump to the next one, but only where the compiler makes a jump of a call; what it
/// does not (`memory.grow`, on x86-64) leaves a frame of some hundred bytes on the native stack until the interpreter
/// returns. So these frames are bounded, whatever the module does, and fit into the two megabytes of any thread.
pub const STRETCH: u64 = 5_000;

/// One call of an import: the way out of the interpreter and back, and the bookkeeping of an effect.
pub const PER_CALL: u64 = 200;

/// One access of a plug-in to the memory of the Extism kernel: the way out of the interpreter and back, and 8 bytes.
pub const PER_ACCESS: u64 = 40;

/// Bytes that the host checks, copies or makes for one unit: parameters of imports, values that are read, the event.
pub const BYTES_PER_UNIT: u64 = 16;

/// One question to the store, on top of the call itself: it may lead to the disk.
pub const PER_STATE_READ: u64 = 5_000;

/// One item of the module when it is instantiated: a function, a global, a segment, an entry of a table.
pub const PER_ITEM: u64 = 20;

/// One import or export of the module when it is instantiated: each is looked up or entered by its name.
pub const PER_NAME: u64 = 400;

/// Bytes of memory that are cleared or initialised for one unit when a module is instantiated; the interpreter's own
/// rate for `memory.fill`.
pub const MEMORY_BYTES_PER_UNIT: u64 = 64;
