//! The store as the agent sees it, against a model, and against databases that are not as they should be.

mod blobs;
mod commit;
mod damage;
mod fixture;
mod letters;
mod messages;
mod model;
mod open;
mod recovery;
mod sequences;
mod tiles;
mod usage;
