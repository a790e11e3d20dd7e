//! Tables of what the control plane knows.

use sync_core::api;
use sync_core::labels::Labels;

use crate::client::Answer;
use crate::failure::Failure;
use crate::out::{Out, plain, table};
use crate::time;

/// A value's name as JSON has it, so that people and programs read the same words.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("names become JSON");
    text.trim_matches('"').to_owned()
}

pub(crate) fn pairs(labels: &Labels) -> String {
    if labels.is_empty() {
        return "-".to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

pub(crate) fn claim(out: &Out, answer: &Answer<api::Claim>) -> Result<(), Failure> {
    out.answer(answer, |claim| claim.claim.clone())
}

pub(crate) fn claims(out: &Out, answer: &Answer<api::Claims>) -> Result<(), Failure> {
    out.answer(answer, |list| {
        let rows = list.claims.iter().map(|claim| {
            let gateway = claim.gateway.clone().unwrap_or_else(|| "-".to_owned());
            [claim.id.clone(), word(&claim.state), time::show(claim.expires_us), pairs(&claim.labels), gateway]
        });
        table(["ID", "STATE", "EXPIRES", "LABELS", "GATEWAY"], rows)
    })
}

pub(crate) fn gateways(out: &Out, answer: &Answer<api::Gateways>) -> Result<(), Failure> {
    out.answer(answer, |list| {
        let rows = list.gateways.iter().map(|gateway| {
            let reported = gateway.reported.as_ref();
            let functions = reported.into_iter().flat_map(|reported| &reported.functions);
            let functions: Vec<String> = functions.map(function_state).collect();
            let counts = gateway.records;
            [
                gateway.id.clone(),
                gateway.name.clone(),
                pairs(&gateway.labels),
                word(&gateway.health),
                gateway.last_seen_us.map_or_else(|| "-".to_owned(), time::show_ago),
                reported.map_or_else(|| "-".to_owned(), |reported| reported.waiting.to_string()),
                counts.stored.to_string(),
                counts.duplicates.to_string(),
                counts.dropped.to_string(),
                counts.missing.to_string(),
                counts.conflicts.to_string(),
                if functions.is_empty() { "-".to_owned() } else { functions.join(", ") },
            ]
        });
        let header = [
            "ID",
            "NAME",
            "LABELS",
            "HEALTH",
            "SEEN",
            "WAITING",
            "STORED",
            "DUPLICATES",
            "DROPPED",
            "MISSING",
            "CONFLICTS",
            "FUNCTIONS",
        ];
        let mut text = table(header, rows);
        for gateway in &list.gateways {
            for state in gateway.reported.iter().flat_map(|reported| &reported.functions) {
                if !state.detail.is_empty() {
                    text.push_str(&plain(&format!("\n{}, {}: {}", gateway.id, function_state(state), state.detail)));
                }
            }
        }
        text
    })
}

fn function_state(state: &api::FunctionState) -> String {
    let version = if state.version.is_empty() { "-" } else { &state.version };
    format!("{}@{version} {}", state.name, word(&state.status))
}

pub(crate) fn labels(out: &Out, answer: &Answer<api::Gateway>) -> Result<(), Failure> {
    out.answer(answer, |gateway| format!("{}: {}", gateway.id, pairs(&gateway.labels)))
}

pub(crate) fn publisher(out: &Out, answer: &Answer<api::Publisher>) -> Result<(), Failure> {
    out.answer(answer, |publisher| format!("key {} registered", publisher.key_id))
}

pub(crate) fn publishers(out: &Out, answer: &Answer<api::Publishers>) -> Result<(), Failure> {
    out.answer(answer, |list| {
        let rows = list.publishers.iter().map(|one| [one.key_id.clone(), one.public_key.clone()]);
        table(["KEY", "PUBLIC KEY"], rows)
    })
}

pub(crate) fn functions(out: &Out, answer: &Answer<api::Functions>) -> Result<(), Failure> {
    out.answer(answer, |list| {
        let rows = list.functions.iter().map(|function| {
            [
                function.name.clone(),
                function.version.clone(),
                function.size.to_string(),
                function.digest.clone(),
                function.key_id.clone(),
                if function.verified { "yes" } else { "no" }.to_owned(),
                time::show(function.pushed_us),
            ]
        });
        table(["NAME", "VERSION", "BYTES", "DIGEST", "KEY", "VERIFIED", "PUSHED"], rows)
    })
}

pub(crate) fn deployments(out: &Out, answer: &Answer<api::Deployments>) -> Result<(), Failure> {
    out.answer(answer, |list| {
        let rows = list.deployments.iter().map(|deployment| {
            [
                deployment.number.to_string(),
                word(&deployment.kind),
                deployment.function.clone(),
                deployment.version.clone().unwrap_or_else(|| "-".to_owned()),
                deployment.target.clone(),
                pairs(&deployment.config),
                time::show(deployment.created_us),
            ]
        });
        table(["NUMBER", "KIND", "FUNCTION", "VERSION", "TARGET", "CONFIG", "MADE"], rows)
    })
}

pub(crate) fn streams(out: &Out, answer: &Answer<api::Streams>) -> Result<(), Failure> {
    out.answer(answer, |list| {
        let rows = list.streams.iter().map(|stream| [stream.name.clone(), stream.records.to_string()]);
        table(["STREAM", "RECORDS"], rows)
    })
}

pub(crate) fn stats(out: &Out, answer: &Answer<api::Stats>) -> Result<(), Failure> {
    out.answer(answer, |stats| {
        let row = |name: &str, count: u64| [name.to_owned(), count.to_string()];
        let rows = [
            row("gateways", stats.gateways),
            row("online", stats.online),
            row("functions", stats.functions),
            row("records stored", stats.records.stored),
            row("duplicates refused", stats.records.duplicates),
            row("dropped", stats.records.dropped),
            row("missing", stats.records.missing),
            row("conflicts", stats.records.conflicts),
        ];
        table(["WHAT", "NUMBER"], rows)
    })
}
