//! A copy of a module that tells where it is.
//!
//! Each function `f` becomes two: `f` itself, whatever its place in tables, exports and calls, only says that it is
//! entered, calls what was its body, and says that it is left; and the body, unchanged, at the end. So nothing within a
//! body has to be understood, and a trap leaves the functions that are open on the host's list.

use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, EntityType, ExportSection, Function, FunctionSection,
    GlobalSection, ImportSection, MemorySection, Module, TableSection, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

/// Where the two imports come from. A module that imports it itself was refused when it was loaded.
pub(super) const NAMESPACE: &str = "edge_trace";

/// `(function: i32)`: it is entered.
pub(super) const ENTER: &str = "enter";

/// `()`: what was entered last is left.
pub(super) const LEAVE: &str = "leave";

/// How many imports there are more.
const ADDED: u32 = 2;

/// Moves functions behind the imports that are added.
struct Shift {
    imported: u32,
}

impl Reencode for Shift {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> u32 {
        if function < self.imported { function } else { function.saturating_add(ADDED) }
    }
}

/// What a module consists of, in the order of a binary.
#[derive(Default)]
struct Sections {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    exports: ExportSection,
    elements: ElementSection,
    data_count: Option<DataCountSection>,
    bodies: CodeSection,
    data: DataSection,
}

/// The copy of a module that was validated and whose start function is an export ([`crate::hidden`]), unless its functions have more than so many parameters; the error is for a
/// person.
pub(super) fn instrument(wasm: &[u8], most_parameters: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: Error| format!("the module cannot be copied: {error}");
    copy(wasm, most_parameters).map_err(cannot)?.ok_or_else(|| "its functions have too many parameters".to_owned())
}

fn copy(wasm: &[u8], most_parameters: u64) -> Result<Option<Vec<u8>>, Error> {
    let mut shift = Shift { imported: 0 };
    let mut sections = Sections::default();
    // Of each type how many parameters it has; of each function its type.
    let mut parameters: Vec<u32> = Vec::new();
    let mut defined: Vec<u32> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(section) => {
                for ty in section.clone().into_iter_err_on_gc_types() {
                    parameters.push(ty?.params().len() as u32);
                }
                shift.parse_type_section(&mut sections.types, section)?;
            }
            Payload::ImportSection(section) => {
                for import in section.clone() {
                    shift.imported += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                }
                shift.parse_import_section(&mut sections.imports, section)?;
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    defined.push(ty?);
                }
            }
            Payload::TableSection(section) => shift.parse_table_section(&mut sections.tables, section)?,
            Payload::MemorySection(section) => shift.parse_memory_section(&mut sections.memories, section)?,
            Payload::GlobalSection(section) => shift.parse_global_section(&mut sections.globals, section)?,
            Payload::ExportSection(section) => shift.parse_export_section(&mut sections.exports, section)?,
            Payload::ElementSection(section) => shift.parse_element_section(&mut sections.elements, section)?,
            Payload::DataCountSection { count, .. } => {
                sections.data_count = Some(DataCountSection { count: shift.data_count(count) });
            }
            Payload::DataSection(section) => shift.parse_data_section(&mut sections.data, section)?,
            Payload::CodeSectionStart { .. } => {
                // One type serves many functions, so this may be far more than the module is long.
                let of = |ty: &u32| parameters.get(*ty as usize).map_or(0, |count| u64::from(*count));
                if defined.iter().map(of).sum::<u64>() > most_parameters {
                    return Ok(None);
                }
                wrap(&mut sections, &shift, &parameters, &defined);
            }
            Payload::CodeSectionEntry(body) => shift.parse_function_body(&mut sections.bodies, body)?,
            _ => {}
        }
    }
    Ok(Some(sections.module()))
}

/// Adds the imports, and a wrapper for each function.
fn wrap(sections: &mut Sections, shift: &Shift, parameters: &[u32], defined: &[u32]) {
    let enter_type = parameters.len() as u32;
    sections.types.ty().function([ValType::I32], []);
    sections.types.ty().function([], []);
    sections.imports.import(NAMESPACE, ENTER, EntityType::Function(enter_type));
    sections.imports.import(NAMESPACE, LEAVE, EntityType::Function(enter_type + 1));
    // Once for the wrappers, once for the bodies.
    for ty in defined.iter().chain(defined) {
        sections.functions.function(*ty);
    }
    let (enter, leave) = (shift.imported, shift.imported + 1);
    let bodies = shift.imported + ADDED + defined.len() as u32;
    for (at, ty) in (0..).zip(defined) {
        let mut wrapper = Function::new([]);
        let mut code = wrapper.instructions();
        code.i32_const((shift.imported + at).cast_signed()).call(enter);
        for parameter in 0..parameters.get(*ty as usize).copied().unwrap_or(0) {
            code.local_get(parameter);
        }
        code.call(bodies + at).call(leave).end();
        sections.bodies.function(&wrapper);
    }
}

impl Sections {
    fn module(self) -> Vec<u8> {
        let mut module = Module::new();
        module.section(&self.types).section(&self.imports).section(&self.functions);
        module.section(&self.tables).section(&self.memories).section(&self.globals).section(&self.exports);
        module.section(&self.elements);
        if let Some(count) = &self.data_count {
            module.section(count);
        }
        module.section(&self.bodies).section(&self.data);
        module.finish()
    }
}
