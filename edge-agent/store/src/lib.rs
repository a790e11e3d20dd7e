//! The gateway's store: SQLite and nothing else.
