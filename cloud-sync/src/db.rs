//! The database's threads: one that writes, two that read.
//!
//! Writes that wait at the same moment share one transaction, and so one disk flush; each has a savepoint of its own,
//! so that one that is refused leaves no trace and does not disturb the others. Nobody is answered before the commit.
//! Gateways and operators read through a connection each, so that a long query never keeps a gateway waiting.

use std::path::Path;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::fault::Fault;
use crate::limits::{MAX_GROUP, READ_QUEUE, WRITE_QUEUE};
use crate::schema;

/// Tells a waiting request what became of its write: `Err` with the cause if the transaction was not stored.
type Finish = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// Runs within a savepoint; says whether to keep what it did.
type Job = Box<dyn FnOnce(&Connection) -> (bool, Finish) + Send>;

enum Write {
    Run(Job),
    Stop,
}

enum Read {
    Run(Box<dyn FnOnce(&Connection) + Send>),
    Stop,
}

/// Which of the two readers.
#[derive(Clone, Copy)]
pub(crate) enum Reader {
    Gateways,
    Operators,
}

pub(crate) struct Db {
    writer: mpsc::Sender<Write>,
    readers: [mpsc::Sender<Read>; 2],
    news: watch::Sender<()>,
}

/// To be joined after [`Db::stop`].
pub(crate) type Threads = Vec<JoinHandle<()>>;

impl Db {
    /// Opens the database and starts its threads.
    pub(crate) fn open(path: &Path) -> Result<(Self, Threads), schema::OpenError> {
        let mut connection = schema::open(path)?;
        schema::migrate(&mut connection)?;
        let (writer, writes) = mpsc::channel(WRITE_QUEUE);
        let (for_gateways, gateways_reads) = mpsc::channel(READ_QUEUE);
        let (for_operators, operators_reads) = mpsc::channel(READ_QUEUE);
        let mut threads = vec![spawn("db-writer", move || write_all(&connection, writes))?];
        for (name, reads) in [("db-gateways", gateways_reads), ("db-operators", operators_reads)] {
            let connection = schema::open_read_only(path)?;
            threads.push(spawn(name, move || read_all(&connection, reads))?);
        }
        let db = Self { writer, readers: [for_gateways, for_operators], news: watch::Sender::new(()) };
        Ok((db, threads))
    }

    /// Runs a job on the writer; answers when its transaction is on the disk.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.submit(job, || {}).await
    }

    /// The same for a job that may change what should run somewhere: wakes those who wait for [`Self::news`], also if
    /// whoever asked for it is gone by then.
    pub(crate) async fn write_news<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let news = self.news.clone();
        self.submit(job, move || news.send_replace(())).await
    }

    async fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
        stored: impl FnOnce() + Send + 'static,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |connection: &Connection| {
            let result = job(connection);
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |commit| {
                let result = match (result, commit) {
                    (Ok(value), Ok(())) => {
                        stored();
                        Ok(value)
                    }
                    (Ok(_), Err(cause)) => Err(Fault::NotStored(cause.to_owned())),
                    (Err(fault), _) => Err(fault),
                };
                // Whoever asked may be gone.
                let _ = answer.send(result);
            });
            (keep, finish)
        });
        self.writer.send(Write::Run(run)).await.map_err(|_| Fault::Stopping)?;
        answered.await.unwrap_or_else(|_| Err(Fault::NotStored("it was not begun".to_owned())))
    }

    /// Runs a job on a reader; all that it reads is of one moment.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        reader: Reader,
        job: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |connection: &Connection| {
            let result = connection.unchecked_transaction().map_err(Fault::from).and_then(|moment| job(&moment));
            let _ = answer.send(result);
        });
        self.readers[reader as usize].send(Read::Run(run)).await.map_err(|_| Fault::Stopping)?;
        answered.await.unwrap_or(Err(Fault::Stopping))
    }

    /// Changes whenever what should run somewhere may have changed.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Whether all threads are still there.
    pub(crate) fn works(&self) -> bool {
        !self.writer.is_closed() && self.readers.iter().all(|reader| !reader.is_closed())
    }

    /// Ends the threads after what waits now.
    pub(crate) async fn stop(&self) {
        let _ = self.writer.send(Write::Stop).await;
        for reader in &self.readers {
            let _ = reader.send(Read::Stop).await;
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, schema::OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(schema::OpenError::Thread)
}

fn read_all(connection: &Connection, mut reads: mpsc::Receiver<Read>) {
    while let Some(Read::Run(run)) = reads.blocking_recv() {
        run(connection);
    }
}

fn write_all(connection: &Connection, mut writes: mpsc::Receiver<Write>) {
    let mut stopping = false;
    while !stopping {
        let Some(first) = writes.blocking_recv() else { return };
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(write) = next {
            match write {
                Write::Run(run) => group.push(run),
                Write::Stop => {
                    stopping = true;
                    break;
                }
            }
            next = if group.len() < MAX_GROUP { writes.try_recv().ok() } else { None };
        }
        let mut finishes = Vec::with_capacity(group.len());
        let stored = write_group(connection, group, &mut finishes);
        let stored = stored.map_err(|error| {
            // Fails if SQLite has rolled back by itself, which is what is wanted.
            let _ = connection.execute_batch("ROLLBACK");
            tracing::error!(%error, writes = finishes.len(), "a transaction was not stored");
            error.to_string()
        });
        for finish in finishes {
            finish(stored.as_ref().copied().map_err(String::as_str));
        }
    }
}

/// A job that was not begun is dropped when this fails, and its sender told so by the closed channel.
fn write_group(connection: &Connection, group: Vec<Job>, finishes: &mut Vec<Finish>) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for run in group {
        connection.execute_batch("SAVEPOINT job")?;
        let (keep, finish) = run(connection);
        finishes.push(finish);
        // Fails if a full disk or the like made SQLite roll back the whole transaction: then nothing of it counts.
        connection.execute_batch(if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" })?;
    }
    connection.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_write_leaves_nothing_and_its_neighbours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (db, threads) = Db::open(&dir.path().join("db")).unwrap();
        let insert = |name: &'static str, fail: bool| {
            db.write(move |connection| {
                connection.execute("INSERT INTO streams (name, records) VALUES (?1, 0)", [name])?;
                if fail { Err(Fault::Busy) } else { Ok(()) }
            })
        };
        let (a, b, c) = tokio::join!(insert("a", false), insert("b", true), insert("c", false));
        assert!(a.is_ok() && matches!(b, Err(Fault::Busy)) && c.is_ok());
        let names: String = db
            .read(Reader::Operators, |connection| {
                Ok(connection
                    .query_row("SELECT group_concat(name, ',' ORDER BY name) FROM streams", [], |row| row.get(0))?)
            })
            .await
            .unwrap();
        assert_eq!(names, "a,c");
        db.stop().await;
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!db.works());
        assert!(matches!(db.write(|_| Ok(())).await, Err(Fault::Stopping)));
    }

    #[tokio::test]
    async fn a_transaction_that_is_rolled_back_inside_a_job_is_reported_to_all_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (db, _threads) = Db::open(&dir.path().join("db")).unwrap();
        let insert = db.write(|connection| {
            Ok(connection.execute("INSERT INTO streams (name, records) VALUES ('a', 0)", []).map(drop)?)
        });
        // What a full disk does to the transaction; stands second in the same group or alone in the next one.
        let broken = db.write(|connection| Ok(connection.execute_batch("ROLLBACK")?));
        let (_, broken) = tokio::join!(insert, broken);
        assert!(matches!(broken, Err(Fault::NotStored(_))));
        db.write(|_| Ok(())).await.unwrap();
    }
}
