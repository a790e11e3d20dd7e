//! The gateway agent: runs functions on what devices send, keeps what they make of it, and delivers it.
//!
//! This crate is the shell: it owns the clocks, the sockets and the threads, and drives what decides (`agent-core`), what
//! runs functions (`agent-functions`), what stores (`agent-store`) and what speaks MQTT (`agent-broker`). Read
//! [`pipeline`] first, for everything else hangs on it; [`agent`] shows how the parts are joined.

pub mod agent;
pub mod artifacts;
pub mod blobs;
pub mod clock;
pub mod config;
pub mod counters;
pub mod dispatcher;
pub mod doctor;
pub mod fleet;
pub mod inlet;
pub mod install;
pub mod keeper;
pub mod limits;
pub mod link;
pub mod memory;
pub mod meter;
pub mod pipeline;
pub mod plan;
pub mod record;
pub mod requests;
pub mod status;
pub mod totals;
pub mod triggers;
pub mod uplink;

/// Says what TLS is made with, for all clients that are built from now on.
pub(crate) fn choose_tls() {
    // There is one provider in this process; to choose it twice is the only way to fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
