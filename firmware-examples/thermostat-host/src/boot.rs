use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use device_sdk::BootCounter;
use thiserror::Error;

use crate::args::Args;

/// Where this program's boot epoch comes from.
#[derive(Debug)]
pub(crate) enum Boot {
    /// The caller counts.
    Given(u32),
    /// A file holds the last one.
    Counted(PathBuf),
    /// The machine's clock, in seconds since 1970. Two starts within one second would repeat it.
    Clock,
}

#[derive(Debug, Error)]
pub(crate) enum BootError {
    #[error("cannot {action} the boot file {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the boot file {path} holds {content:?}, not a number up to 4294967294; correct it to the last boot")]
    Content { path: PathBuf, content: String },
    #[error("the clock stands before 1970 or after 2106; set it, or use --boot-file")]
    Clock,
}

impl Boot {
    pub(crate) fn from_args(args: &Args) -> Self {
        match (args.boot, &args.boot_file) {
            (Some(boot), _) => Self::Given(boot),
            (None, Some(path)) => Self::Counted(path.clone()),
            (None, None) => Self::Clock,
        }
    }
}

impl BootCounter for Boot {
    type Error = BootError;

    fn next_boot(&mut self) -> Result<u32, BootError> {
        match self {
            Self::Given(boot) => Ok(*boot),
            Self::Counted(path) => count(path),
            Self::Clock => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| BootError::Clock)?;
                u32::try_from(since_1970.as_secs()).map_err(|_| BootError::Clock)
            }
        }
    }
}

fn count(path: &Path) -> Result<u32, BootError> {
    let failed = |action| move |source| BootError::File { action, path: path.to_owned(), source };
    let last = match fs::read_to_string(path) {
        Ok(content) => match content.trim().parse::<u32>() {
            Ok(last) if last < u32::MAX => last,
            _ => return Err(BootError::Content { path: path.to_owned(), content }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed("read")(error)),
    };
    let boot = last + 1;
    replace(path, boot).map_err(failed("write"))?;
    Ok(boot)
}

/// Writes beside the file, then renames, each made durable: after a power cut the file holds the old number or
/// the new one.
fn replace(path: &Path, boot: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    writeln!(file, "{boot}")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_boots() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        let boots = [(); 3].map(|()| Boot::Counted(path.clone()).next_boot().unwrap());
        assert_eq!(boots, [1, 2, 3]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "3\n");
    }

    #[test]
    fn a_file_that_cannot_be_believed_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot");
        for content in ["", "x", "-1", "4294967295", "1 2"] {
            fs::write(&path, content).unwrap();
            let error = Boot::Counted(path.clone()).next_boot().unwrap_err();
            assert!(matches!(error, BootError::Content { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let error = Boot::Counted(folder.path().join("missing/boot")).next_boot().unwrap_err();
        assert!(matches!(error, BootError::File { action: "write", .. }), "{error}");
    }
}
