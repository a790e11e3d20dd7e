//! When very many records wait, an agent needs no more memory than when many do, and loses none of them.

use system_tests::backlog::{BODY, measure};

#[test]
fn memory_does_not_grow_with_the_backlog() {
    // Both are far more than the agent holds of a backlog at once, and what lies between them far more than what its
    // memory varies by from one run to the next, some 12 MB.
    const MANY: u64 = 20_000;
    const MORE: u64 = 80_000;
    let many = measure(MANY, BODY, 1).unwrap();
    let more = measure(MORE, BODY, 1).unwrap();
    let growth = (MORE - MANY) * BODY as u64;
    assert!(more.peak < many.peak + growth / 2, "{growth} bytes more: {more:?} in place of {many:?}");
}
