//! What one run, and one module, may use.

/// The bounds of a function. All are enforced; there is no "unlimited".
///
/// The defaults fit a function that parses a message of some kilobytes and answers with some records, on a gateway with
/// a few hundred megabytes of memory that runs as many functions at once as it has cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units of fuel for one run, instantiation included; about one for each instruction, see [`fuel`](crate::fuel).
    /// Bounds the time of a run: more lets a stuck function hold a core for longer.
    pub fuel: u64,
    /// Bytes of linear memory; rounded down to whole pages of 64 KiB. This times the number of cores is what functions
    /// can take from the gateway at once.
    pub memory_bytes: usize,
    /// Bytes of the interpreter's value stack (parameters, locals, operands; 8 bytes each). The interpreter keeps up to
    /// two such stacks for each function, so larger costs resident memory; smaller stops deep recursion earlier.
    pub stack_bytes: usize,
    /// Calls that may be open at once. Compilers make recursive descent of a few hundred levels; much more is a fault.
    pub call_depth: usize,
    /// Elements of all tables together, 8 bytes each. A compiler needs one for each function whose address is taken.
    pub table_elements: usize,
    /// Effects of one run. All of them must fit in one transaction together with those of other runs.
    pub effects: usize,
    /// Bytes of all effects of one run together: keys, values, streams, bodies, topics, payloads.
    pub output_bytes: usize,
    /// Bytes of one key of the state. Keys are indexed, so long ones cost twice.
    pub state_key_bytes: usize,
    /// Bytes of one value of the state. Values are read and written as a whole.
    pub state_value_bytes: usize,
    /// Bytes of the keys and values of all the function's state, over all partitions. Runs that happen at once do not see what
    /// the others put, so it is passed by what these put together, at most.
    pub state_bytes: u64,
    /// Log lines of one run; more are counted and dropped.
    pub log_lines: usize,
    /// Bytes of all log lines of one run together, with their fields; more are counted and cut off.
    pub log_bytes: usize,
    /// Bytes of the module as it is delivered. Compiling takes memory in proportion to it: 56 bytes for each of the
    /// module were measured with one made for that purpose (nested blocks), and 70 milliseconds for each megabyte.
    pub module_bytes: usize,
    /// Functions, globals, exports, imports, segments and table entries of the module together. Each costs time when
    /// the function is instantiated, thus for every event.
    pub module_items: usize,
    /// Locals that one function of the module declares. The interpreter clears them at each call and charges nothing
    /// for it, so this is what keeps a call from costing far more than its fuel.
    pub function_locals: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            memory_bytes: 16 << 20,
            stack_bytes: 512 << 10,
            call_depth: 1_000,
            table_elements: 10_000,
            effects: 256,
            output_bytes: 256 << 10,
            state_key_bytes: 256,
            state_value_bytes: 64 << 10,
            state_bytes: 4 << 20,
            log_lines: 64,
            log_bytes: 8 << 10,
            module_bytes: 1 << 20,
            module_items: 20_000,
            function_locals: 1_000,
        }
    }
}
