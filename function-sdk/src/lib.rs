//! What a function author needs.
