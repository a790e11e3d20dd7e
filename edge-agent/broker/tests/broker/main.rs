//! The broker over real sockets.

mod access;
mod acknowledgement;
mod clients;
mod common;
mod conformance;
mod presence;
mod protocol;
mod sessions;
mod turmoil;
