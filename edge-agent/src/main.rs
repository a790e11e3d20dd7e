//! The gateway agent.

fn main() {}
