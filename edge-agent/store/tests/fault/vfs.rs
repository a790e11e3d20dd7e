//! A layer between SQLite and the file system that fails at the n-th operation, and knows what was never synced.
//!
//! It is SQLite's default from [`install`] on, so that all that the store opens goes through it, the write-ahead log
//! and its index too.

#![allow(unsafe_code, reason = "SQLite takes a file system as a table of C functions")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::mem::offset_of;
use std::os::unix::fs::FileExt as _;
use std::ptr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rusqlite::ffi;

/// What an operation does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Open,
    Write,
    Sync,
    Truncate,
    ShmMap,
    Delete,
}

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails once, as on a bad sector.
    Io,
    /// A write finds no room, once.
    Full,
    /// The first half of a write is done.
    Torn,
    /// A sync fails, and all that was written to that file since the last one is gone, as in some file systems.
    SyncLost,
    /// A sync fails once. What it was to sync is still to be seen, but never comes to the disk, whatever later syncs say: as
    /// Linux has it, where a page counts as clean after it could not be written.
    SyncForgets,
    /// From here on nothing works, and of no file is there what was not synced.
    PowerCut,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [Self::Io, Self::Full, Self::Torn, Self::SyncLost, Self::PowerCut];

    fn strikes(self, operation: Operation) -> bool {
        match self {
            Self::Io | Self::PowerCut => true,
            Self::Full => matches!(operation, Operation::Write | Operation::ShmMap),
            Self::Torn => operation == Operation::Write,
            Self::SyncLost | Self::SyncForgets => operation == Operation::Sync,
        }
    }
}

/// A change that no sync has covered.
struct Undo {
    offset: i64,
    old: Vec<u8>,
    size: i64,
}

#[derive(Default)]
struct Control {
    armed: Option<(Fault, usize)>,
    dead: bool,
    struck: Option<Operation>,
    counts: BTreeMap<Operation, usize>,
    unsynced: BTreeMap<String, Vec<Undo>>,
    // By file and page: what is on the disk, where the system believes that something else is.
    forgotten: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
}

/// Bytes of a page of the system's.
const PAGE: usize = 4_096;

impl Control {
    // Forgets all that was not synced of this file.
    fn forget(&mut self, path: &str) {
        let undo = self.unsynced.remove(path).unwrap_or_default();
        let mut on_disk = std::fs::read(path).unwrap();
        let mut pages = Vec::new();
        for Undo { offset, old, size } in undo.iter().rev() {
            let start = usize::try_from(*offset).unwrap();
            on_disk.resize(on_disk.len().max(start + old.len()), 0);
            on_disk[start..start + old.len()].copy_from_slice(old);
            pages.extend(start / PAGE..(start + old.len()).div_ceil(PAGE));
            on_disk.truncate(usize::try_from(*size).unwrap());
        }
        let forgotten = self.forgotten.entry(path.to_owned()).or_default();
        for page in pages {
            let mut old = on_disk.get(page * PAGE..).unwrap_or_default().to_vec();
            old.resize(PAGE, 0);
            forgotten.insert(page, old);
        }
    }

    // A page that is written again is dirty again, as a whole.
    fn dirty(&mut self, path: &str, offset: i64, bytes: usize) {
        if let Some(forgotten) = self.forgotten.get_mut(path) {
            let start = usize::try_from(offset).unwrap();
            (start / PAGE..(start + bytes).div_ceil(PAGE)).for_each(|page| drop(forgotten.remove(&page)));
        }
    }
}

/// The files of a store, without the index of its log, are copied from one folder to another: what a process finds that
/// starts after the one that used them was killed.
pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    let mut control = control();
    let control = control.as_mut().expect("it is armed");
    for name in ["store.db", "store.db-wal"] {
        let (from, to) = (from.join(name), to.join(name));
        if from.exists() {
            std::fs::copy(&from, &to).unwrap();
        }
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        if let Some(undo) = control.unsynced.remove(from) {
            control.unsynced.insert(to.to_owned(), undo);
        }
        if let Some(pages) = control.forgotten.remove(from) {
            control.forgotten.insert(to.to_owned(), pages);
        }
    }
}

/// Nothing works any more.
pub(crate) fn cut_power() {
    control().as_mut().expect("it is armed").dead = true;
}

static CONTROL: Mutex<Option<Control>> = Mutex::new(None);

fn control() -> MutexGuard<'static, Option<Control>> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on counts operations, and fails the one with this number, from 0, among those that the fault strikes.
pub(crate) fn arm(fault: Option<(Fault, usize)>) {
    *control() = Some(Control { armed: fault, ..Control::default() });
}

/// What was counted since [`arm`], and which operation was struck; everything works from now on. After a power cut what
/// was never synced is gone; no connection may be open then.
pub(crate) fn disarm() -> (BTreeMap<Operation, usize>, Option<Operation>) {
    let control = control().take().expect("it was armed");
    if control.dead {
        for (path, undo) in control.unsynced {
            // A file that is not there any more has nothing to lose.
            let Ok(file) = OpenOptions::new().write(true).open(path) else { continue };
            for Undo { offset, old, size } in undo.into_iter().rev() {
                file.write_all_at(&old, offset.cast_unsigned()).unwrap();
                file.set_len(size.cast_unsigned()).unwrap();
            }
        }
        for (path, pages) in control.forgotten {
            let Ok(file) = OpenOptions::new().write(true).open(path) else { continue };
            for (page, old) in pages {
                file.write_all_at(&old, (page * PAGE) as u64).unwrap();
            }
        }
    }
    (control.counts, control.struck)
}

/// Whether this operation fails, and how.
fn struck(operation: Operation) -> Option<Fault> {
    let mut control = control();
    let control = control.as_mut()?;
    *control.counts.entry(operation).or_default() += 1;
    if control.dead {
        return Some(Fault::PowerCut);
    }
    let (fault, left) = control.armed.as_mut().filter(|(fault, _)| fault.strikes(operation))?;
    let fault = *fault;
    if *left > 0 {
        *left -= 1;
        return None;
    }
    control.armed = None;
    control.struck = Some(operation);
    control.dead = fault == Fault::PowerCut;
    Some(fault)
}

/// Ours, with the real one behind it in the same allocation.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    // Of a `Box`; null for a temporary file.
    path: *mut String,
    real: ffi::sqlite3_file,
}

/// SQLite's own, found once; it is never unregistered.
struct Real(*mut ffi::sqlite3_vfs);
// SAFETY: SQLite's table of functions is never changed after it was registered, and its functions may be called from
// any thread.
unsafe impl Sync for Real {}
// SAFETY: as above.
unsafe impl Send for Real {}

static REAL: Mutex<Real> = Mutex::new(Real(ptr::null_mut()));
static INSTALLED: Once = Once::new();

fn real_vfs() -> *mut ffi::sqlite3_vfs {
    REAL.lock().unwrap_or_else(PoisonError::into_inner).0
}

/// Puts the layer in, for one test at a time.
pub(crate) fn install() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    INSTALLED.call_once(|| {
        // SAFETY: the default table is static; ours is a copy of it that is leaked, and so as static. The functions of
        // the copy that are not replaced use nothing of the table but what was copied.
        unsafe {
            let real = ffi::sqlite3_vfs_find(ptr::null());
            *REAL.lock().unwrap() = Real(real);
            let mut ours: ffi::sqlite3_vfs = *real;
            ours.zName = c"fault".as_ptr();
            ours.pNext = ptr::null_mut();
            ours.szOsFile = c_int::try_from(offset_of!(File, real)).unwrap() + (*real).szOsFile;
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1), ffi::SQLITE_OK);
        }
    });
    alone
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Without the mapped pages of version 3, which the store does not use.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Calls a function of the real file.
///
/// SAFETY (of each use): `file` was opened by [`open`], which put a real file behind it whose table has every function
/// of version 2.
macro_rules! real {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        let real = &raw mut (*$file.cast::<File>()).real;
        ((*(*real).pMethods).$method.expect("SQLite's own files have it"))(real $(, $argument)*)
    }};
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite allocates `szOsFile` bytes for us, and `name` is null or ends with 0.
    unsafe {
        (*file).base.pMethods = ptr::null();
        if struck(Operation::Open).is_some() {
            return ffi::SQLITE_CANTOPEN;
        }
        let real = real_vfs();
        let code = ((*real).xOpen.expect("it opens files"))(real, name, &raw mut (*file).real, flags, out);
        if code == ffi::SQLITE_OK {
            (*file).path = if name.is_null() {
                ptr::null_mut()
            } else {
                Box::into_raw(Box::new(CStr::from_ptr(name).to_str().unwrap().to_owned()))
            };
            (*file).base.pMethods = &raw const METHODS;
        }
        code
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    if struck(Operation::Delete).is_some() {
        return ffi::SQLITE_IOERR_DELETE;
    }
    let real = real_vfs();
    // SAFETY: `name` ends with 0; the table is SQLite's own.
    unsafe {
        let code = ((*real).xDelete.expect("it deletes files"))(real, name, sync_dir);
        if let Some(control) = control().as_mut() {
            let name = CStr::from_ptr(name).to_str().unwrap();
            control.unsynced.remove(name);
            control.forgotten.remove(name);
        }
        code
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see `real`; the path came from a box, and SQLite closes a file once.
    unsafe {
        let path = (*file.cast::<File>()).path;
        if !path.is_null() {
            drop(Box::from_raw(path));
        }
        real!(file, xClose)
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, bytes: c_int, offset: i64) -> c_int {
    // SAFETY: see `real`; the rest is handed on as it came.
    unsafe { real!(file, xRead, to, bytes, offset) }
}

/// Remembers what is in a part of a file before it is changed.
unsafe fn remember(file: *mut ffi::sqlite3_file, offset: i64, bytes: usize) {
    let mut control = control();
    let Some(control) = control.as_mut() else { return };
    // SAFETY: see `real`; the buffer has the length that is given, and a read beyond the end fills it with zeros.
    unsafe {
        let path = (*file.cast::<File>()).path;
        if path.is_null() {
            return;
        }
        let (mut size, mut old) = (0, vec![0; bytes]);
        assert_eq!(real!(file, xFileSize, &raw mut size), ffi::SQLITE_OK);
        let code = real!(file, xRead, old.as_mut_ptr().cast(), c_int::try_from(bytes).unwrap(), offset);
        assert!(matches!(code, ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ), "{code}");
        control.dirty(&*path, offset, bytes);
        control.unsynced.entry((*path).clone()).or_default().push(Undo { offset, old, size });
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, bytes: c_int, offset: i64) -> c_int {
    let fault = struck(Operation::Write);
    // SAFETY: see `real`; half of what SQLite hands over is not more than it.
    unsafe {
        match fault {
            None => {
                remember(file, offset, usize::try_from(bytes).unwrap());
                real!(file, xWrite, from, bytes, offset)
            }
            Some(Fault::Torn) => {
                remember(file, offset, usize::try_from(bytes / 2).unwrap());
                real!(file, xWrite, from, bytes / 2, offset);
                ffi::SQLITE_IOERR_WRITE
            }
            Some(Fault::Full) => ffi::SQLITE_FULL,
            Some(_) => ffi::SQLITE_IOERR_WRITE,
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    if struck(Operation::Truncate).is_some() {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    // SAFETY: see `real`.
    unsafe {
        let mut before = 0;
        real!(file, xFileSize, &raw mut before);
        remember(file, size, usize::try_from(before - size).unwrap_or(0));
        real!(file, xTruncate, size)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    let fault = struck(Operation::Sync);
    let mut control = control();
    let Some(control) = control.as_mut() else { return ffi::SQLITE_OK };
    // SAFETY: see `real`; what is written back has the length that is given.
    unsafe {
        let path = (*file.cast::<File>()).path;
        if path.is_null() {
            return ffi::SQLITE_OK;
        }
        match fault {
            // Nobody cuts the power of the machine that runs this, so the disk itself need not be waited for.
            None => {
                control.unsynced.remove(&*path);
                ffi::SQLITE_OK
            }
            Some(fault) => {
                if fault == Fault::SyncForgets {
                    control.forget(&*path);
                }
                if fault == Fault::SyncLost {
                    for Undo { offset, old, size } in control.unsynced.remove(&*path).unwrap_or_default().iter().rev() {
                        real!(file, xWrite, old.as_ptr().cast(), c_int::try_from(old.len()).unwrap(), *offset);
                        real!(file, xTruncate, *size);
                    }
                }
                ffi::SQLITE_IOERR_FSYNC
            }
        }
    }
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    match struck(Operation::ShmMap) {
        // SAFETY: see `real`; handed on as it came.
        None => unsafe { real!(file, xShmMap, region, bytes, extend, out) },
        Some(fault) => {
            // SAFETY: SQLite gives a place for the answer.
            unsafe { *out = ptr::null_mut() };
            if fault == Fault::Full { ffi::SQLITE_IOERR_SHMSIZE } else { ffi::SQLITE_IOERR_SHMMAP }
        }
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: see `real`; here and below all is handed on as it came.
    unsafe { real!(file, xFileSize, size) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xLock, level) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xUnlock, level) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xCheckReservedLock, out) }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xFileControl, operation, argument) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xSectorSize) }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xDeviceCharacteristics) }
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xShmLock, offset, n, flags) }
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as above.
    unsafe { real!(file, xShmBarrier) }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { real!(file, xShmUnmap, delete) }
}
