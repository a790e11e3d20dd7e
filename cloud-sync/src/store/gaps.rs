//! Queries over sequences that are settled without a record.

use rusqlite::{Connection, params};
use sync_core::api::{Gap, GapKind, GapQuery, Gaps};
use sync_protocol::records::Class;

use super::gateways::{class, epoch_text, key_of};
use super::{paging, read_tally, unsigned};
use crate::fault::Fault;
use crate::limits::MAX_PAGE_BYTES;

/// Where a page ends: epoch, class and first sequence of its last gap.
type Cursor = (i64, u8, i64);

/// Each half comes in the order of its table, so the database only has to merge them.
const PAGE: &str = "SELECT epoch, class, first, last, NULL AS tally, NULL AS told_us FROM missing \
    WHERE gateway = ?1 AND (epoch, class, first) > (?2, ?3, ?4) \
    UNION ALL SELECT epoch, class, first, last, tally, told_us FROM tombstones \
    WHERE gateway = ?1 AND (epoch, class, first) > (?2, ?3, ?4) ORDER BY epoch, class, first";

/// A page of a gateway's gaps, in their order.
pub(crate) fn page(connection: &Connection, id: &str, query: &GapQuery) -> Result<Gaps, Fault> {
    let limit = paging::limit(query.limit)?;
    let key = key_of(connection, id)?;
    let mut last = query.cursor.as_deref().map_or(Ok((i64::MIN, 0, 0)), read_cursor)?;
    let mut statement = connection.prepare_cached(PAGE)?;
    let mut rows = statement.query(params![key, last.0, last.1, last.2])?;
    let mut page = Gaps { gaps: Vec::new(), next: None };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if page.gaps.len() == limit || bytes >= MAX_PAGE_BYTES {
            page.next = Some(write_cursor(last));
            break;
        }
        last = (row.get(0)?, row.get(1)?, row.get(2)?);
        let tally: Option<Vec<u8>> = row.get(4)?;
        let told_us = row.get::<_, Option<i64>>(5)?.map(unsigned).transpose()?;
        bytes += tally.as_ref().map_or(0, Vec::len);
        let tally = tally.as_deref().map_or(Ok(Vec::new()), read_tally)?;
        page.gaps.push(Gap {
            epoch: epoch_text(last.0),
            class: class(last.1)?,
            first: unsigned(last.2)?,
            last: unsigned(row.get(3)?)?,
            kind: if told_us.is_some() { GapKind::Gone } else { GapKind::Missing },
            told_us,
            tally,
        });
    }
    Ok(page)
}

fn write_cursor((epoch, class, first): Cursor) -> String {
    format!("{:016x}.{class}.{first:x}", epoch.cast_unsigned())
}

fn read_cursor(text: &str) -> Result<Cursor, Fault> {
    let read = || {
        let (epoch, rest) = text.split_once('.')?;
        let (class, first) = rest.split_once('.')?;
        let epoch = u64::from_str_radix(epoch, 16).ok()?.cast_signed();
        let class = class.parse().ok().filter(|class| Class::ALL.iter().any(|one| one.number() == *class))?;
        let first = i64::from_str_radix(first, 16).ok().filter(|first| *first >= 0)?;
        Some((epoch, class, first))
    };
    read().ok_or_else(|| paging::no_cursor(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_cursors_are_taken() {
        for cursor in [(i64::MIN, 0, 0), (-1, 1, i64::MAX), (7, 0, 1)] {
            assert_eq!(read_cursor(&write_cursor(cursor)).ok(), Some(cursor));
        }
        for text in ["", "1", "1.0", "x.0.1", "1.2.1", "1.0.-1", "1.0.ffffffffffffffff", "1.0.1.1"] {
            assert!(read_cursor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn they_are_found_without_sorting_or_passing_over_others() {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&mut connection).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {PAGE}")).unwrap();
        let plan = plan.query_map(params![5, -7, 1, 9], |row| row.get::<_, String>(3)).unwrap();
        let plan: Vec<String> = plan.map(Result::unwrap).collect();
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN")), "{plan:?}");
        let whole = "(gateway=? AND (epoch,class,first)>(?,?,?))";
        assert_eq!(plan.iter().filter(|step| step.contains(whole)).count(), 2, "{plan:?}");
    }
}
