//! Carries the write-ahead log over into the database, so that it can begin anew: beside the commits and not in them, for
//! to write a thousand pages all over the database and to sync them takes as long as twenty commits.
//!
//! Most of it does a thread of its own, with a connection of its own. SQLite syncs the database when all of the log was
//! carried over, and so that thread goes on until nothing was committed while it wrote, which soon takes less time than a
//! commit. What is committed while it syncs is little, and the writer carries that over itself: the log begins anew at a
//! moment when nothing in it is left ("Write-Ahead Logging", section 6), and under commits without a pause that would never
//! come by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::error::Cause;
use crate::schema;

/// Pages in the log from which on it is carried over: some 4 MB.
pub(crate) const CHECKPOINT_PAGES: u32 = 1_000;

/// Pages in the log from which on a commit carries it over, whatever the thread does.
const TOO_MANY_PAGES: u32 = 32 * CHECKPOINT_PAGES;

/// How often the thread begins again where something was committed while it wrote.
const PASSES: usize = 16;

/// The writer's side. Dropped before the writer's connection, which must be the last one.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    path: PathBuf,
    // As of the last commit.
    pages: Arc<AtomicU32>,
    // Begun when it is needed for the first time.
    thread: Option<Thread>,
    // The thread was asked to since the log began.
    handed_over: bool,
}

#[derive(Debug)]
struct Thread {
    wanted: Option<SyncSender<()>>,
    busy: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Takes the place of what the connection would do by itself.
    pub(crate) fn of(connection: &mut Connection, path: PathBuf) -> Result<Self, Cause> {
        let pages = Arc::new(AtomicU32::new(0));
        let noted = pages.clone();
        // An error here would make a failure of a commit that is done.
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            noted.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { path, pages, thread: None, handed_over: false })
    }

    /// After a commit. What fails is tried again after the next one: nothing is lost while the log is there.
    pub(crate) fn committed(&mut self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < CHECKPOINT_PAGES {
            // It has begun anew.
            self.handed_over = false;
            return;
        }
        if self.thread.as_ref().is_some_and(Thread::is_busy) && pages < TOO_MANY_PAGES {
            return;
        }
        if self.handed_over || pages >= TOO_MANY_PAGES || !self.hand_over() {
            self.handed_over = false;
            carry_over(writer);
        } else {
            self.handed_over = true;
        }
    }

    // Whether the thread does it.
    fn hand_over(&mut self) -> bool {
        if self.thread.is_none() {
            self.thread = Thread::begin(&self.path, self.pages.clone()).ok();
        }
        self.thread.as_ref().is_some_and(Thread::want)
    }
}

impl Thread {
    fn begin(path: &Path, pages: Arc<AtomicU32>) -> Result<Self, Cause> {
        let connection = schema::open_checkpoints(path)?;
        let (wanted, wants) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let done = busy.clone();
        let work = move || {
            for () in wants {
                for _ in 0..PASSES {
                    let carried = carry_over(&connection);
                    if carried.is_none_or(|carried| carried >= pages.load(Ordering::Relaxed)) {
                        break;
                    }
                }
                done.store(false, Ordering::Release);
            }
        };
        let handle = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(work)
            .map_err(|error| Cause::File { what: "a thread for its checkpoints cannot be begun", error })?;
        Ok(Self { wanted: Some(wanted), busy, handle: Some(handle) })
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    fn want(&self) -> bool {
        self.busy.store(true, Ordering::Release);
        let wanted = self.wanted.as_ref().is_some_and(|wanted| wanted.try_send(()).is_ok());
        if !wanted {
            self.busy.store(false, Ordering::Release);
        }
        wanted
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

// As far as nobody reads what lies behind, and without waiting for anybody. How many pages of the log are in the database; what
// is damaged is found by whoever reads it.
fn carry_over(connection: &Connection) -> Option<u32> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2)).ok()
}
