//! From a function's file to a version that runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use agent_core::{Filter, FilterError};
use agent_functions::{Engine, LoadError, Source, Spec, SpecError};
use function_package::{Digest, Package, PackageError, PublicKey, Signature, SignatureError, Trigger};
use sync_protocol::fleet::DesiredFunction;

use crate::plan::Version;

/// Why a function cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The file is not a function.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A configuration value or a permission does not fit.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The module cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A trigger is no topic filter.
    #[error("function {function}: {source}")]
    Filter {
        /// The function.
        function: String,
        /// What is wrong with it.
        source: FilterError,
    },
    /// Nobody who is trusted signed it.
    #[error(
        "function {function}: it is signed with the key {key}, which this gateway does not trust; add the public key to deploy.trusted_keys if it should"
    )]
    Untrusted {
        /// The function.
        function: String,
        /// The key.
        key: String,
    },
    /// The signature does not fit.
    #[error("function {function}: {source}")]
    Signature {
        /// The function.
        function: String,
        /// Why it does not.
        source: SignatureError,
    },
    /// The file is another one than was asked for.
    #[error(
        "function {function}: the file that came has the digest {found}, not {wanted}; it was changed on the way or in the control plane's store"
    )]
    Digest {
        /// The function.
        function: String,
        /// What was deployed.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// Another function has what only one can have.
    #[error(
        "function {function}: {what}, which the function {other} does on this gateway; change one of the two, or take it out"
    )]
    Taken {
        /// The function.
        function: String,
        /// The other one.
        other: String,
        /// What it is.
        what: String,
    },
    /// The gateway has a function of this name already, and not by a deployment.
    #[error(
        "function {function}: this gateway has it in its own configuration; remove it there, or deploy under another name"
    )]
    Local {
        /// The function.
        function: String,
    },
    /// The file is another function.
    #[error("function {wanted}: the file is the function {found}")]
    Name {
        /// What was deployed.
        wanted: String,
        /// What the manifest says.
        found: String,
    },
}

/// Checks that a trusted publisher signed what was deployed, before any byte of it is looked at more closely.
///
/// # Errors
/// Says what does not fit.
pub fn check_signature(wanted: &DesiredFunction, bytes: &[u8], trusted: &[PublicKey]) -> Result<(), InstallError> {
    let function = wanted.name.clone();
    let (digest, found) = (Digest::from_bytes(wanted.digest), Digest::of(bytes));
    if digest != found {
        return Err(InstallError::Digest { function, wanted: digest, found });
    }
    let untrusted = || InstallError::Untrusted { function: function.clone(), key: wanted.key_id.clone() };
    let key = trusted.iter().find(|key| key.key_id().to_string() == wanted.key_id).ok_or_else(untrusted)?;
    let bytes = wanted.signature.as_slice().try_into().map_err(|_| untrusted())?;
    let signature = Signature { key_id: key.key_id(), bytes };
    key.verify(&digest, &signature).map_err(|source| InstallError::Signature { function, source })
}

/// A function's file, which is read again for a backtrace.
#[derive(Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub digest: Digest,
}

impl Source for File {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        let path = self.path.display();
        let bytes = std::fs::read(&self.path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let found = Digest::of(&bytes);
        if found == self.digest { Ok(bytes) } else { Err(format!("{path} is another file by now, {found}")) }
    }
}

/// Makes a version of these bytes, which `source` has as well. Blocks while it compiles.
///
/// # Errors
/// Names the function and what is wrong with it.
pub fn load(
    engine: &Engine,
    bytes: &[u8],
    source: Arc<dyn Source>,
    overrides: &BTreeMap<String, String>,
) -> Result<Version, InstallError> {
    let version = open(engine, bytes, source, overrides)?;
    match version.function() {
        Ok(_) => Ok(version),
        Err(error) => Err(error.clone().into()),
    }
}

/// As [`load`], but it is compiled when it is needed first; until then nobody knows whether it can be.
///
/// # Errors
/// Names the function and what is wrong with it.
pub fn open(
    engine: &Engine,
    bytes: &[u8],
    source: Arc<dyn Source>,
    overrides: &BTreeMap<String, String>,
) -> Result<Version, InstallError> {
    let package = Package::open(bytes.to_vec())?;
    let manifest = package.manifest();
    let spec = Spec::of(manifest, overrides)?;
    let filter = |text: &String| {
        Filter::new(text).map_err(|source| InstallError::Filter { function: manifest.name.clone(), source })
    };
    let (triggers, retry) = (manifest.triggers.clone(), manifest.retry);
    let filters = manifest
        .triggers
        .iter()
        .filter_map(|trigger| match trigger {
            Trigger::Mqtt { filter: text } => Some(filter(text)),
            _ => None,
        })
        .collect::<Result<_, _>>()?;
    let (engine, module) = (engine.clone(), package.clone());
    Ok(Version {
        name: manifest.name.clone(),
        code: LazyLock::new(Box::new(move || engine.load_from(spec, module.bytes(), source))),
        digest: package.digest(),
        version: manifest.version.to_string(),
        config: overrides.clone(),
        filters,
        triggers,
        retry,
        partition: manifest.partition,
    })
}

/// Checks that no other function does what only one can do: read a queue, answer a request.
///
/// # Errors
/// Names what it is, and the other function.
pub fn check_beside<'a>(version: &Version, others: impl Iterator<Item = &'a Version>) -> Result<(), InstallError> {
    let name = &version.name;
    for other in others.filter(|other| other.name != *name) {
        for (one, another) in version.triggers.iter().flat_map(|one| other.triggers.iter().map(move |two| (one, two))) {
            let what = match (one, another) {
                (Trigger::Queue { queue }, Trigger::Queue { queue: taken }) if queue == taken => {
                    format!("it reads the queue {queue:?}")
                }
                (Trigger::Http { route, .. }, Trigger::Http { route: taken, .. }) if route.overlaps(taken) => {
                    format!("it answers \"{route}\", hence requests that fit \"{taken}\"")
                }
                _ => continue,
            };
            let (function, other) = (name.clone(), other.name.clone());
            return Err(InstallError::Taken { function, other, what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_by_now_gives_no_backtrace() {
        let folder = tempfile::tempdir().unwrap();
        let file = File { path: folder.path().join("f.wasm"), digest: Digest::of(b"module") };
        assert!(file.bytes().unwrap_err().starts_with("cannot read"));
        std::fs::write(&file.path, b"module").unwrap();
        assert_eq!(file.bytes().unwrap(), b"module");
        std::fs::write(&file.path, b"another").unwrap();
        assert!(file.bytes().unwrap_err().contains("is another file by now"));
    }
}
