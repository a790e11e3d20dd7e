//! What functions of a module are called: by its name section, or else by its exports.

use std::collections::{BTreeMap, BTreeSet};

use wasmparser::{BinaryReaderError, ExternalKind, KnownCustom, Name, Parser, Payload};

use super::MAX_NAME_BYTES;

/// The names of those functions that are asked for, as far as they have one.
pub(super) fn of(wasm: &[u8], wanted: &BTreeSet<u32>) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    // Names decide nothing: what cannot be read of them ends the reading, and the rest have numbers.
    let _ = read(wasm, wanted, &mut names);
    names
}

fn read(wasm: &[u8], wanted: &BTreeSet<u32>, names: &mut BTreeMap<u32, String>) -> Result<(), BinaryReaderError> {
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func && wanted.contains(&export.index) {
                        names.entry(export.index).or_insert_with(|| shown(export.name));
                    }
                }
            }
            Payload::CustomSection(section) => {
                let KnownCustom::Name(section) = section.as_known() else { continue };
                for part in section {
                    let Name::Function(map) = part? else { continue };
                    for naming in map {
                        let naming = naming?;
                        if wanted.contains(&naming.index) && !naming.name.is_empty() {
                            names.insert(naming.index, shown(naming.name));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Fit for a line.
fn shown(name: &str) -> String {
    let mut text: String = name[..name.floor_char_boundary(MAX_NAME_BYTES)]
        .chars()
        .map(|one| if one.is_control() { '?' } else { one })
        .collect();
    if name.len() > MAX_NAME_BYTES {
        text.push('…');
    }
    text
}
