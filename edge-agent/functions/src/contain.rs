//! Keeps a panic of the interpreter inside.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The interpreter panicked; holds what it said.
#[derive(Debug)]
pub(crate) struct Panicked(pub(crate) String);

/// Runs `work`. A module comes from outside, and a flaw in the interpreter must not end the thread that other functions
/// need. Whoever calls this drops everything that `work` may have left half done: the store, and when loading also the
/// engine.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Panicked(said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(contain(|| 5).unwrap(), 5);
        assert_eq!(contain(|| panic!("plain")).unwrap_err().0, "plain");
        assert_eq!(contain(|| panic!("with {}", 1)).unwrap_err().0, "with 1");
        assert_eq!(contain(|| std::panic::panic_any(7)).unwrap_err().0, "no message");
    }
}
