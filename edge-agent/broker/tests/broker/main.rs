//! The broker over real sockets.

mod access;
mod acknowledgement;
mod clients;
mod common;
mod protocol;
mod sessions;
mod turmoil;
