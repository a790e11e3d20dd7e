//! What a module need not export, and we must reach: copies of it that do.
//!
//! - The start function. The interpreter runs it while it instantiates, at one go. As an export it runs in stretches of fuel, as
//!   all else does ([`STRETCH`](crate::fuel::STRETCH)).
//! - Globals that change. Where they are reached, an instance can be made as new ([`instance`](crate::instance)).

use wasm_encoder::reencode::{Error, Reencode, RoundtripReencoder};
use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{Parser, Payload};

/// What the names of our exports begin with.
pub(crate) const PREFIX: &str = "edge_v1:";

/// What the start function is called. A module with a start function that has it already is invalid then.
pub(crate) const START: &str = "edge_v1:start";

/// What a global is called, the first of them 0.
pub(crate) fn global(number: usize) -> String {
    format!("{PREFIX}global:{number}")
}

/// The copy of a module that was validated, its start function an export instead; `None`: it has no start function, or no
/// exports at all.
pub(crate) fn with_start(wasm: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let (mut start, mut has_exports) = (None, false);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::StartSection { func, .. } => start = Some(func),
            Payload::ExportSection(_) => has_exports = true,
            _ => {}
        }
    }
    match start.filter(|_| has_exports) {
        Some(start) => exporting(wasm, &[(START.to_owned(), ExportKind::Func, start)]).map(Some),
        None => Ok(None),
    }
}

/// The copy of a module that was validated and exports something, with these globals exported, too.
pub(crate) fn with_globals(wasm: &[u8], globals: &[u32]) -> Result<Vec<u8>, Error> {
    let more: Vec<_> =
        globals.iter().enumerate().map(|(number, at)| (global(number), ExportKind::Global, *at)).collect();
    exporting(wasm, &more)
}

fn exporting(wasm: &[u8], more: &[(String, ExportKind, u32)]) -> Result<Vec<u8>, Error> {
    let mut copy = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::StartSection { .. } => {}
            Payload::ExportSection(section) => {
                let mut exports = ExportSection::new();
                RoundtripReencoder.parse_export_section(&mut exports, section)?;
                for (name, kind, at) in more {
                    exports.export(name, *kind, *at);
                }
                copy.section(&exports);
            }
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    copy.section(&RawSection { id, data: &wasm[range] });
                }
            }
        }
    }
    Ok(copy.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_function_becomes_an_export_and_all_else_stays() {
        let text = |start: &str, export: &str| {
            let source = format!(
                r#"(module (import "edge_v1" "fail" (func $fail (param i32 i32))) (memory (export "memory") 1)
                    (table 1 funcref) (global $g (mut i32) (i32.const 7)) (func $f (global.set $g (i32.const 8)))
                    {export} {start} (elem (i32.const 0) $f) (data (i32.const 8) "abc"))"#
            );
            wat::parse_str(source).unwrap()
        };
        let copy = with_start(&text("(start $f)", "")).unwrap().unwrap();
        assert_eq!(sections(&copy), sections(&text("", &format!("(export {START:?} (func $f))"))));
        assert_eq!(with_start(&text("", "")).unwrap(), None);
        assert_eq!(with_start(&wat::parse_str("(module (func $f) (start $f))").unwrap()).unwrap(), None);
    }

    #[test]
    fn globals_become_exports_and_all_else_stays() {
        let text = |exports: &str| {
            let source = format!(
                r#"(module (memory (export "memory") 1) (global $a (mut i32) (i32.const 7)) (global i64 (i64.const 1))
                    (global $b (mut f64) (f64.const 2)) {exports} (func $f (global.set $a (i32.const 8))))"#
            );
            wat::parse_str(source).unwrap()
        };
        let copy = with_globals(&text(""), &[0, 2]).unwrap();
        let exports = format!("(export {:?} (global $a)) (export {:?} (global $b))", global(0), global(1));
        assert_eq!(sections(&copy), sections(&text(&exports)));
    }

    /// The sections that mean something, as they are.
    fn sections(wasm: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let sections = Parser::new(0).parse_all(wasm).filter_map(|payload| payload.unwrap().as_section());
        sections.filter(|(id, _)| *id != 0).map(|(id, range)| (id, wasm[range].to_vec())).collect()
    }
}
