//! Pages of a list: how long one is, and where the next one begins.

use crate::fault::Fault;
use crate::limits::{DEFAULT_PAGE, MAX_PAGE};

/// Most rows of a page, as a query asks for it.
pub(super) fn limit(asked: Option<u32>) -> Result<usize, Fault> {
    let limit = asked.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Fault::bad("bad_limit", format!("limit is {limit}; allowed is 1 to {MAX_PAGE}")));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The cursor of a list that is in the order of a table's keys; `key` is the last one of the page.
pub(super) fn write_key(key: i64) -> String {
    format!("{key:x}")
}

pub(super) fn read_key(text: &str) -> Result<i64, Fault> {
    i64::from_str_radix(text, 16).ok().filter(|key| *key >= 0).ok_or_else(|| no_cursor(text))
}

pub(super) fn no_cursor(text: &str) -> Fault {
    Fault::bad("bad_cursor", format!("{text:?} is no cursor; pass on what a page gave as it is"))
}
