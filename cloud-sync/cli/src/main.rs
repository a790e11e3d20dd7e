//! Everything an operator or a function author does.

fn main() {}
