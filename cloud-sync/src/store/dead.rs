//! Dead letters: what gateways tell of them, and what they are told to do with them.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use sync_core::api::{self, DeadCommand, DeadCommanded, DeadLetter, DeadLetters, DeadQuery, Letters};
use sync_protocol::dead::{Action, Command, INLET, Letter, MAX_COMMANDS, MAX_LETTERS, Note, Resolved, What};
use sync_protocol::records::{Record, StoreEpoch};

use super::gateways::{GatewayKey, epoch_text, key_of};
use super::{from_json, paging, signed, to_json, unsigned};
use crate::fault::Fault;
use crate::limits::{MAX_COMMANDED, MAX_LIST_TEXT, MAX_PAGE, MAX_PAGE_BYTES};

/// Takes what a record of the gateway's own stream says, in the transaction that stores the record. What it does not
/// say as it should is stored as a record and nothing more: a gateway must be able to deliver it.
pub(crate) fn note(connection: &Connection, gateway: GatewayKey, key: i64, record: &Record) -> Result<(), Fault> {
    let note = serde_json::from_slice::<Note>(&record.body).ok().and_then(|note| Some((note.epoch()?, note)));
    let Some((epoch, note)) = note else {
        tracing::warn!(?gateway, function = record.function, "a record about a dead letter says nothing that is known");
        return Ok(());
    };
    let (epoch, letter) = (epoch.0.cast_signed(), signed(note.letter));
    match note.what {
        What::Dead(dead) => {
            let Letter { function, kind, reason, .. } = *dead;
            let [function, kind, reason] = [&function, &kind, &reason].map(|text| cut(text));
            connection
                .prepare_cached(
                    "INSERT INTO dead_letters (gateway, letter, epoch, record, function, kind, reason) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (gateway, letter, epoch) DO UPDATE SET \
                     record = excluded.record, function = excluded.function, kind = excluded.kind, \
                     reason = excluded.reason WHERE record IS NULL",
                )?
                .execute(params![gateway.0, letter, epoch, key, function, kind, reason])?;
        }
        // Records may come in any order, and "gone" is only said of what ended before.
        What::Resolved(resolved) => {
            connection
                .prepare_cached(
                    "INSERT INTO dead_letters (gateway, letter, epoch, resolved) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (gateway, letter, epoch) DO UPDATE SET resolved = excluded.resolved \
                     WHERE resolved IS NULL OR resolved = ?5",
                )?
                .execute(params![gateway.0, letter, epoch, to_json(&resolved), to_json(&Resolved::Gone)])?;
        }
    }
    Ok(())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LIST_TEXT)]
}

/// Whether a letter waits for a command.
const WAITS: &str = "EXISTS (SELECT 1 FROM commands c WHERE c.gateway = d.gateway AND c.number = d.command)";

/// What [`letter`] reads.
fn select() -> String {
    format!(
        "SELECT d.key, g.id, d.epoch, d.letter, d.function, d.kind, d.reason, r.device, r.topic, r.wall_us, \
         CASE WHEN {WAITS} THEN d.wanted END, d.resolved, d.record FROM dead_letters d \
         CROSS JOIN gateways g ON g.key = d.gateway CROSS JOIN records r ON r.key = d.record"
    )
}

fn letter(row: &Row<'_>) -> Result<DeadLetter, Fault> {
    Ok(DeadLetter {
        gateway: row.get(1)?,
        epoch: epoch_text(row.get(2)?),
        letter: unsigned(row.get(3)?)?,
        function: row.get(4)?,
        kind: row.get(5)?,
        reason: row.get(6)?,
        device: row.get(7)?,
        topic: row.get(8)?,
        wall_us: row.get::<_, i64>(9)?.cast_unsigned(),
        waits_for: row.get::<_, Option<String>>(10)?.map(|text| from_json("an action", &text)).transpose()?,
        resolved: row.get::<_, Option<String>>(11)?.map(|text| from_json("an end", &text)).transpose()?,
    })
}

/// The query of a list, and its values.
fn list_sql(gateway: Option<i64>, function: Option<&str>, after: i64) -> (String, Vec<Value>) {
    let mut sql = format!("{} WHERE d.resolved IS NULL AND d.key > ?", select());
    let mut values = vec![Value::from(after)];
    if let Some(gateway) = gateway {
        sql.push_str(" AND d.gateway = ?");
        values.push(gateway.into());
    }
    if let Some(function) = function {
        // With a gateway, its letters are looked through: the index of those of a function may hold a whole fleet's.
        sql.push_str(if gateway.is_some() { " AND +d.function = ?" } else { " AND d.function = ?" });
        values.push(function.to_owned().into());
    }
    sql.push_str(" ORDER BY d.key");
    (sql, values)
}

/// A page of the letters that match and are not resolved.
pub(crate) fn page(connection: &Connection, query: &DeadQuery) -> Result<DeadLetters, Fault> {
    let limit = paging::limit(query.limit)?;
    let gateway = query.gateway.as_deref().map(|id| key_of(connection, id)).transpose()?;
    let mut last = query.cursor.as_deref().map_or(Ok(0), paging::read_key)?;
    let (sql, values) = list_sql(gateway, query.function.as_deref(), last);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut page, mut bytes) = (DeadLetters { letters: Vec::new(), next: None }, 0);
    while let Some(row) = rows.next()? {
        if page.letters.len() == limit || bytes >= MAX_PAGE_BYTES {
            page.next = Some(paging::write_key(last));
            break;
        }
        last = row.get(0)?;
        let letter = letter(row)?;
        bytes += letter.function.len() + letter.reason.len() + letter.device.len() + letter.topic.len();
        page.letters.push(letter);
    }
    Ok(page)
}

fn unknown(id: &str, letter: u64) -> Fault {
    let message = format!(
        "the gateway {id} has told of no dead letter {letter}; `edgectl dead list --gateway {id}` shows those that it has"
    );
    Fault::not_found("unknown_letter", message)
}

/// One letter in full: where a number was given by several epochs, what is not resolved, or the latest.
pub(crate) fn detail(connection: &Connection, id: &str, number: u64) -> Result<api::DeadLetterDetail, Fault> {
    let sql = format!(
        "{} WHERE d.gateway = ?1 AND d.letter = ?2 ORDER BY d.resolved IS NULL DESC, d.key DESC LIMIT 1",
        select()
    );
    let found = connection
        .prepare_cached(&sql)?
        .query_row(params![key_of(connection, id)?, signed(number)], |row| Ok((letter(row), row.get::<_, i64>(12)?)))
        .optional()?;
    let (letter, record) = found.ok_or_else(|| unknown(id, number))?;
    let body: Vec<u8> =
        connection.prepare_cached("SELECT body FROM records WHERE key = ?1")?.query_row([record], |row| row.get(0))?;
    match serde_json::from_slice(&body) {
        Ok(Note { what: What::Dead(dead), .. }) => Ok(api::DeadLetterDetail { letter: letter?, dead: *dead }),
        _ => Err(Fault::Damaged(format!("record {record} tells of a dead letter no more"))),
    }
}

/// Stores what is to be done with letters of a gateway, as commands with numbers that grow.
pub(crate) fn command(connection: &Connection, id: &str, wanted: &DeadCommand) -> Result<DeadCommanded, Fault> {
    let (gateway, action) = (key_of(connection, id)?, to_json(&wanted.action));
    let mut chosen = Chosen { action: wanted.action, letters: Vec::new(), said: DeadCommanded::default() };
    let select = format!(
        "SELECT d.key, d.epoch, d.letter, d.function, d.resolved IS NOT NULL, d.wanted IS ?2 AND {WAITS} \
         FROM dead_letters d WHERE d.record IS NOT NULL AND d.gateway = ?1"
    );
    match &wanted.letters {
        Letters::These(numbers) => {
            if numbers.is_empty() || numbers.len() > MAX_PAGE as usize || wanted.function.is_some() {
                let message = format!("name 1 to {MAX_PAGE} letters, without a function; or \"all\"");
                return Err(Fault::bad("bad_letters", message));
            }
            let mut find = connection.prepare_cached(&format!("{select} AND d.letter = ?3"))?;
            // Each once, whoever names it twice.
            for number in numbers.iter().collect::<BTreeSet<_>>() {
                let mut rows = find.query(params![gateway, action, signed(*number)])?;
                let mut known = false;
                while let Some(row) = rows.next()? {
                    known = true;
                    chosen.look(row)?;
                }
                if !known {
                    return Err(unknown(id, *number));
                }
            }
            if let (Some(number), 1..) = (numbers.first(), chosen.said.not_retriable) {
                let message = format!(
                    "of {} letters from {number} on, {} are events that never reached a function ({INLET}), so there is \
                     none to give them to; drop them, and have what sends them say what it should",
                    numbers.len(),
                    chosen.said.not_retriable
                );
                return Err(Fault::bad("not_retriable", message));
            }
        }
        Letters::All(_) => {
            let sql = format!("{select} AND d.resolved IS NULL AND (?3 IS NULL OR +d.function = ?3) ORDER BY d.key");
            let mut find = connection.prepare_cached(&sql)?;
            let mut rows = find.query(params![gateway, action, wanted.function])?;
            while let Some(row) = rows.next()? {
                if chosen.letters.len() == MAX_COMMANDED {
                    chosen.said.more = true;
                    break;
                }
                chosen.look(row)?;
            }
        }
    }
    chosen.store(connection, gateway, &action)?;
    Ok(chosen.said)
}

/// Letters for a command.
struct Chosen {
    action: Action,
    // Key, epoch and number of each.
    letters: Vec<(i64, i64, u64)>,
    said: DeadCommanded,
}

impl Chosen {
    fn look(&mut self, row: &Row<'_>) -> Result<(), Fault> {
        let (resolved, waits): (bool, bool) = (row.get(4)?, row.get(5)?);
        let counted = if resolved {
            &mut self.said.resolved
        } else if self.action == Action::Retry && row.get_ref(3)?.as_str().is_ok_and(|function| function == INLET) {
            &mut self.said.not_retriable
        } else if waits {
            &mut self.said.waiting
        } else {
            self.letters.push((row.get(0)?, row.get(1)?, unsigned(row.get(2)?)?));
            &mut self.said.letters
        };
        *counted += 1;
        Ok(())
    }

    fn store(&mut self, connection: &Connection, gateway: i64, action: &str) -> Result<(), Fault> {
        let mut number: i64 = connection
            .prepare_cached("SELECT commands FROM gateways WHERE key = ?1")?
            .query_row([gateway], |row| row.get(0))?;
        // Stable: within an epoch they stay in their order.
        self.letters.sort_by_key(|(_, epoch, _)| *epoch);
        let commands = self.letters.chunk_by(|(_, one, _), (_, other, _)| one == other);
        for letters in commands.flat_map(|of_epoch| of_epoch.chunks(MAX_LETTERS)) {
            number += 1;
            let numbers: Vec<u64> = letters.iter().map(|(_, _, letter)| *letter).collect();
            connection
                .prepare_cached(
                    "INSERT INTO commands (gateway, number, epoch, action, letters) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![gateway, number, letters[0].1, action, to_json(&numbers)])?;
            for (key, ..) in letters {
                connection
                    .prepare_cached("UPDATE dead_letters SET wanted = ?2, command = ?3 WHERE key = ?1")?
                    .execute(params![key, action, number])?;
            }
        }
        connection
            .prepare_cached("UPDATE gateways SET commands = ?2 WHERE key = ?1")?
            .execute(params![gateway, number])?;
        Ok(())
    }
}

/// Commands that a gateway has not carried out, the first ones.
pub(crate) fn commands(connection: &Connection, gateway: GatewayKey, done: u64) -> Result<Vec<Command>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT number, epoch, action, letters FROM commands WHERE gateway = ?1 AND number > ?2 ORDER BY number \
         LIMIT ?3",
    )?;
    let mut rows = statement.query(params![gateway.0, signed(done), signed(MAX_COMMANDS as u64)])?;
    let mut commands = Vec::new();
    while let Some(row) = rows.next()? {
        commands.push(Command {
            number: unsigned(row.get(0)?)?,
            epoch: StoreEpoch(row.get::<_, i64>(1)?.cast_unsigned()),
            action: from_json("an action", &row.get::<_, String>(2)?)?,
            letters: from_json("the letters of a command", &row.get::<_, String>(3)?)?,
        });
    }
    Ok(commands)
}

/// Forgets what a gateway has carried out.
pub(crate) fn done(connection: &Connection, gateway: GatewayKey, done: u64) -> Result<(), Fault> {
    let done = signed(done);
    let given: i64 = connection
        .prepare_cached("SELECT commands FROM gateways WHERE key = ?1")?
        .query_row([gateway.0], |row| row.get(0))?;
    if done <= given {
        connection
            .prepare_cached("DELETE FROM commands WHERE gateway = ?1 AND number <= ?2")?
            .execute(params![gateway.0, done])?;
        return Ok(());
    }
    // More than we gave: our database is an older copy that was put back. Which of ours were done nobody knows, and
    // done twice they are done once, so all of them go past what it has.
    for sql in [
        "UPDATE commands SET number = number + ?2 WHERE gateway = ?1",
        "UPDATE dead_letters SET command = command + ?2 WHERE gateway = ?1 AND resolved IS NULL",
        "UPDATE gateways SET commands = commands + ?2 WHERE key = ?1",
    ] {
        connection.prepare_cached(sql)?.execute(params![gateway.0, done])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_without_sorting_or_passing_over_others() {
        let mut connection = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&mut connection).unwrap();
        for (gateway, function, index) in [
            (None, None, "dead_letters_open (key>?)"),
            (Some(1), None, "dead_letters_of_gateway (gateway=? AND key>?)"),
            (None, Some("f"), "dead_letters_of_function (function=? AND key>?)"),
            (Some(1), Some("f"), "dead_letters_of_gateway (gateway=? AND key>?)"),
        ] {
            let (sql, values) = list_sql(gateway, function, 0);
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            let plan: Vec<String> = plan.map(Result::unwrap).collect();
            assert!(plan[0].contains(index), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN")), "{plan:?}");
        }
    }
}
