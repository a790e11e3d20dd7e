//! The pipeline on a real store: what is acknowledged, when, and what is left after a failure.

mod commits;
mod inlets;
mod restore;
mod running;
