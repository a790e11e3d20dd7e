//! The gateway's own MQTT broker, whose PUBACK can wait for a commit.
//!
//! MQTT 3.1.1 and 5.0 on one TCP port, as a library on tokio. What a client publishes goes to an [`Ingest`] together with
//! an [`Ack`]; the PUBACK (QoS 1) or PUBREC (QoS 2) is withheld until the application says, from whatever thread, that the
//! message is durable. The broker goes on reading the connection meanwhile, so that a whole window of one connection can
//! share one commit. Acknowledgements leave in the order in which the messages came, and only then do the messages go to
//! other subscribers.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use agent_broker::{Broker, Inbound, Ingest, Options};
//!
//! struct Application;
//!
//! impl Ingest for Application {
//!     async fn submit(&self, inbound: Inbound) {
//!         // A real one hands `inbound` to its committer, which accepts after the commit.
//!         inbound.ack.accept();
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::bind(Options::default()).await?;
//! let handle = broker.handle();
//! broker.run(Arc::new(Application), std::future::pending()).await;
//! # drop(handle);
//! # Ok(())
//! # }
//! ```
//!
//! # What survives a restart of the process
//! What publishers were acknowledged does, because the application committed it first. **Sessions, subscriptions, messages
//! that wait for a subscriber, and retained messages do not: they are in memory.** After a restart clients get
//! `session present = 0` and subscribe again, and a QoS 2 message whose PUBREC was lost together with the process is given
//! to the application a second time; it must recognise it by an identity of its own.
//!
//! # What is not here
//! TLS, extended authentication (a CONNECT that asks for it is refused with 0x8C), and bridges.
//!
//! # Map
//! Pure, without sockets and clocks: `wire` and `encode` (bytes ⇄ packets), `handshake` (CONNECT), `inflight` (publishes
//! that wait for a verdict), `session`, `outbox` (what a subscriber is still to get), `subscriptions` (the topic trie),
//! `retained`, `rules` (who may publish and subscribe to what). `hub` holds them together behind locks; `link` is what a
//! thread with a verdict touches. `connection`, `reader`, `subscribe`, `writer` and `broker` drive.

mod broker;
mod connection;
mod encode;
mod handshake;
mod hub;
mod inflight;
mod ingest;
mod link;
mod message;
mod options;
mod outbox;
mod reader;
mod retained;
mod rules;
mod session;
mod stats;
mod subscribe;
mod subscriptions;
mod wire;
mod writer;

pub use broker::{Broker, Handle, PublishError};
pub use ingest::{Ack, Inbound, Ingest, Presence, Refusal, RefusalCode};
pub use mqtt5_protocol::QoS;
pub use options::{Access, BrokerError, Options};
pub use rules::{Pattern, PatternError, Rule};
pub use stats::Stats;
