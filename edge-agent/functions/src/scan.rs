//! What instantiating a module asks for, counted before it is compiled.

use wasmparser::{DataKind, ElementItems, FunctionBody, Operator, Parser, Payload, TypeRef, ValType};

use crate::error::LoadCause;
use crate::fuel::{MEMORY_BYTES_PER_UNIT, PER_ITEM, PER_NAME};
use crate::hidden;
use crate::limits::Limits;

/// Bytes of a WebAssembly page.
const PAGE_BYTES: u64 = 64 << 10;

/// Places in one function that ask for memory. All of them can be in one stretch without a branch, however long, which the
/// interpreter runs at one go; see [`STRETCH`](crate::fuel::STRETCH). Compilers make a handful.
const MAX_GROWTHS: usize = 1_000;

/// `memory.grow` of the only memory, as it is encoded. What looks like it may be something else.
const GROWTH: [u8; 2] = [0x40, 0];

/// Most bytes of an instance that is made as new, see [`Scan::instance_bytes`]: several have room beside each other, and to clear
/// more takes as long as to ask the system for it.
const MAX_RENEWED_BYTES: usize = 256 << 10;

/// Most globals, of those that change, of an instance that is made as new. Compilers make one to three.
const MAX_RENEWED_GLOBALS: usize = 16;

/// Bytes that the interpreter holds for one item of an instance, about.
const ITEM_BYTES: usize = 64;

/// Bytes of one table element in the interpreter.
const ELEMENT_BYTES: u64 = 8;

/// The work of instantiating a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Functions, globals, tables, segments and their entries.
    items: usize,
    /// Imports and exports.
    names: usize,
    /// Declared locals of the function that has most.
    locals: u64,
    memory_bytes: u64,
    table_elements: u64,
    data_bytes: u64,
    /// Places that ask for memory, in the function that has most.
    growths: usize,
    /// Globals that change, by their index.
    globals: Vec<u32>,
    /// A run may leave behind what cannot be undone from outside.
    leaves_traces: bool,
}

impl Scan {
    /// Counts a module that was validated.
    pub(crate) fn of(wasm: &[u8]) -> Result<Self, wasmparser::BinaryReaderError> {
        let mut scan = Self::default();
        let mut tables = 0;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(section) => {
                    scan.add_names(section.count());
                    for import in section {
                        // A table of others, too, which is not counted below.
                        scan.leaves_traces |= !matches!(import?.ty, TypeRef::Func(_));
                    }
                }
                Payload::FunctionSection(section) => scan.add_items(section.count()),
                Payload::GlobalSection(section) => {
                    scan.add_items(section.count());
                    for (index, global) in (0..).zip(section) {
                        let ty = global?.ty;
                        if ty.mutable {
                            scan.globals.push(index);
                            scan.leaves_traces |=
                                !matches!(ty.content_type, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64);
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    scan.add_names(section.count());
                    for export in section {
                        scan.leaves_traces |= export?.name.starts_with(hidden::PREFIX);
                    }
                }
                // It would have to run each time.
                Payload::StartSection { .. } => scan.leaves_traces = true,
                Payload::TableSection(section) => {
                    scan.add_items(section.count());
                    tables = section.count();
                    for table in section {
                        scan.table_elements = scan.table_elements.saturating_add(table?.ty.initial);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let bytes = memory?.initial.saturating_mul(PAGE_BYTES);
                        scan.memory_bytes = scan.memory_bytes.saturating_add(bytes);
                    }
                }
                Payload::ElementSection(section) => {
                    scan.add_items(section.count());
                    for element in section {
                        scan.add_items(match element?.items {
                            ElementItems::Functions(items) => items.count(),
                            ElementItems::Expressions(_, items) => items.count(),
                        });
                    }
                }
                Payload::DataSection(section) => {
                    scan.add_items(section.count());
                    for data in section {
                        let data = data?;
                        if matches!(data.kind, DataKind::Active { .. }) {
                            scan.data_bytes += data.data.len() as u64;
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let mut locals = 0_u64;
                    for group in body.get_locals_reader()? {
                        locals = locals.saturating_add(u64::from(group?.0));
                    }
                    scan.locals = scan.locals.max(locals);
                    scan.growths = scan.growths.max(growths(&body)?);
                    scan.leaves_traces = scan.leaves_traces || leaves_traces(&body, tables)?;
                }
                _ => {}
            }
        }
        Ok(scan)
    }

    fn add_items(&mut self, count: u32) {
        self.items = self.items.saturating_add(count as usize);
    }

    fn add_names(&mut self, count: u32) {
        self.names = self.names.saturating_add(count as usize);
    }

    /// Fuel for one instantiation.
    pub(crate) fn fuel(&self) -> u64 {
        let bytes = self
            .memory_bytes
            .saturating_add(self.data_bytes)
            .saturating_add(self.table_elements.saturating_mul(ELEMENT_BYTES));
        let items = (self.items as u64).saturating_mul(PER_ITEM);
        let names = (self.names as u64).saturating_mul(PER_NAME);
        items.saturating_add(names).saturating_add(bytes / MEMORY_BYTES_PER_UNIT)
    }

    /// The globals to be set anew when an instance is made as new; `None`: it cannot be, or it is not worth it.
    pub(crate) fn renewable(&self) -> Option<&[u32]> {
        let renewable = !self.leaves_traces
            && self.instance_bytes() <= MAX_RENEWED_BYTES
            && self.globals.len() <= MAX_RENEWED_GLOBALS;
        renewable.then_some(&self.globals)
    }

    /// Bytes that an instance takes in the interpreter, about.
    pub(crate) fn instance_bytes(&self) -> usize {
        let items = self.items.saturating_add(self.names).saturating_mul(ITEM_BYTES);
        let tables = self.table_elements.saturating_mul(ELEMENT_BYTES);
        items.saturating_add(usize::try_from(self.memory_bytes.saturating_add(tables)).unwrap_or(usize::MAX))
    }

    /// Whether the module may ask for so much.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), LoadCause> {
        let items = self.items.saturating_add(self.names);
        if items > limits.module_items {
            return Err(LoadCause::TooManyItems { items, allowed: limits.module_items });
        }
        if self.locals > limits.function_locals as u64 {
            return Err(LoadCause::TooManyLocals { locals: self.locals, allowed: limits.function_locals });
        }
        if self.growths > MAX_GROWTHS {
            return Err(LoadCause::TooManyGrowths { places: self.growths, allowed: MAX_GROWTHS });
        }
        if self.memory_bytes > limits.memory_bytes as u64 {
            return Err(LoadCause::MemoryTooLarge { asked: self.memory_bytes, allowed: limits.memory_bytes });
        }
        if self.table_elements > limits.table_elements as u64 {
            return Err(LoadCause::TableTooLarge { asked: self.table_elements, allowed: limits.table_elements });
        }
        if self.fuel() >= limits.fuel {
            return Err(LoadCause::StartTooDear { needed: self.fuel(), fuel: limits.fuel });
        }
        Ok(())
    }
}

/// How often a function asks for memory, or less where that is seldom for sure.
fn growths(body: &FunctionBody<'_>) -> Result<usize, wasmparser::BinaryReaderError> {
    let most = body.as_bytes().windows(GROWTH.len()).filter(|bytes| *bytes == GROWTH).count();
    if most <= MAX_GROWTHS {
        return Ok(0);
    }
    let mut growths = 0;
    for operator in body.get_operators_reader()? {
        growths += usize::from(matches!(operator?, Operator::MemoryGrow { .. }));
    }
    Ok(growths)
}

/// Whether a function may change what lies neither in the memory nor in a global: one of so many tables, or the segments that
/// are left.
fn leaves_traces(body: &FunctionBody<'_>, tables: u32) -> Result<bool, wasmparser::BinaryReaderError> {
    // What looks like it may be something else, and to look at all instructions takes a tenth of a start with many functions.
    // memory.copy, memory.fill and conversions have the same first byte, but the second one of what is looked for is
    // another; and table.set names a table. Both unless they are written in more bytes than they need.
    let suspicious = |bytes: &[u8]| match bytes {
        [0xfc, second] => !matches!(second, 0..=7 | 10 | 11),
        [0x26, second] => *second >= 0x80 || u32::from(*second) < tables,
        _ => false,
    };
    if !body.as_bytes().windows(2).any(suspicious) {
        return Ok(false);
    }
    for operator in body.get_operators_reader()? {
        if matches!(
            operator?,
            Operator::TableSet { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. }
                | Operator::TableGrow { .. }
                | Operator::ElemDrop { .. }
                | Operator::DataDrop { .. }
        ) {
            return Ok(true);
        }
    }
    Ok(false)
}
