//! Delivers records to the control plane, and deletes what it confirmed.

use std::sync::Arc;

use agent_core::Backoff;
use agent_core::uplink::{Answer, Sent, deletable};
use agent_store::{Damage, ErrorKind, Reader, StoreError, Write};
use sync_protocol::records::{Class, MAX_RANGE_BYTES, MAX_RANGE_RECORDS, Request, StoreEpoch, range_checksum};

use crate::counters::Counters;
use crate::link::Link;
use crate::pipeline::writer::{Sender, Wakers};

/// Delivers for as long as the agent runs.
pub async fn deliver(
    link: Arc<Link>,
    mut reader: Reader,
    epoch: StoreEpoch,
    writer: Sender,
    wakers: Arc<Wakers>,
    counters: Arc<Counters>,
    mut backoff: Backoff,
) {
    loop {
        match deliver_next(&link, &mut reader, epoch, &writer, &counters).await {
            Ok(Progress::Some) => backoff.succeeded(),
            Ok(Progress::None) => wakers.records.notified().await,
            Err(error) => {
                let wait = backoff.failed();
                tracing::warn!(?wait, "records stay in the outbox: {error}");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

enum Progress {
    Some,
    None,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

// One range of the first class that has one.
async fn deliver_next(
    link: &Link,
    reader: &mut Reader,
    epoch: StoreEpoch,
    writer: &Sender,
    counters: &Counters,
) -> Result<Progress, Error> {
    let outbox = match tokio::task::block_in_place(|| reader.outbox()) {
        Ok(outbox) => outbox,
        Err(error) => return pass_over(error, writer, counters).await,
    };
    let Some((class, _)) = Class::ALL
        .map(|class| (class, outbox.class(class)))
        .into_iter()
        .find(|(_, waiting)| waiting.first < waiting.next)
    else {
        return Ok(Progress::None);
    };
    // From the mark on, and not from the first row that is there: a row that should be there is to be noticed.
    let range = match tokio::task::block_in_place(|| reader.range(class, 0, MAX_RANGE_RECORDS, MAX_RANGE_BYTES)) {
        Ok(range) => range,
        Err(error) => return pass_over(error, writer, counters).await,
    };
    if range.records.is_empty() {
        return Ok(Progress::None);
    }
    let (first, count) = (range.first, range.records.len() as u64);
    let sent = Sent { epoch: epoch.0, class: class.number(), first, last: first + count - 1 };
    let checksum = range_checksum(&range.records);
    let request = Request { epoch, class, first, floor: first, checksum, records: range.records };
    let reply = link.records(&request).await?;
    let answer = Answer { epoch: reply.epoch.0, class: reply.class.number(), high_water: reply.high_water };
    let up_to = deletable(sent, answer).inspect_err(|alarm| {
        counters.alarms.add(1);
        tracing::error!("{alarm}");
    })?;
    if up_to < first {
        return Err(format!("the control plane took nothing of {first} to {}", sent.last).into());
    }
    if writer.write(vec![Write::Delivered { class, up_to }]).await.is_none() {
        return Err("what was delivered could not be marked in the store; it is sent again".into());
    }
    counters.delivered.add(up_to + 1 - first);
    Ok(Progress::Some)
}

// What cannot be read must not hold up what can: one record is passed over, and remembered as missing. The next request
// tells the control plane, by its floor. A store that is damaged beyond one record is given up.
async fn pass_over(error: StoreError, writer: &Sender, counters: &Counters) -> Result<Progress, Error> {
    let (class, first, last) = match error.damage() {
        Some(Damage::Record { class, sequence, .. }) => (*class, *sequence, *sequence),
        Some(Damage::MissingRecords { class, first, last }) => (*class, *first, *last),
        _ => {
            let text = error.to_string();
            if error.kind() == ErrorKind::Corrupt {
                writer.abandoned(error.into());
            }
            return Err(text.into());
        }
    };
    counters.alarms.add(1);
    tracing::error!("{error}; it is lost, and the records after it go on");
    let lost = Write::Lost { class, first, last, reason: error.to_string() };
    match writer.write(vec![lost]).await {
        Some(_) => Ok(Progress::Some),
        None => Err("what is lost could not be marked in the store; it is tried again".into()),
    }
}
