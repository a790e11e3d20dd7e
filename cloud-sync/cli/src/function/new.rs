//! `edgectl fn new`: a function to begin with.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::args::{Language, New};
use crate::compile::program;
use crate::failure::Failure;
use crate::out::Out;

/// What a language's function is made of: files, with `{{name}}` and `{{sdk}}` in them.
type Template = &'static [(&'static str, &'static str)];

const RUST: Template = &[
    ("Cargo.toml", include_str!("template/rust/Cargo.toml.txt")),
    ("function.toml", include_str!("template/rust/function.toml")),
    ("src/lib.rs", include_str!("template/rust/lib.rs.txt")),
    ("fixtures/first.events.jsonl", include_str!("template/rust/first.events.jsonl")),
    ("fixtures/first.effects.snap", include_str!("template/rust/first.effects.snap")),
    ("README.md", include_str!("template/rust/README.md")),
    (".gitignore", include_str!("template/rust/gitignore.txt")),
];

/// The SDK beside the sources that this program was compiled from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../function-sdk");

#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    dir: &'a Path,
    files: Vec<PathBuf>,
}

pub(crate) fn new(out: &Out, new: &New) -> Result<(), Failure> {
    let dir = new.dir.clone().unwrap_or_else(|| PathBuf::from(&new.name));
    match fs::read_dir(&dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(Failure::FolderInUse(dir)),
        Ok(false) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::file("cannot use the folder", dir)(error)),
    }
    // Looked for first, so that nothing half made is left behind.
    let absolute = std::path::absolute(&dir).map_err(Failure::file("cannot use the folder", &dir))?;
    let template = match new.lang {
        Language::Rust => RUST,
    };
    let sdk = find_sdk(new.sdk.as_deref(), &absolute)?;
    fs::create_dir_all(&dir).map_err(Failure::file("cannot make the folder", &dir))?;
    let absolute = dir.canonicalize().map_err(Failure::file("cannot enter", &dir))?;
    let dependency = path_to(&sdk, &absolute).display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let mut files = Vec::new();
    for (name, text) in template {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(&dir);
        fs::create_dir_all(parent).map_err(Failure::file("cannot make the folder", parent))?;
        let text = text.replace("{{name}}", &new.name).replace("{{sdk}}", &dependency);
        fs::write(&path, text).map_err(Failure::file("cannot write", &path))?;
        files.push(path);
    }
    match new.lang {
        Language::Rust => settle(&dir, &sdk)?,
    }
    let made = Made { name: &new.name, dir: &dir, files };
    out.value(&made, || {
        format!(
            "{} made in {}\n\n    cd {}\n    cargo test         # tests the handler, as plain Rust\n    edgectl fn test    \
             # tests the module, as a gateway runs it\n    edgectl fn dev     # does so whenever a file changes",
            new.name,
            dir.display(),
            dir.display()
        )
    })
}

/// The SDK's folder: where somebody said, in a checkout around the new function, or where this program comes from.
fn find_sdk(said: Option<&Path>, dir: &Path) -> Result<PathBuf, Failure> {
    let is_sdk = |path: &Path| {
        let manifest = fs::read_to_string(path.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.lines().any(|line| line.trim() == "name = \"function-sdk\""))
    };
    let found = match said {
        Some(said) => Some(said.to_owned()).filter(|path| is_sdk(path)),
        None => {
            let around = dir.ancestors().map(|folder| folder.join("function-sdk"));
            around.chain([PathBuf::from(SDK)]).find(|path| is_sdk(path))
        }
    };
    let found = found.ok_or_else(|| Failure::NoSdk(said.unwrap_or(Path::new(SDK)).to_owned()))?;
    found.canonicalize().map_err(Failure::file("cannot enter", found))
}

/// The SDK as a dependency: relative within one checkout, so that the function moves with it, else absolute.
fn path_to(sdk: &Path, dir: &Path) -> PathBuf {
    let Some((checkout, below)) = sdk.parent().and_then(|checkout| Some((checkout, dir.strip_prefix(checkout).ok()?)))
    else {
        return sdk.to_owned();
    };
    let up = below.components().map(|_| Component::ParentDir).collect::<PathBuf>();
    up.join(sdk.strip_prefix(checkout).unwrap_or(sdk))
}

/// Fits a crate into its surroundings: a workspace around it that does not want it must not get it, and alone it begins
/// with the dependencies that the SDK is tested with.
fn settle(dir: &Path, sdk: &Path) -> Result<(), Failure> {
    let manifest = dir.join("Cargo.toml");
    let cargo = program("CARGO", "cargo");
    let mut command = Command::new(&cargo);
    command.args(["locate-project", "--workspace", "--message-format", "plain", "--manifest-path"]).arg(&manifest);
    let asked = command.stdin(Stdio::null()).output().map_err(|source| Failure::Program { program: cargo, source })?;
    let workspace = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    let workspace = asked.status.success().then_some(workspace);
    if workspace.is_none() {
        let text = fs::read_to_string(&manifest).map_err(Failure::file("cannot read", &manifest))?;
        let text = format!("{text}\n[workspace] # of its own: the one around it does not have it\n");
        fs::write(&manifest, text).map_err(Failure::file("cannot write", &manifest))?;
    }
    let alone = workspace.is_none_or(|root| root.canonicalize().ok() == manifest.canonicalize().ok());
    let lock = sdk.join("../Cargo.lock");
    if alone && lock.is_file() {
        let copy = dir.join("Cargo.lock");
        fs::copy(&lock, &copy).map_err(Failure::file("cannot write", copy))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_found_from_where_the_function_is() {
        let path = |dir: &str| path_to(Path::new("/home/a/checkout/function-sdk"), Path::new(dir));
        assert_eq!(path("/home/a/checkout/function-examples/f"), Path::new("../../function-sdk"));
        assert_eq!(path("/home/a/f"), Path::new("/home/a/checkout/function-sdk"));
        let nowhere = find_sdk(Some(Path::new("/nowhere")), Path::new("/")).unwrap_err();
        assert!(nowhere.to_string().contains("/nowhere") && nowhere.status() == 3);
        assert!(find_sdk(None, Path::new("/")).is_ok(), "this program was compiled beside it");
    }
}
