//! `edge-agent record`: has the agent that runs on this machine record a function's runs, into a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use agent_functions::record::{Frame, file};
use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;

use crate::choose_tls;
use crate::config::Config;
use crate::pipeline::recording::Wanted;

/// Records the next runs of a function, with their events and all that they read, until there are enough or it is
/// interrupted. The agent must run, with `[status]` in its configuration. `edgectl replay` makes the runs again.
///
/// The file holds what devices sent and what the function keeps of it; no secrets. It can be read by its owner only.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the function.
    #[arg(long)]
    pub function: String,
    /// Ends after so many runs.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=MAX_RUNS))]
    pub events: u64,
    /// Ends before the file is larger.
    #[arg(long, value_name = "M", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=MAX_BYTES >> 20))]
    pub max_mib: u64,
    /// Where to; NAME.edgerec in the current folder if not given. No file is overwritten.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Most runs of a recording.
pub const MAX_RUNS: u64 = 1_000_000;

/// Most bytes of a recording: a laptop holds it, and a gateway's disk may have to.
pub const MAX_BYTES: u64 = 1 << 30;

/// Records, and prints to `out` what there is.
///
/// # Errors
/// If the agent does not run or does not record, or the file cannot be written.
pub async fn run(
    config: &Config,
    arguments: &Arguments,
    mut stop: watch::Receiver<bool>,
    out: &mut dyn Write,
) -> Result<()> {
    let Some(address) = config.status else {
        bail!(
            "the agent is asked through its status, and the configuration has none; add [status] with listen = \"127.0.0.1:9180\""
        );
    };
    let url = format!("http://{}/recordings", reachable(address));
    let bytes = arguments.max_mib << 20;
    let wanted = Wanted { function: arguments.function.clone(), runs: arguments.events, bytes };
    choose_tls();
    let mut answer = reqwest::Client::new()
        .post(&url)
        .json(&wanted)
        .send()
        .await
        .with_context(|| format!("no agent answers at {url}; does it run, with this configuration?"))?;
    if !answer.status().is_success() {
        bail!("{}", answer.text().await?.trim_end());
    }
    let path = arguments.output.clone().unwrap_or_else(|| format!("{}.edgerec", arguments.function).into());
    let written = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).with_context(written)?;
    let mut taken = Taken::default();
    while taken.ended.is_none() {
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk.context("the agent broke off")?,
            _ = stop.wait_for(|stop| *stop) => {
                file.write_all(&taken.end("interrupted")).with_context(written)?;
                break;
            }
        };
        let Some(chunk) = chunk else { break };
        file.write_all(&taken.take(&chunk)?).with_context(written)?;
    }
    file.sync_all().with_context(written)?;
    let Taken { runs, missing, ended, .. } = taken;
    let ended = ended.as_deref().unwrap_or("the agent ended");
    let gaps = if missing > 0 { format!(", {missing} are missing") } else { String::new() };
    writeln!(out, "{runs} runs of {} are in {}{gaps}; {ended}", arguments.function, path.display())?;
    Ok(())
}

// An address that listens on all is reached on this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    }
}

/// What came: whole frames only are written, so that the file is sound wherever it ends.
#[derive(Default)]
struct Taken {
    pending: Vec<u8>,
    begun: bool,
    runs: u64,
    missing: u64,
    ended: Option<String>,
}

impl Taken {
    // The bytes that are whole by now.
    fn take(&mut self, chunk: &[u8]) -> Result<Vec<u8>> {
        self.pending.extend_from_slice(chunk);
        let mut whole = Vec::new();
        if !self.begun {
            let Some(header) = self.pending.get(..file::HEADER.len()) else { return Ok(whole) };
            ensure!(header == file::HEADER, "what answers there is no agent of this version");
            whole.extend(self.pending.drain(..file::HEADER.len()));
            self.begun = true;
        }
        while let Some(frame) = file::first_frame(&self.pending) {
            let len = frame.len();
            let read = file::Frames::new(&[file::HEADER, frame].concat()[..])?.next().transpose()?;
            match read {
                Some(Frame::Run(_)) => self.runs += 1,
                Some(Frame::Gap { runs, .. }) => self.missing += runs,
                Some(Frame::End { why }) => self.ended = Some(why),
                Some(Frame::Version(_)) | None => {}
            }
            whole.extend(self.pending.drain(..len));
        }
        Ok(whole)
    }

    fn end(&mut self, why: &str) -> Vec<u8> {
        let mut bytes = if self.begun { Vec::new() } else { file::HEADER.to_vec() };
        file::write(&mut bytes, &Frame::End { why: why.to_owned() });
        self.ended = Some(why.to_owned());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_written() {
        let mut bytes = file::HEADER.to_vec();
        file::write(&mut bytes, &Frame::Gap { runs: 3, why: "x".into() });
        let gap = bytes.len();
        file::write(&mut bytes, &Frame::End { why: "enough".into() });
        for cut in 0..=bytes.len() {
            let mut taken = Taken::default();
            let first = taken.take(&bytes[..cut]).unwrap();
            let whole = if cut == bytes.len() {
                cut
            } else if cut >= gap {
                gap
            } else if cut >= 8 {
                8
            } else {
                0
            };
            assert_eq!(first, bytes[..whole]);
            let rest = taken.take(&bytes[cut..]).unwrap();
            assert_eq!([first, rest].concat(), bytes);
            assert_eq!((taken.missing, taken.ended.as_deref()), (3, Some("enough")));
        }
        assert!(Taken::default().take(b"HTTP is no recording").is_err());
        let ended = Taken::default().end("interrupted");
        assert_eq!(file::Frames::new(&ended[..]).unwrap().count(), 1);
    }
}
