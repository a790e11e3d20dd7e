//! Why a function cannot be loaded.

use crate::load::Identity;
use crate::trap::Trap;

/// A function that cannot be loaded. Nothing else is disturbed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{function} cannot be loaded: {cause}")]
pub struct LoadError {
    pub(crate) function: Identity,
    /// The cause.
    pub cause: LoadCause,
}

impl LoadError {
    /// Name of the function.
    pub fn function(&self) -> &str {
        &self.function.name
    }
}

/// What is wrong with a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadCause {
    /// Longer than the limit.
    #[error(
        "the module is {bytes} bytes long, {allowed} are allowed; strip its debug information and optimise it for size, \
         or raise the limit \"module_bytes\""
    )]
    TooLarge {
        /// Bytes of the module.
        bytes: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// Nothing, or not a WebAssembly binary.
    #[error("this is not a WebAssembly binary: it begins with {0}, a module begins with 00 61 73 6d 01 00 00 00")]
    NotWasm(String),
    /// A component instead of a core module.
    #[error("this is a WebAssembly component; functions are core modules: build it without the component step")]
    Component,
    /// Malformed, or uses a part of WebAssembly that functions cannot use.
    #[error("the module is malformed or uses what this gateway does not support: {0}; build it again")]
    Invalid(String),
    /// The interpreter failed on it.
    #[error("the interpreter failed on this module ({0}); it is refused, report it if it comes from a compiler")]
    Panicked(String),
    /// Too many functions, globals, exports, imports, segments and table entries.
    #[error(
        "the module has {items} functions, globals, exports, imports, segments and table entries, {allowed} are \
         allowed; build it with optimisation, or raise the limit \"module_items\""
    )]
    TooManyItems {
        /// How many.
        items: usize,
        /// How many are allowed.
        allowed: usize,
    },
    /// A function with too many locals.
    #[error(
        "a function in it has {locals} local variables, {allowed} are allowed; build it with optimisation, or raise the \
         limit \"function_locals\""
    )]
    TooManyLocals {
        /// How many.
        locals: u64,
        /// How many are allowed.
        allowed: usize,
    },
    /// A function that asks for memory in very many places.
    #[error(
        "a function in it has {places} instructions `memory.grow`, {allowed} are allowed; ask for memory in one function, and \
         call that"
    )]
    TooManyGrowths {
        /// In how many.
        places: usize,
        /// In how many it may.
        allowed: usize,
    },
    /// An export that the contract asks for is not there.
    #[error("the module does not export {name:?}, {wanted}; build it with the function SDK, or export it")]
    MissingExport {
        /// Its name.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// An export has another type than the contract says.
    #[error("the module exports {name:?} as {found}; it must be {wanted}")]
    WrongExport {
        /// Its name.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// Made for another version of the contract.
    #[error(
        "it speaks version {found} of the ABI, this gateway version {ours}; build it with a matching function SDK, or \
         update the gateway"
    )]
    AbiVersion {
        /// The version it asks for.
        found: u32,
        /// The version that this gateway speaks.
        ours: u32,
    },
    /// Imports something from a module that is not ours.
    #[error(
        "it imports {module:?} {name:?}, which a function cannot have; build it for wasm32-unknown-unknown or another \
         target without an operating system, and without WASI"
    )]
    ForeignImport {
        /// Module of the import.
        module: String,
        /// Name of the import.
        name: String,
    },
    /// Imports something that this version of the contract does not have.
    #[error(
        "it imports {name:?}, which version {ours} of the ABI does not have; update the gateway, or correct the name"
    )]
    UnknownImport {
        /// Name of the import.
        name: String,
        /// The version that this gateway speaks.
        ours: u32,
    },
    /// Imports one of our functions with another type.
    #[error("it imports {name:?} as {found}; it is {wanted}")]
    WrongImport {
        /// Name of the import.
        name: String,
        /// What it is.
        wanted: String,
        /// What the module takes it for.
        found: String,
    },
    /// An Extism plug-in, and nobody says what its call means.
    #[error(
        "it is an Extism plug-in, and nothing says where its output goes; write into function.toml, under [extism], \
         stream = \"NAME\" or topic = \"NAME\""
    )]
    Plugin,
    /// A plug-in imports something that is not of Extism.
    #[error(
        "it is run as an Extism plug-in and imports {module:?} {name:?}; plug-ins have the functions of \
         \"extism:host/env\", no host functions of their own and no WASI: build it for a target without an operating \
         system, and take [extism] out of function.toml if it is none"
    )]
    ForeignPluginImport {
        /// Module of the import.
        module: String,
        /// Name of the import.
        name: String,
    },
    /// A plug-in imports what Extism's interface, as it is here, does not have.
    #[error("it imports {name:?} of Extism, which this gateway does not have; build it with a PDK of version 1.x")]
    UnknownPluginImport {
        /// Name of the import.
        name: String,
    },
    /// The function that is to be called is not exported.
    #[error(
        "the plug-in does not export {name:?}; name the function under [extism] in function.toml, as function = \"NAME\"; \
         it exports: {known}"
    )]
    NoPluginFunction {
        /// The function.
        name: String,
        /// Exports that could be called.
        known: String,
    },
    /// What is to be called is no function of a plug-in.
    #[error("the plug-in exports {name:?} as {found}; what is called takes nothing and answers an i32, or nothing")]
    WrongPluginFunction {
        /// The function.
        name: String,
        /// What it is.
        found: String,
    },
    /// Asks for more memory at its start than it may have.
    #[error(
        "it asks for {asked} bytes of memory at its start, {allowed} are allowed; link it with a smaller stack and \
         smaller static data, or raise the limit \"memory_bytes\""
    )]
    MemoryTooLarge {
        /// Bytes that it asks for.
        asked: u64,
        /// Bytes allowed.
        allowed: usize,
    },
    /// Asks for larger tables than it may have.
    #[error(
        "it asks for {asked} table elements at its start, {allowed} are allowed; raise the limit \"table_elements\""
    )]
    TableTooLarge {
        /// Elements that it asks for.
        asked: u64,
        /// Elements allowed.
        allowed: usize,
    },
    /// Instantiating it takes more fuel than a run has.
    #[error(
        "to instantiate it alone takes {needed} units of fuel, a run has {fuel}; make it smaller, or raise the limit \
         \"fuel\""
    )]
    StartTooDear {
        /// Units that it takes.
        needed: u64,
        /// Units of one run.
        fuel: u64,
    },
    /// It fails before it has seen an event.
    #[error("it fails at its start: {0}")]
    Start(Trap),
}
