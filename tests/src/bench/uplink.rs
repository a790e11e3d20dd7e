//! What a record costs on the way to the control plane, and how fast a backlog gets there.

use anyhow::{Result, ensure};
use serde_json::json;

use super::chart::{Bar, Chart};
use super::flood::Flood;
use super::memory::mib;
use super::row::{Goal, Row, Samples};
use super::{Results, Settings, gateway, https, say, wire};
use crate::{Inlet, backlog};

/// Records in a request of the peer, where it sends more than one.
const BATCH: usize = 1_000;

/// Records that are sent one a request: some are enough, for each costs the same.
const SINGLE: usize = 2_000;

/// A backlog that is far more than the agent holds of it at once, and yet small.
const FEW: u64 = 20_000;

pub(super) fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    bytes(settings, results)?;
    drain(settings, results)
}

fn bytes(settings: &Settings, results: &mut Results) -> Result<()> {
    let (mut ours, mut batched, mut single) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..settings.runs {
        let turn = bytes_for_a_record(settings)?;
        for (samples, value) in [&mut ours, &mut batched, &mut single].into_iter().zip(turn) {
            samples.0.push(value);
        }
    }
    let note = "all of TCP's payload, both ways; ours without TLS, which adds 22 bytes for each 16 KiB and a handshake";
    for (name, peer, values) in [
        ("uplink/bytes", "JSON over HTTPS, 1,000 a request", &batched),
        ("uplink/bytes/single", "JSON over HTTPS, one a request", &single),
    ] {
        let row = Row::new(name, ours.clone(), "bytes for a record").against(peer, values);
        results.push(row.goal(Goal::RatioAtMost(0.25)).note(note));
    }
    let bars = vec![
        Bar::new("agent", &ours, true),
        Bar::new("JSON over HTTPS, 1,000 a request", &batched, false),
        Bar::new("JSON over HTTPS, one a request", &single, false),
    ];
    results.charts.push(Chart::bars("uplink", "Bytes on the wire for a record", "bytes", bars));
    Ok(())
}

/// The agent's, JSON's where many records share a request, and where each has its own.
fn bytes_for_a_record(settings: &Settings) -> Result<[f64; 3]> {
    let system = gateway::system(Inlet::Own, false)?;
    let flood = Flood { connections: 100, window: 10, total: settings.load(100_000, 20_000) };
    flood.run(system.gateway.broker())?;
    let before = system.link.passed();
    system.link.restore()?;
    system.gateway.wait_until_drained(gateway::DEADLINE)?;
    let records = flood.publishes() as f64;
    let ours = (system.link.passed() - before) as f64 / records;
    let delivered = system.cloud.records("readings")?;
    ensure!(delivered.len() as f64 == records, "{} of {records} records were delivered", delivered.len());
    // What whoever writes this by hand would send: what the record is, where it belongs, and when it was.
    let json: Vec<String> = (1..)
        .zip(&delivered)
        .map(|(sequence, record)| {
            let milliseconds = record.body["time"].as_u64().unwrap_or(wire::FIRST);
            let time = format!(
                "2026-11-{:02}T10:{:02}:{:02}.{:03}Z",
                1 + sequence % 28,
                sequence / 60_000 % 60,
                sequence / 1_000 % 60,
                milliseconds % 1_000
            );
            json!({
                "gateway": "gateway",
                "stream": "readings",
                "sequence": sequence,
                "device": record.device,
                "time": time,
                "body": record.body,
            })
            .to_string()
        })
        .collect();
    let batched = https::bytes(&json, BATCH)? / records;
    let single = https::bytes(&json[..SINGLE.min(json.len())], 1)? / SINGLE.min(json.len()) as f64;
    say(format_args!("    a record: {ours:.1} bytes; JSON over HTTPS {batched:.1}, one a request {single:.1}"));
    Ok([ours, batched, single])
}

fn drain(settings: &Settings, results: &mut Results) -> Result<()> {
    let waiting = settings.load(1_000_000, 50_000) as u64;
    let (mut readings, mut large) = (Samples::default(), Samples::default());
    let (mut many, mut few) = (Samples::default(), Samples::default());
    for _ in 0..settings.runs {
        few.0.push(mib(backlog::measure(FEW, backlog::BODY, 1)?.peak));
        for (body, rate) in [(backlog::READING, &mut readings), (backlog::BODY, &mut large)] {
            let figures = backlog::measure(waiting, body, 1)?;
            rate.0.push(waiting as f64 / figures.drain.as_secs_f64());
            say(format_args!("    {:.0} records/s of {body} bytes", rate.0[rate.0.len() - 1]));
            if body == backlog::BODY {
                many.0.push(mib(figures.peak));
            }
        }
    }
    for (name, body, rate) in
        [("uplink/drain", backlog::READING, readings), ("uplink/drain/1000-bytes", backlog::BODY, large)]
    {
        let note = format!("{waiting} records of {body} bytes");
        results.push(Row::new(name, rate, "records/s").goal(Goal::AtLeast(100_000.0)).note(note));
    }
    let row = Row::new("uplink/memory", many, "MiB at most").against("a backlog of 20,000", &few);
    results.push(row.goal(Goal::RatioAtMost(1.5)));
    Ok(())
}
