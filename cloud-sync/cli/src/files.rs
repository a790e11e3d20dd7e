//! Keys and packages on this machine.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use function_package::{Package, SigningKey};
use serde::Serialize;
use sync_core::api;

use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::out::Out;

/// Reads a small text file; `action` begins the message if that fails.
pub(crate) fn read_text(action: &'static str, path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::file(action, path))
}

#[derive(Serialize)]
struct NewKey<'a> {
    secret_key_file: &'a Path,
    public_key_file: &'a Path,
    public_key: String,
    key_id: String,
}

/// Makes a key pair in two files.
pub(crate) fn new_key(out: &Out, path: &Path) -> Result<(), Failure> {
    let mut public_path = OsString::from(path);
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    // Looked at first, so that no secret is left behind without its other half.
    if public_path.exists() {
        return Err(Failure::Exists(public_path));
    }
    let key = SigningKey::generate().map_err(|error| Failure::Random(error.to_string()))?;
    create(path, 0o600, &key.to_text())?;
    create(&public_path, 0o644, &key.public_key().to_string())?;
    let made = NewKey {
        secret_key_file: path,
        public_key_file: &public_path,
        public_key: key.public_key().to_string(),
        key_id: key.public_key().key_id().to_string(),
    };
    out.value(&made, || {
        format!(
            "key {} made\nsecret key: {} (keep it; who has it can sign functions)\npublic key: {} (gateways trust it)",
            made.key_id,
            path.display(),
            public_path.display()
        )
    })
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AlreadyExists => Failure::Exists(path.to_owned()),
        _ => Failure::File { action: "cannot write", path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(failed)
}

/// Reads a built function.
pub(crate) fn open(path: &Path) -> Result<Package, Failure> {
    let bytes = fs::read(path).map_err(Failure::file("cannot read the function in", path))?;
    Package::open(bytes).map_err(|source| Failure::Package { path: path.to_owned(), source })
}

/// What is shown of a built function.
#[derive(Serialize)]
pub(crate) struct Built<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: String,
    pub(crate) size: usize,
    pub(crate) digest: String,
    pub(crate) file: &'a Path,
}

impl<'a> Built<'a> {
    pub(crate) fn new(package: &'a Package, file: &'a Path) -> Self {
        let manifest = package.manifest();
        Self {
            name: &manifest.name,
            version: manifest.version.to_string(),
            size: package.bytes().len(),
            digest: package.digest().to_string(),
            file,
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self { name, version, size, digest, file } = self;
        format!("{name} {version}\nsize:    {size} bytes\ndigest:  {digest}\nfile:    {}", file.display())
    }
}

/// Signs a built function and stores it in the control plane.
pub(crate) async fn push(out: &Out, client: &Client, path: &Path, key_path: &Path) -> Result<(), Failure> {
    let package = open(path)?;
    let key = SigningKey::from_text(&read_text("cannot read the secret key in", key_path)?)
        .map_err(|source| Failure::Key { path: key_path.to_owned(), source })?;
    let query = api::PushQuery { signature: key.sign(&package.digest()).to_string() };
    let doing = format!("pushing {}", path.display());
    let answer: Answer<api::Function> = client.upload(&doing, "/functions", &query, package.bytes().to_vec()).await?;
    out.answer(&answer, |function| {
        let checked = if function.verified { "known here and checked" } else { "not registered here" };
        let api::Function { name, version, digest, key_id, .. } = function;
        format!("pushed {name} {version}\ndigest:  {digest}\nkey:     {key_id} ({checked})")
    })
}
