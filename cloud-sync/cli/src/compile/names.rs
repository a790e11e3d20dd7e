//! The names of a module's functions, for the backtraces of dead letters: kept short, for they travel with it.

use wasm_encoder::{CustomSection, Module, NameMap, NameSection, RawSection};
use wasmparser::{BinaryReaderError, KnownCustom, Name, Parser, Payload};

/// Most bytes of all names together. The examples in Rust have 7 to 9 KB of them, about a tenth of the module.
const MAX_BYTES: usize = 16 << 10;

/// Longest name in bytes: type parameters can make one of a thousand, and its beginning says where it is.
const MAX_NAME_BYTES: usize = 96;

/// The module with names of its functions only, as people write them; those beyond the bound are left out. A module that
/// is not well-formed stays as it is, and is refused by whoever looks at it next.
pub(super) fn shorten(wasm: Vec<u8>) -> Vec<u8> {
    shortened(&wasm).unwrap_or(wasm)
}

fn shortened(wasm: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let mut module = Module::new();
    let mut names = None;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let Payload::CustomSection(section) = &payload
            && let KnownCustom::Name(section) = section.as_known()
        {
            names = Some(of_functions(section)?);
            continue;
        }
        if let Payload::CustomSection(section) = &payload {
            module.section(&CustomSection { name: section.name().into(), data: section.data().into() });
        } else if let Some((id, range)) = payload.as_section() {
            module.section(&RawSection { id, data: &wasm[range] });
        }
    }
    if let Some(names) = names {
        module.section(&names);
    }
    Ok(module.finish())
}

fn of_functions(section: wasmparser::NameSectionReader<'_>) -> Result<NameSection, BinaryReaderError> {
    let (mut map, mut left) = (NameMap::new(), MAX_BYTES);
    for part in section {
        let Name::Function(functions) = part? else { continue };
        for naming in functions {
            let naming = naming?;
            let name = short(naming.name);
            if name.len() <= left {
                left -= name.len();
                map.append(naming.index, &name);
            }
        }
    }
    let mut names = NameSection::new();
    names.functions(&map);
    Ok(names)
}

/// A name of Rust without its hash and its mangling; of other languages as it is.
fn short(name: &str) -> String {
    let plain = format!("{:#}", rustc_demangle::demangle(name));
    if plain.len() <= MAX_NAME_BYTES {
        return plain;
    }
    format!("{}…", &plain[..plain.floor_char_boundary(MAX_NAME_BYTES - '…'.len_utf8())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wasm: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            let Payload::CustomSection(section) = payload.unwrap() else { continue };
            let KnownCustom::Name(section) = section.as_known() else { continue };
            for part in section {
                match part.unwrap() {
                    Name::Function(map) => names.extend(map.into_iter().map(|naming| naming.unwrap().name.to_owned())),
                    _ => panic!("there are other names than those of functions"),
                }
            }
        }
        names
    }

    #[test]
    fn names_are_short_and_all_else_stays() {
        let long = "x".repeat(200);
        let text = format!(
            "(module $module (memory 1) (func $_ZN4mean3add17h0123456789abcdefE (param $p i32) (local $l i32))
                (func $plain) (func ${long}) (data (i32.const 0) \"abc\") (@custom \"other\" \"kept\"))"
        );
        let short = shorten(wat::parse_str(text).unwrap());
        wasmparser::validate(&short).unwrap();
        let found = names(&short);
        assert_eq!(found[..2], ["mean::add", "plain"]);
        assert!(found[2].len() <= MAX_NAME_BYTES && found[2].ends_with('…'), "{found:?}");
        assert!(short.windows(4).any(|bytes| bytes == b"kept"));
        assert_eq!(shorten(short.clone()), short);
    }

    #[test]
    fn all_names_together_have_a_bound() {
        let functions: String = (0..1_000).map(|at| format!("(func ${}{at})", "n".repeat(60))).collect();
        let short = shorten(wat::parse_str(format!("(module {functions})")).unwrap());
        let bytes: usize = names(&short).iter().map(String::len).sum();
        assert!((MAX_BYTES - 100..=MAX_BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_is_no_module_stays_as_it_is() {
        for bytes in [&b""[..], b"hello", b"\0asm\x01\0\0\0\x00\x7fname", b"\0asm\x01\0\0\0\x01\xff"] {
            assert_eq!(shorten(bytes.to_vec()), bytes);
        }
    }
}
