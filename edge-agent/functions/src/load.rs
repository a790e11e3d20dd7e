//! From the bytes of a module to a function that can run.

use std::fmt;
use std::sync::Arc;

use function_abi::{EXPORT_ALLOC, EXPORT_HANDLE, EXPORT_MEMORY, NAMESPACE, NAMESPACE_PREFIX};
use wasmi::errors::LinkerError;
use wasmi::{CompilationMode, Config, ExternType, FuncType, Linker, Module, ValType};

use crate::backtrace;
use crate::contain::contain;
use crate::error::{LoadCause, LoadError};
use crate::extism;
use crate::function::Function;
use crate::hidden;
use crate::host::{Host, Shared};
use crate::imports::{IMPORTS, WITH_NUMBER, link};
use crate::instance::{Renewal, Spares};
use crate::limits::Limits;
use crate::scan::Scan;
use crate::secrets::Secrets;
use crate::source::Source;
use crate::spec::Spec;

/// First four bytes of every WebAssembly binary, then the version of a core module, or that of a component.
const MAGIC: &[u8] = b"\0asm";
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];
const COMPONENT_VERSION: &[u8] = &[0x0d, 0, 1, 0];

/// Bytes of the interpreter's value stack before it has grown, kept small as each function has its own.
const INITIAL_STACK_BYTES: usize = 1 << 10;

const WANTED_MEMORY: &str = "its memory";
const WANTED_ALLOC: &str = "a function (i32) -> i32 that makes room for an event";
const WANTED_HANDLE: &str = "a function (i32, i32) -> i32 that handles an event";

/// Makes functions out of modules. Cheap to clone; one serves the whole process.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    secrets: Secrets,
    pub(crate) spares: Arc<Spares>,
}

/// What a function is called in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {:?}", self.name)?;
        if self.version.is_empty() { Ok(()) } else { write!(f, " {}", self.version) }
    }
}

impl Engine {
    /// An engine of a gateway without secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with secrets for the functions whose permissions name them.
    pub fn with_secrets(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Checks a module, compiles it, and tries it out once up to the point where the first event would come.
    ///
    /// # Errors
    /// Names the function, what is wrong with the module, and what to do. Nothing else is disturbed: neither functions
    /// that are loaded, nor a later `load`.
    pub fn load(&self, spec: Spec, wasm: &[u8]) -> Result<Function, LoadError> {
        self.load_from(spec, wasm, Arc::new(Arc::<[u8]>::from(wasm)))
    }

    /// The same, with bytes that need not stay in memory: `source` has them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_from(&self, spec: Spec, wasm: &[u8], source: Arc<dyn Source>) -> Result<Function, LoadError> {
        let Spec { name, version, limits, permissions, config, extism } = spec;
        let identity = Identity { name, version };
        let secrets = self.secrets.clone();
        let shared = Arc::new(Shared { identity: identity.clone(), limits, permissions, config, secrets, extism });
        load(shared, wasm, source, &self.spares).map_err(|cause| LoadError { function: identity, cause })
    }
}

fn load(
    shared: Arc<Shared>,
    wasm: &[u8],
    source: Arc<dyn Source>,
    spares: &Arc<Spares>,
) -> Result<Function, LoadCause> {
    let limits = &shared.limits;
    check_header(wasm, limits)?;
    let engine = wasmi::Engine::new(&config(limits));
    let (module, scan) =
        contain(|| compile(&engine, wasm, limits)).unwrap_or_else(|panicked| Err(LoadCause::Panicked(panicked.0)))?;
    drop_workspace(&engine);
    match &shared.extism {
        Some(extism) => {
            extism::imports::check(&module)?;
            extism::check_exports(&module, extism)?;
        }
        None if extism::is_plugin(&module) => return Err(LoadCause::Plugin),
        None => {
            check_imports(&module)?;
            check_exports(&module)?;
        }
    }
    let linker = linker(&engine, &shared).map_err(|error| LoadCause::Invalid(error.to_string()))?;
    let renewal = scan.renewable().map(|globals| Renewal::new(spares, globals.len(), scan.instance_bytes()));
    let function = Function::new(engine, module, linker, shared, scan.fuel(), renewal, source);
    function.try_out().map_err(LoadCause::Start)?;
    Ok(function)
}

fn linker(engine: &wasmi::Engine, shared: &Shared) -> Result<Linker<Host>, LinkerError> {
    let mut linker = Linker::new(engine);
    match &shared.extism {
        Some(_) => extism::imports::link(&mut linker)?,
        None => link(&mut linker)?,
    }
    Ok(linker)
}

/// From our own copy of a module that was loaded; the error is for a person.
pub(crate) fn copy(shared: Arc<Shared>, wasm: &[u8]) -> Result<Function, String> {
    let engine = wasmi::Engine::new(&config(&shared.limits));
    let invalid = |error: &dyn fmt::Display| format!("the copy of the module does not load: {error}");
    let module = contain(|| Module::new(&engine, wasm)).map_err(|panicked| invalid(&panicked.0))?;
    let module = module.map_err(|error| invalid(&error))?;
    drop_workspace(&engine);
    let mut linker = linker(&engine, &shared).map_err(|error| invalid(&error))?;
    backtrace::link(&mut linker).map_err(|error| invalid(&error))?;
    Ok(Function::new(engine, module, linker, shared, 0, None, Arc::new(Arc::<[u8]>::from([]))))
}

fn check_header(wasm: &[u8], limits: &Limits) -> Result<(), LoadCause> {
    if wasm.len() > limits.module_bytes {
        return Err(LoadCause::TooLarge { bytes: wasm.len(), allowed: limits.module_bytes });
    }
    match wasm.strip_prefix(MAGIC) {
        Some(rest) if rest.starts_with(CORE_VERSION) => Ok(()),
        Some(rest) if rest.starts_with(COMPONENT_VERSION) => Err(LoadCause::Component),
        _ if wasm.is_empty() => Err(LoadCause::NotWasm("nothing, for it is empty".to_owned())),
        _ => {
            let head: Vec<String> = wasm.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(LoadCause::NotWasm(head.join(" ")))
        }
    }
}

/// The interpreter's settings. What functions do not need is off: less to go wrong, and less that a replay on another
/// machine must do alike.
fn config(limits: &Limits) -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        // With lazy compilation, running out of fuel on the first call could not be told from a fault.
        .compilation_mode(CompilationMode::Eager)
        // Debug information would stay in memory.
        .ignore_custom_sections(true)
        // The contract knows one memory.
        .wasm_multi_memory(false)
        // wasmi 2.0.0 gives a wrong answer to a function that tail-called an import whose answer was waited for.
        .wasm_tail_call(false)
        // Only position-independent code needs it, and constant expressions of any length are not metered.
        .wasm_extended_const(false)
        .set_max_recursion_depth(limits.call_depth)
        .set_min_stack_height(INITIAL_STACK_BYTES.min(limits.stack_bytes))
        .set_max_stack_height(limits.stack_bytes);
    config
}

/// Validates before anything else looks at the module: the interpreter's own limits have panicked on modules that
/// validation refuses.
fn compile(engine: &wasmi::Engine, wasm: &[u8], limits: &Limits) -> Result<(Module, Scan), LoadCause> {
    let invalid = |error: &dyn fmt::Display| LoadCause::Invalid(error.to_string());
    Module::validate(engine, wasm).map_err(|error| invalid(&error))?;
    let scan = Scan::of(wasm).map_err(|error| invalid(&error))?;
    scan.check(limits)?;
    if let Some(copy) = hidden::with_start(wasm).map_err(|error| invalid(&error))? {
        let module = Module::new(engine, &copy).map_err(|error| invalid(&error))?;
        return Ok((module, scan));
    }
    let copy = match scan.renewable() {
        None | Some([]) => None,
        Some(globals) => Some(hidden::with_globals(wasm, globals).map_err(|error| invalid(&error))?),
    };
    // SAFETY: they were validated above, by the same engine; a copy has more exports, of globals that are there, and under
    // names that no other export has.
    #[expect(unsafe_code, reason = "to validate twice takes a fifth of a start with many functions")]
    let module = unsafe { Module::new_unchecked(engine, copy.as_deref().unwrap_or(wasm)) };
    Ok((module.map_err(|error| invalid(&error))?, scan))
}

/// Has the interpreter drop the room in which it translated a module: it keeps it for the next one, which never comes, and that
/// is 43 KB for each function of the usual size. What it takes for a translation that fails it does not put back.
fn drop_workspace(engine: &wasmi::Engine) {
    /// One function, `() -> ()`, that adds two numbers where there are none.
    const INVALID: [u8; 25] = *b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x05\x01\x03\0\x6a\x0b";
    let refused = contain(|| Module::new(engine, INVALID));
    debug_assert!(matches!(refused, Ok(Err(_))), "{refused:?}");
}

fn abi_version(module: &str) -> Option<u32> {
    module.strip_prefix(NAMESPACE_PREFIX)?.parse().ok()
}

fn check_imports(module: &Module) -> Result<(), LoadCause> {
    let ours = abi_version(NAMESPACE).expect("our own namespace ends in its version");
    for import in module.imports() {
        let name = import.name().to_owned();
        if import.module() != NAMESPACE {
            return Err(match abi_version(import.module()) {
                Some(found) => LoadCause::AbiVersion { found, ours },
                None => LoadCause::ForeignImport { module: import.module().to_owned(), name },
            });
        }
        let Some((_, params, answers)) = IMPORTS.iter().find(|known| known.0 == name) else {
            return Err(LoadCause::UnknownImport { name, ours });
        };
        let number = WITH_NUMBER.contains(&name.as_str()).then_some(ValType::F64);
        let mut types = vec![ValType::I32; *params];
        types.extend(number);
        let wanted = FuncType::new(types, vec![ValType::I32; usize::from(*answers)]);
        check_import(name, wanted, import.ty())?;
    }
    Ok(())
}

/// Whether an import is a function of this type.
pub(crate) fn check_import(name: String, wanted: FuncType, found: &ExternType) -> Result<(), LoadCause> {
    match found {
        ExternType::Func(found) if *found == wanted => Ok(()),
        found => {
            let wanted = describe(&ExternType::Func(wanted));
            Err(LoadCause::WrongImport { name, wanted, found: describe(found) })
        }
    }
}

fn check_exports(module: &Module) -> Result<(), LoadCause> {
    let function =
        |params| move |found: &ExternType| matches!(found, ExternType::Func(ty) if *ty == i32_function(params, true));
    check_memory(module)?;
    check_export(module, EXPORT_ALLOC, WANTED_ALLOC, &function(1))?;
    check_export(module, EXPORT_HANDLE, WANTED_HANDLE, &function(2))
}

pub(crate) fn check_memory(module: &Module) -> Result<(), LoadCause> {
    check_export(module, EXPORT_MEMORY, WANTED_MEMORY, &|found| matches!(found, ExternType::Memory(_)))
}

fn check_export(
    module: &Module,
    name: &'static str,
    wanted: &'static str,
    fits: &dyn Fn(&ExternType) -> bool,
) -> Result<(), LoadCause> {
    match module.get_export(name) {
        None => Err(LoadCause::MissingExport { name, wanted }),
        Some(found) if !fits(&found) => Err(LoadCause::WrongExport { name, wanted, found: describe(&found) }),
        Some(_) => Ok(()),
    }
}

/// The type of a function of `params` i32, with an i32 as its answer or without.
fn i32_function(params: usize, answers: bool) -> FuncType {
    FuncType::new(vec![ValType::I32; params], vec![ValType::I32; usize::from(answers)])
}

pub(crate) fn describe(ty: &ExternType) -> String {
    let list = |types: &[ValType]| {
        let names: Vec<String> = types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect();
        format!("({})", names.join(", "))
    };
    match ty {
        ExternType::Func(ty) if ty.results().is_empty() => format!("a function {}", list(ty.params())),
        ExternType::Func(ty) => {
            let results = list(ty.results());
            let results = if ty.results().len() == 1 { results.trim_matches(['(', ')']) } else { &results };
            format!("a function {} -> {results}", list(ty.params()))
        }
        ExternType::Memory(_) => "a memory".to_owned(),
        ExternType::Table(_) => "a table".to_owned(),
        ExternType::Global(_) => "a global".to_owned(),
    }
}
