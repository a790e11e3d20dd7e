//! A disk whose power can be cut.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::ioctl::{Setter, ioctl};

/// A file with an ext4 on it, mounted on a folder. Unmounted when this is dropped, and also when the program that holds
/// this is killed.
#[derive(Debug)]
pub(super) struct Disk {
    image: PathBuf,
    folder: PathBuf,
    mounted: Option<Child>,
}

/// Room for a store under load; most of the file is never written.
const BYTES: u64 = 256 << 20;

// Reads until whoever started it closes the pipe or dies. A loop device that was set up by mount goes with it.
const GUARD: &str = "read -r _; umount --lazy \"$0\"";

impl Disk {
    /// A new disk in the file `image`, mounted on `folder`, which is made.
    pub(super) fn new(image: PathBuf, folder: PathBuf) -> Result<Self> {
        File::create(&image)?.set_len(BYTES)?;
        run(program("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        fs::create_dir(&folder)?;
        let mut disk = Self { image, folder, mounted: None };
        disk.mount()?;
        Ok(disk)
    }

    /// Cuts the power: what is not on the disk is gone, and nothing reaches it any more. Whoever has files open on it gets
    /// I/O errors.
    pub(super) fn cut(&self) -> Result<()> {
        let folder = File::open(&self.folder)?;
        shut_down(&folder).with_context(|| format!("cannot cut the power of {}", self.folder.display()))
    }

    /// The power is back: mounts anew, so that the file system replays its journal. Nobody may use the disk.
    pub(super) fn restore(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        run(program("mount").args(["-t", "ext4", "-o", "loop"]).args([&self.image, &self.folder]))?;
        let mut guard = program("sh");
        guard.args([OsStr::new("-c"), OsStr::new(GUARD), self.folder.as_os_str()]);
        guard.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.mounted = Some(guard.spawn().context("cannot start sh")?);
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(mut guard) = self.mounted.take() else { return Ok(()) };
        // The guard first: afterwards another disk may be mounted there.
        let _ = guard.kill();
        let _ = guard.wait();
        run(program("umount").arg(&self.folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // Somebody still uses it. So it goes when the last of them does.
            let _ = run(program("umount").arg("--lazy").arg(&self.folder));
        }
    }
}

/// Why there can be no such disk here, if there cannot: that takes root, loop devices and ext4's programs.
pub fn cannot_cut_power() -> Option<String> {
    let attempt = || {
        let folder = tempfile::tempdir()?;
        let mut disk = Disk::new(folder.path().join("image"), folder.path().join("disk"))?;
        disk.cut()?;
        disk.restore()
    };
    attempt().err().map(|error: anyhow::Error| format!("{error:#}"))
}

/// `EXT4_IOC_SHUTDOWN` of Linux, `_IOR('X', 125, __u32)` (fs/ext4/ext4.h).
const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written any more.
const WITHOUT_FLUSH: u32 = 2;

#[expect(unsafe_code, reason = "there is no safe way to call this ioctl; only the power cut needs it")]
fn shut_down(folder: &File) -> Result<()> {
    // SAFETY: the kernel reads one u32 at the address that it is given, which is what `Setter` points it to; it writes
    // nothing. On a file system that does not know the opcode it is an error.
    unsafe { ioctl(folder, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH)) }?;
    Ok(())
}

// Debian puts these into sbin, which is not on everybody's PATH.
fn program(name: &str) -> Command {
    let in_sbin = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
    let found = in_sbin.into_iter().find(|program| program.is_file());
    Command::new(found.unwrap_or_else(|| name.into()))
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_leaves_what_was() {
        if let Some(reason) = cannot_cut_power() {
            let _ = writeln!(std::io::stderr(), "skipped: the power cannot be cut here ({reason})");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(folder.path().join("image"), folder.path().join("disk")).unwrap();
        let path = folder.path().join("disk/file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_all().unwrap();
        File::open(folder.path().join("disk")).unwrap().sync_all().unwrap();
        file.write_all(b" and not").unwrap();
        disk.cut().unwrap();
        assert!(file.sync_all().is_err());
        drop(file);
        disk.restore().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"synced");
    }
}
