//! Shows records.

use std::time::Duration;

use sync_core::api::{self, Body, Page, Record, RecordQuery};

use crate::args::Records;
use crate::client::Client;
use crate::failure::Failure;
use crate::out::{Out, note, plain, table};
use crate::time;

/// Most records that one answer may hold.
const MAX_PAGE: u32 = 1_000;

/// How often new records are asked for with `--follow`.
const ASK_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn records(out: &Out, client: &Client, wanted: Records) -> Result<(), Failure> {
    let Records { stream, device, gateway, function, from, to, limit, cursor, follow: follows } = wanted;
    let query = RecordQuery { stream, device, gateway, function, from, to, limit: None, cursor };
    if follows { follow(out, client, query).await } else { show(out, client, query, limit).await }
}

async fn ask(client: &Client, query: &RecordQuery) -> Result<Page, Failure> {
    Ok(client.get_with("asking for records", "/records", query).await?.value)
}

/// As many as wanted, over as many pages as that takes.
async fn show(out: &Out, client: &Client, mut query: RecordQuery, limit: u32) -> Result<(), Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut all: Option<Page> = None;
    loop {
        let left = limit - all.as_ref().map_or(0, |page| page.records.len());
        query.limit = Some(u32::try_from(left).unwrap_or(MAX_PAGE).min(MAX_PAGE));
        let page = ask(client, &query).await?;
        query.cursor = page.next.clone();
        let page = match all.take() {
            None => page,
            Some(mut before) => {
                before.records.extend(page.records);
                Page { records: before.records, ..page }
            }
        };
        if page.next.is_none() || page.records.len() >= limit {
            all = Some(page);
            break;
        }
        all = Some(page);
    }
    let Some(page) = all else { return Ok(()) };
    out.value(&page, || {
        let rows = page.records.iter().map(|record| {
            [
                time::show(record.wall_us),
                record.stream.clone(),
                record.device.clone(),
                record.function.clone(),
                body(record),
            ]
        });
        table(["TIME", "STREAM", "DEVICE", "FUNCTION", "BODY"], rows).trim_end().to_owned()
    })?;
    if let (false, Some(next)) = (out.json, &page.next) {
        note(&format!("there are more; go on with --cursor {next}"));
    }
    Ok(())
}

async fn follow(out: &Out, client: &Client, mut query: RecordQuery) -> Result<(), Failure> {
    query.limit = Some(MAX_PAGE);
    loop {
        let page = ask(client, &query).await?;
        for record in &page.records {
            out.value(record, || {
                let api::Record { wall_us, stream, device, function, .. } = record;
                plain(&format!("{}  {stream}  {device}  {function}  {}", time::show(*wall_us), body(record)))
            })?;
        }
        query.cursor = Some(page.resume);
        if page.next.is_none() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

fn body(record: &Record) -> String {
    let body = match &record.body {
        Body::Json(json) => json.get().replace('\n', " "),
        Body::Hex(hex) => format!("hex {hex}"),
    };
    if record.intact { body } else { format!("DAMAGED {body}") }
}
