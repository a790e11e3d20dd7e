//! One file: module and manifest together.

use std::ops::Range;
use std::sync::Arc;

use crate::checked::Mistakes;
use crate::{Digest, MAX_MANIFEST_BYTES, MAX_PACKAGE_BYTES, Manifest, SECTION};

/// `\0asm`, version 1 of a core module (WebAssembly 2.0, section 5.5.16).
const HEADER: &[u8; 8] = b"\0asm\x01\0\0\0";

/// Id of a custom section (WebAssembly 2.0, section 5.5.2).
const CUSTOM: u8 = 0;

/// The last two bytes of a component's header, where a core module has 0 (component model, binary format).
const COMPONENT_LAYER: u16 = 1;

/// A function: its module with its manifest inside. The module itself is not validated here; who compiles it does.
#[derive(Clone, Debug)]
pub struct Package {
    bytes: Arc<[u8]>,
    digest: Digest,
    manifest: Manifest,
}

/// Why bytes are no package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Larger than [`MAX_PACKAGE_BYTES`].
    #[error("the package has {0} bytes; at most {MAX_PACKAGE_BYTES} are allowed")]
    TooLarge(usize),
    /// Something else than Wasm.
    #[error("the file is not WebAssembly: it does not begin with \"\\0asm\"")]
    NotWasm,
    /// A component of the component model.
    #[error(
        "the file is a WebAssembly component; a function is a core module (for Rust: target wasm32-unknown-unknown)"
    )]
    Component,
    /// A core module of a version that nobody made yet.
    #[error("the file is WebAssembly of version {0}; version 1 is supported")]
    Version(u32),
    /// A section is longer than the rest of the file, or its length is malformed.
    #[error("the file is damaged: the section at byte {0} does not end within the file")]
    Truncated(usize),
    /// [`Package::pack`] was given what is a package already.
    #[error("the module already holds a manifest (section {SECTION:?}); pack what the compiler made")]
    AlreadyPacked,
    /// The section is missing.
    #[error("the module holds no manifest (section {SECTION:?}); make a package of it first")]
    NoManifest,
    /// The section is there more than once.
    #[error("the module holds more than one manifest (section {SECTION:?})")]
    TwoManifests,
    /// Larger than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest has {0} bytes; at most {MAX_MANIFEST_BYTES} are allowed")]
    ManifestTooLarge(usize),
    /// Not text.
    #[error("the manifest is not UTF-8 after byte {0}")]
    ManifestNotText(usize),
    /// Text, but no manifest.
    #[error("the manifest is wrong:\n{0}")]
    Manifest(Mistakes),
}

impl Package {
    /// Puts a manifest into a module.
    ///
    /// # Errors
    /// The module is none or has a manifest already, the manifest has mistakes (named with the file `function.toml`),
    /// or both are too large together.
    pub fn pack(wasm: &[u8], manifest_toml: &str) -> Result<Self, PackageError> {
        let section = section_of(manifest_toml);
        check_size(wasm.len().saturating_add(section.len()))?;
        if !find_sections(wasm)?.is_empty() {
            return Err(PackageError::AlreadyPacked);
        }
        Self::open([wasm, &section].concat())
    }

    /// Reads a package.
    ///
    /// # Errors
    /// The bytes are no module, hold no manifest or more than one, or the manifest has mistakes.
    pub fn open(bytes: impl Into<Arc<[u8]>>) -> Result<Self, PackageError> {
        let bytes: Arc<[u8]> = bytes.into();
        check_size(bytes.len())?;
        let manifest = match find_sections(&bytes)?.as_slice() {
            [] => return Err(PackageError::NoManifest),
            [one] => &bytes[one.clone()],
            _ => return Err(PackageError::TwoManifests),
        };
        if manifest.len() > MAX_MANIFEST_BYTES {
            return Err(PackageError::ManifestTooLarge(manifest.len()));
        }
        let text = str::from_utf8(manifest).map_err(|error| PackageError::ManifestNotText(error.valid_up_to()))?;
        let manifest = Manifest::parse("function.toml", text).map_err(PackageError::Manifest)?;
        let digest = Digest::of(&bytes);
        Ok(Self { bytes, digest, manifest })
    }

    /// The checked manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest of all bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The whole file: what is stored, sent and compiled.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

fn check_size(len: usize) -> Result<(), PackageError> {
    if len > MAX_PACKAGE_BYTES { Err(PackageError::TooLarge(len)) } else { Ok(()) }
}

/// The custom section of a manifest: id 0, size, name, text (WebAssembly 2.0, section 5.5.3).
fn section_of(manifest: &str) -> Vec<u8> {
    let mut name_and_text = Vec::with_capacity(SECTION.len() + manifest.len() + 5);
    write_u32(&mut name_and_text, SECTION.len());
    name_and_text.extend_from_slice(SECTION.as_bytes());
    name_and_text.extend_from_slice(manifest.as_bytes());
    let mut section = vec![CUSTOM];
    write_u32(&mut section, name_and_text.len());
    section.extend(name_and_text);
    section
}

/// Where the texts of all manifests are; walks over all sections, so that a file cut short is noticed here.
fn find_sections(wasm: &[u8]) -> Result<Vec<Range<usize>>, PackageError> {
    check_header(wasm)?;
    let mut found = Vec::new();
    let mut start = HEADER.len();
    while start < wasm.len() {
        let truncated = || PackageError::Truncated(start);
        let (size, size_len) = read_u32(&wasm[start + 1..]).ok_or_else(truncated)?;
        let body = start + 1 + size_len;
        let end = body.checked_add(size).filter(|end| *end <= wasm.len()).ok_or_else(truncated)?;
        if wasm[start] == CUSTOM {
            let (name, name_len) = read_u32(&wasm[body..end]).ok_or_else(truncated)?;
            let name_at = body + name_len;
            let text_at = name_at.checked_add(name).filter(|text_at| *text_at <= end).ok_or_else(truncated)?;
            if &wasm[name_at..text_at] == SECTION.as_bytes() {
                found.push(text_at..end);
            }
        }
        start = end;
    }
    Ok(found)
}

fn check_header(wasm: &[u8]) -> Result<(), PackageError> {
    let rest = wasm.strip_prefix(b"\0asm").ok_or(PackageError::NotWasm)?;
    let version = *rest.first_chunk::<4>().ok_or(PackageError::Truncated(4))?;
    match version {
        _ if wasm.starts_with(HEADER) => Ok(()),
        [_, _, layer @ ..] if u16::from_le_bytes(layer) == COMPONENT_LAYER => Err(PackageError::Component),
        version => Err(PackageError::Version(u32::from_le_bytes(version))),
    }
}

/// A u32 in LEB128 and its length in bytes (WebAssembly 2.0, section 5.2.2); `None` if it is longer than 5 bytes, too
/// large or cut off.
fn read_u32(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, index + 1));
        }
    }
    None
}

fn write_u32(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST: &str = "manifest = 1\nname = 'f'\nversion = '1.0.0'\n[[trigger]]\nmqtt = '#'\n";

    /// A module with a custom section of another name and an empty type section.
    fn module() -> Vec<u8> {
        [HEADER, &[0, 3, 1, b'x', 9][..], &[1, 1, 0][..]].concat()
    }

    #[test]
    fn a_package_is_the_module_and_a_section_behind_it() {
        let package = Package::pack(&module(), MANIFEST).unwrap();
        assert!(package.bytes().starts_with(&module()) && package.bytes().ends_with(MANIFEST.as_bytes()));
        let opened = Package::open(package.bytes().clone()).unwrap();
        assert_eq!(opened.digest(), Digest::of(package.bytes()));
        assert_eq!(opened.manifest(), &Manifest::parse("function.toml", MANIFEST).unwrap());
    }

    #[test]
    fn what_is_no_module_is_named() {
        let pack = |bytes: &[u8]| Package::pack(bytes, MANIFEST).unwrap_err();
        assert_eq!(pack(b""), PackageError::NotWasm);
        assert_eq!(pack(b"\x7fELF\x02\x01\x01\0"), PackageError::NotWasm);
        assert_eq!(pack(b"\0asm\x0d\0\x01\0"), PackageError::Component);
        assert_eq!(pack(b"\0asm\x02\0\0\0"), PackageError::Version(2));
        assert_eq!(pack(b"\0asm\x01"), PackageError::Truncated(4));
        assert_eq!(pack(b"\0asm\x01\0\0\0\x01\x05\0"), PackageError::Truncated(8));
        assert_eq!(pack(b"\0asm\x01\0\0\0\x01\x80\x80\x80\x80\x80\0"), PackageError::Truncated(8));
        assert_eq!(pack(b"\0asm\x01\0\0\0\x01\x00\0\x02\x05x"), PackageError::Truncated(10));
        assert_eq!(
            pack(&vec![0; MAX_PACKAGE_BYTES]),
            PackageError::TooLarge(MAX_PACKAGE_BYTES + section_of(MANIFEST).len())
        );
    }

    #[test]
    fn a_manifest_is_there_once() {
        let package = Package::pack(&module(), MANIFEST).unwrap();
        assert_eq!(Package::pack(package.bytes(), MANIFEST).unwrap_err(), PackageError::AlreadyPacked);
        assert_eq!(Package::open(module()).unwrap_err(), PackageError::NoManifest);
        let twice = [&**package.bytes(), &section_of(MANIFEST)].concat();
        assert_eq!(Package::open(twice).unwrap_err(), PackageError::TwoManifests);
    }

    #[test]
    fn a_manifest_is_a_checked_text() {
        let long = format!("# {}", "x".repeat(MAX_MANIFEST_BYTES));
        assert_eq!(
            Package::pack(&module(), &long).unwrap_err(),
            PackageError::ManifestTooLarge(MAX_MANIFEST_BYTES + 2)
        );
        assert!(matches!(Package::pack(&module(), "name = 1"), Err(PackageError::Manifest(_))));
        let mut bytes = Package::pack(&module(), MANIFEST).unwrap().bytes().to_vec();
        *bytes.last_mut().unwrap() = 0xff;
        assert_eq!(Package::open(bytes).unwrap_err(), PackageError::ManifestNotText(MANIFEST.len() - 1));
    }

    proptest! {
        #[test]
        fn numbers_survive_leb128(value in any::<u32>()) {
            let mut bytes = Vec::new();
            write_u32(&mut bytes, value as usize);
            prop_assert_eq!(read_u32(&bytes), Some((value as usize, bytes.len())));
        }

        #[test]
        fn hostile_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Package::open(tail.clone());
            let _ = Package::open([&HEADER[..], &tail].concat());
            let name = [&[13][..], SECTION.as_bytes(), &tail].concat();
            let _ = Package::open([&HEADER[..], &[0, name.len() as u8][..], &name].concat());
        }

        #[test]
        fn a_changed_package_never_panics(at in 0usize..100, byte in any::<u8>(), cut in 0usize..120) {
            let mut bytes = Package::pack(&module(), MANIFEST).unwrap().bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Package::open(bytes.clone());
            bytes.truncate(cut);
            let _ = Package::open(bytes);
        }

        #[test]
        fn hostile_manifests_never_panic(text in "\\PC{0,200}", toml in "[a-z=\\[\\]{}\"'.,0-9\n#\\\\ -]{0,120}") {
            let _ = Manifest::parse("f", &text);
            let _ = Manifest::parse("f", &toml);
            let _ = Manifest::parse("f", &format!("{MANIFEST}{toml}"));
        }
    }
}
