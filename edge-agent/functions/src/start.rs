//! The start function, called like every other.
//!
//! The interpreter runs it while it instantiates, at one go. In the copy that is made here it is an export instead, so that it
//! runs in stretches of fuel as all else does ([`STRETCH`](crate::fuel::STRETCH)).

use wasm_encoder::reencode::{Error, Reencode, RoundtripReencoder};
use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{Parser, Payload};

/// What the export is called. A module with a start function that has it already is invalid then.
pub(crate) const EXPORT: &str = "edge_v1:start";

/// The copy of a module that was validated; `None`: it has no start function, or no exports at all.
pub(crate) fn exported(wasm: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let (mut start, mut has_exports) = (None, false);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::StartSection { func, .. } => start = Some(func),
            Payload::ExportSection(_) => has_exports = true,
            _ => {}
        }
    }
    let Some(start) = start.filter(|_| has_exports) else { return Ok(None) };
    let mut copy = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::StartSection { .. } => {}
            Payload::ExportSection(section) => {
                let mut exports = ExportSection::new();
                RoundtripReencoder.parse_export_section(&mut exports, section)?;
                copy.section(exports.export(EXPORT, ExportKind::Func, start));
            }
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    copy.section(&RawSection { id, data: &wasm[range] });
                }
            }
        }
    }
    Ok(Some(copy.finish()))
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
        let copy = exported(&text("(start $f)", "")).unwrap().unwrap();
        assert_eq!(sections(&copy), sections(&text("", &format!("(export {EXPORT:?} (func $f))"))));
        assert_eq!(exported(&text("", "")).unwrap(), None);
        assert_eq!(exported(&wat::parse_str("(module (func $f) (start $f))").unwrap()).unwrap(), None);
    }

    /// The sections that mean something, as they are.
    fn sections(wasm: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let sections = Parser::new(0).parse_all(wasm).filter_map(|payload| payload.unwrap().as_section());
        sections.filter(|(id, _)| *id != 0).map(|(id, range)| (id, wasm[range].to_vec())).collect()
    }
}
