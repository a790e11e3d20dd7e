//! The parts of an event's way, each by itself: `cargo bench -p system-tests --bench parts [NAME]`.
//!
//! Needs the packed functions: `cargo xtask functions`. For comparison before and after a change on a machine that has
//! nothing else to do; what may not get slower is counted by `cargo xtask test`, and what users see is measured by `cargo
//! xtask bench`.

mod codec;
mod router;
mod runtime;
mod store;

fn main() {
    divan::main();
}
