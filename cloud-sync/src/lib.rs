//! The control plane: takes records from gateways, tells them what should run, and answers operators.
//!
//! One program with one embedded database. [`serve`] starts it; the interfaces are those of `sync_protocol` (gateways)
//! and `sync_core::api` (operators). It speaks plain HTTP; a proxy in front of it does TLS.
//!
//! ```text
//! gateway ──▶ http/gateway ─┐                       ┌─ db-writer: as many writes as wait, one transaction
//!                           ├─▶ store (SQL) on db ──┤
//! operator ─▶ http/operator ┘                       └─ two readers: gateways, operators
//! ```

mod clock;
mod db;
mod fault;
mod http;
mod limits;
mod listen;
mod schema;
mod secret;
mod store;

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use schema::OpenError;

/// Name of the file in the data directory that holds the operator's token.
pub const OPERATOR_TOKEN_FILE: &str = "operator-token";

/// What to serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept; made if it is not there.
    pub data: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory, or a file in it.
    #[error("{path} cannot be used: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {0} is in use by another cloud-sync; stop that one or name another directory")]
    InUse(PathBuf),
    /// The database.
    #[error("the database {path} cannot be used: {source}")]
    Database {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The address.
    #[error("cannot listen at {address}: {source}; is another program there?")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A control plane that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    threads: db::Threads,
    app: Arc<http::App>,
    /// Locked as long as we live.
    _lock: File,
}

/// Starts a control plane; it answers from now on. Belongs to the tokio runtime that it is called on.
///
/// # Errors
/// The directory, the database or the address cannot be used.
pub async fn serve(config: &Config) -> Result<Server, ServeError> {
    let file = |path: PathBuf| move |source| ServeError::File { path, source };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&config.data);
    made.map_err(file(config.data.clone()))?;
    let lock_path = config.data.join("lock");
    let lock = File::create(&lock_path).map_err(file(lock_path.clone()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ServeError::InUse(config.data.clone())),
        Err(TryLockError::Error(source)) => return Err(ServeError::File { path: lock_path, source }),
    }
    let token_path = config.data.join(OPERATOR_TOKEN_FILE);
    let token = secret::operator_token(&token_path).map_err(file(token_path.clone()))?;
    let path = config.data.join("cloud-sync.sqlite");
    let (db, threads) = db::Db::open(&path).map_err(|source| ServeError::Database { path, source })?;

    let listen_error = |source| ServeError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(http::App::new(db, token, stopping.clone()));
    let router = http::router(app.clone());
    let task = tokio::spawn(async move {
        let mut stopping = stopping;
        let stopped = async move { _ = stopping.wait_for(|stopping| *stopping).await };
        if let Err(error) = axum::serve(listen::Bounded::new(listener), router).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the listener ended");
        }
    });
    tracing::info!(%address, data = %config.data.display(), operator_token = %token_path.display(), "listening");
    Ok(Server { address, stop, task, threads, app, _lock: lock })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, lets those under way end, and closes the database.
    pub async fn stop(self) {
        let Self { stop, mut task, threads, app, .. } = self;
        stop.send_replace(true);
        if tokio::time::timeout(limits::SHUTDOWN, &mut task).await.is_err() {
            tracing::warn!("some requests did not end in time");
            task.abort();
        }
        app.db.stop().await;
        let joined = tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok())).await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a thread of the database had panicked");
        }
        tracing::info!("stopped");
    }
}
