//! One gateway: how it is, what became of its records, and which of them do not exist any more.

use sync_core::api::{self, GapKind, GapQuery, StreamCounts};

use crate::args::Gaps;
use crate::client::{Client, path};
use crate::failure::Failure;
use crate::out::{Out, note, plain, table};
use crate::show::{pairs, word};
use crate::time;

/// What stands for a stream that nobody knows any more.
const UNKNOWN: &str = "(unknown)";

pub(crate) async fn show(out: &Out, client: &Client, id: &str) -> Result<(), Failure> {
    let answer = client.get(&format!("asking for the gateway {id}"), &path(&["gateways", id])).await?;
    out.answer(&answer, |detail: &api::GatewayDetail| {
        let gateway = &detail.gateway;
        [identity(gateway), functions(gateway), streams(detail), refused(gateway)].join("\n")
    })
}

fn identity(gateway: &api::Gateway) -> String {
    let seen = gateway.last_seen_us.map_or_else(String::new, |us| format!(", seen {}", time::show_ago(us)));
    let mut rows = vec![
        ["NAME", &gateway.name].map(str::to_owned),
        ["LABELS".to_owned(), pairs(&gateway.labels)],
        ["HEALTH".to_owned(), format!("{}{seen}", word(&gateway.health))],
        ["ENROLLED".to_owned(), time::show(gateway.enrolled_us)],
        ["AGENT", &gateway.agent_version].map(str::to_owned),
    ];
    if let Some(reported) = &gateway.reported {
        let state = if reported.generation == gateway.generation { "as desired" } else { "behind what is desired" };
        rows.extend([
            ["UPTIME".to_owned(), format!("{} s", reported.uptime_s)],
            ["STATE".to_owned(), state.to_owned()],
            ["EVENTS".to_owned(), format!("{} since it started", reported.handled)],
            ["DEAD LETTERS".to_owned(), reported.dead_letters.to_string()],
        ]);
    }
    table(["ID", &gateway.id], rows)
}

/// What should run and what does.
fn functions(gateway: &api::Gateway) -> String {
    let states: Vec<_> = gateway.reported.iter().flat_map(|reported| &reported.functions).collect();
    let missing = gateway.desired.iter().filter(|desired| states.iter().all(|state| state.name != desired.function));
    let desired = |name: &str| gateway.desired.iter().find(|desired| desired.function == name);
    let dash = || "-".to_owned();
    let version = |text: &str| if text.is_empty() { dash() } else { text.to_owned() };
    let rows = states.iter().map(|state| {
        let desired = desired(&state.name).map_or_else(dash, |desired| desired.version.clone());
        [state.name.clone(), desired, version(&state.version), word(&state.status), state.detail.clone()]
    });
    let unreported = missing.map(|desired| {
        [desired.function.clone(), desired.version.clone(), dash(), "not reported".to_owned(), String::new()]
    });
    table(["FUNCTION", "DESIRED", "RUNS", "STATUS", "DETAIL"], rows.chain(unreported))
}

/// Where every record of every stream is.
fn streams(detail: &api::GatewayDetail) -> String {
    let (gateway, reported) = (&detail.gateway, detail.gateway.reported.as_ref());
    // Who never reported may have anything waiting.
    let waiting = |count: u64| if reported.is_some() { count.to_string() } else { "?".to_owned() };
    let row = |stream: &StreamCounts| {
        let why = stream.dropped.iter().map(|(reason, count)| format!("{} {count}", word(reason)));
        let why: Vec<String> = why.collect();
        [
            if stream.name.is_empty() { UNKNOWN.to_owned() } else { stream.name.clone() },
            stream.all().to_string(),
            stream.delivered.to_string(),
            waiting(stream.waiting),
            waiting(stream.waiting_bytes),
            stream.dropped_in_all().to_string(),
            stream.missing.to_string(),
            why.join(", "),
        ]
    };
    let counts = gateway.records;
    let waits = reported.map_or(0, |reported| reported.waiting);
    let bytes = detail.streams.iter().fold(0_u64, |sum, stream| sum.saturating_add(stream.waiting_bytes));
    let all = [counts.stored, waits, counts.dropped, counts.missing].into_iter().fold(0, u64::saturating_add);
    let total = [
        "ALL STREAMS".to_owned(),
        all.to_string(),
        counts.stored.to_string(),
        waiting(waits),
        waiting(bytes),
        counts.dropped.to_string(),
        counts.missing.to_string(),
        String::new(),
    ];
    let header = ["STREAM", "RECORDS", "DELIVERED", "WAITING", "BYTES WAITING", "DROPPED", "MISSING", "WHY DROPPED"];
    table(header, detail.streams.iter().map(row).chain([total]))
}

/// What came and was not stored.
fn refused(gateway: &api::Gateway) -> String {
    let row = |name: &str, count: u64, what: &str| [name.to_owned(), count.to_string(), what.to_owned()];
    let counts = gateway.records;
    let duplicates = row("duplicates", counts.duplicates, "came again, or after they were told as gone");
    let conflicts =
        row("conflicts", counts.conflicts, "contradict what is stored or was told; anything but 0 is an alarm");
    table(["REFUSED", "NUMBER", "WHAT"], [duplicates, conflicts])
}

pub(crate) async fn gaps(out: &Out, client: &Client, wanted: Gaps) -> Result<(), Failure> {
    let Gaps { id, limit, cursor } = wanted;
    let query = GapQuery { limit: Some(limit), cursor };
    let doing = format!("asking for the gaps of the gateway {id}");
    let answer = client.get_with(&doing, &path(&["gateways", &id, "gaps"]), &query).await?;
    out.answer(&answer, |page: &api::Gaps| {
        let rows = page.gaps.iter().map(|gap| {
            [
                gap.epoch.clone(),
                word(&gap.class),
                gap.first.to_string(),
                gap.last.to_string(),
                word(&gap.kind),
                what(gap),
                gap.told_us.map_or_else(|| "-".to_owned(), time::show),
            ]
        });
        table(["EPOCH", "CLASS", "FIRST", "LAST", "KIND", "WHAT", "TOLD"], rows)
    })?;
    if let (false, Some(next)) = (out.json, &answer.value.next) {
        note(&plain(&format!("there are more; go on with --cursor {next}")));
    }
    Ok(())
}

/// What the records of a gap were, and why they are not there.
fn what(gap: &api::Gap) -> String {
    let tally = gap.tally.iter().map(|one| {
        let stream = if one.stream.is_empty() { UNKNOWN } else { &one.stream };
        format!("{stream} {} {}", word(&one.reason), one.count)
    });
    match (gap.kind, gap.tally.is_empty()) {
        (GapKind::Missing, _) => "no reason given".to_owned(),
        (GapKind::Gone, true) => "counted with the gap before".to_owned(),
        (GapKind::Gone, false) => tally.collect::<Vec<_>>().join(", "),
    }
}
