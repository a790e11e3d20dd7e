//! What a command about a function is given: the file of a built one, or the folder that one is built from.

use std::path::{Path, PathBuf};

use function_package::Package;

use crate::compile::{self, Building};
use crate::failure::Failure;
use crate::files;

/// A function on this machine.
pub(crate) struct Source {
    path: PathBuf,
    install_target: bool,
}

impl Source {
    pub(crate) fn new(path: &Path, install_target: bool) -> Self {
        Self { path: path.to_owned(), install_target }
    }

    /// The function, built if it is a folder.
    pub(crate) fn package(&self) -> Result<Package, Failure> {
        let how = Building { install_target: self.install_target, quiet: false };
        if self.path.is_dir() { compile::folder(&self.path, how) } else { files::open(&self.path) }
    }

    /// The folder, if it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.path.is_dir().then_some(&*self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
