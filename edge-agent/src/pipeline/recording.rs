//! Records the runs of a function for whoever asks, while he listens.
//!
//! While nobody does, a worker loads one flag. Otherwise it writes a frame after each run of that function, and never
//! waits: what does not fit into the room for frames on their way is counted, and is a gap in the recording.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use agent_functions::record::{Frame, RecordedRun, file};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::evidence::recorded;
use crate::limits;
use crate::plan::Version;

/// The recording of the moment, if there is one.
#[derive(Debug, Default)]
pub struct Recordings {
    on: AtomicBool,
    current: Mutex<Option<Recording>>,
}

#[derive(Debug)]
struct Recording {
    function: String,
    frames: mpsc::UnboundedSender<Bytes>,
    // Bytes that nobody has taken yet; what bounds the channel.
    waiting: Arc<AtomicUsize>,
    runs_left: u64,
    bytes_left: u64,
    // Runs that are missing behind the last frame, and why.
    gap: Option<(u64, String)>,
    digest: Option<[u8; 32]>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Of which function.
    pub function: String,
    /// It ends after so many runs.
    pub runs: u64,
    /// It ends before it is larger, in bytes.
    pub bytes: u64,
}

/// The bytes of a recording as they come; ends with it, and ends it when dropped.
pub struct Bytestream {
    frames: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    recordings: Arc<Recordings>,
}

impl Recordings {
    /// Begins one; `None`: there is one already.
    pub fn begin(self: &Arc<Self>, wanted: Wanted) -> Option<Bytestream> {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|current| !current.frames.is_closed()) {
            return None;
        }
        let (sender, frames) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let recording = Recording {
            function: wanted.function,
            frames: sender,
            waiting: waiting.clone(),
            runs_left: wanted.runs,
            bytes_left: wanted.bytes,
            gap: None,
            digest: None,
        };
        recording.send(file::HEADER.to_vec());
        *current = Some(recording);
        self.on.store(true, Ordering::Relaxed);
        Some(Bytestream { frames, waiting, recordings: self.clone() })
    }

    /// Whether the next run of this function is wanted.
    pub fn wants(&self, function: &str) -> bool {
        // A run that begins while a recording does may be in it or not.
        self.on.load(Ordering::Relaxed) && self.lock().as_ref().is_some_and(|current| current.function == function)
    }

    /// A run is over. Not recorded if `is_current` says that its outcome will be thrown away.
    pub fn put(&self, version: &Version, run: RecordedRun, is_current: impl FnOnce() -> bool) {
        let mut current = self.lock();
        let Some(recording) = current.as_mut().filter(|current| current.function == version.name) else {
            return;
        };
        // Asked within the lock: what is thrown away later comes before the gap that says so.
        if is_current() && !recording.put(version, run) {
            *current = None;
            self.on.store(false, Ordering::Relaxed);
        }
    }

    /// What was not committed is thrown away, and what was recorded of it never was.
    pub fn thrown_away(&self) {
        if let Some(recording) = self.lock().as_mut() {
            recording.miss(0, "a commit failed; what ran since the last one did not take place, and runs again");
        }
    }

    fn end(&self, waiting: &Arc<AtomicUsize>) {
        let mut current = self.lock();
        // It may be another one by now.
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.waiting, waiting)) {
            *current = None;
            self.on.store(false, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Recording>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    // Whether it goes on.
    fn put(&mut self, version: &Version, run: RecordedRun) -> bool {
        let mut bytes = self.gap();
        if self.digest != Some(*version.digest.as_bytes()) {
            file::write(&mut bytes, &Frame::Version(recorded(version)));
        }
        if !file::write(&mut bytes, &Frame::Run(Box::new(run))) {
            self.miss(1, "a run was too large");
            return true;
        }
        if bytes.len() as u64 > self.bytes_left {
            return self.end("it has as many bytes as were asked for");
        }
        let len = bytes.len();
        // A recording alone may fill the room, or what is larger than it would never be seen.
        let waiting = self.waiting.load(Ordering::Acquire);
        if waiting > 0 && waiting + len > limits::RECORDING_BYTES {
            self.miss(1, "runs came faster than they were taken");
            return true;
        }
        // What is missing is told now.
        (self.gap, self.digest) = (None, Some(*version.digest.as_bytes()));
        self.bytes_left -= len as u64;
        self.runs_left = self.runs_left.saturating_sub(1);
        if !self.send(bytes) {
            return false;
        }
        self.runs_left > 0 || self.end("it has as many runs as were asked for")
    }

    // Always false: it does not go on.
    fn end(&mut self, why: &str) -> bool {
        let mut bytes = self.gap();
        file::write(&mut bytes, &Frame::End { why: why.to_owned() });
        self.send(bytes);
        false
    }

    // The frame of what is missing, if anything is.
    fn gap(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some((runs, why)) = &self.gap {
            file::write(&mut bytes, &Frame::Gap { runs: *runs, why: why.clone() });
        }
        bytes
    }

    fn miss(&mut self, runs: u64, why: &str) {
        let (missed, _) = self.gap.get_or_insert_with(|| (0, why.to_owned()));
        *missed += runs;
    }

    // Whether anybody is there to take it.
    fn send(&self, bytes: Vec<u8>) -> bool {
        self.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
        self.frames.send(bytes.into()).is_ok()
    }
}

impl futures_core::Stream for Bytestream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.frames.poll_recv(cx);
        if let Poll::Ready(Some(bytes)) = &next {
            self.waiting.fetch_sub(bytes.len(), Ordering::AcqRel);
        }
        next.map(|bytes| bytes.map(Ok))
    }
}

impl Drop for Bytestream {
    fn drop(&mut self) {
        self.recordings.end(&self.waiting);
    }
}

impl fmt::Debug for Bytestream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytestream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_core::Event;
    use agent_core::event::EventKind;
    use agent_functions::Engine;
    use agent_functions::record::{Answers, Ended, RunResult};
    use function_package::Package;

    use super::*;
    use crate::install;

    fn version() -> Version {
        let module = r#"(module (memory (export "memory") 1)
            (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "edge_handle") (param i32 i32) (result i32) (i32.const 0)))"#;
        let manifest = "manifest = 1\nname = \"f\"\nversion = \"1.0.0\"\n[[trigger]]\nmqtt = \"a\"\n";
        let package = Package::pack(&wat::parse_str(module).unwrap(), manifest).unwrap();
        install::load(&Engine::new(), package.bytes(), Arc::new(package.bytes().clone()), &BTreeMap::new()).unwrap()
    }

    fn run(bytes: usize) -> RecordedRun {
        RecordedRun {
            partition: "d".into(),
            event: Event::new(EventKind::Mqtt, "d", "a", vec![7; bytes], 0),
            seed: 1,
            reads: Answers::default(),
            complete: true,
            result: RunResult {
                ended: Ended::Done(Vec::new()),
                logs: Vec::new(),
                logs_dropped: 0,
                fuel: 1,
                memory_bytes: 1,
            },
        }
    }

    fn wanted(runs: u64) -> Wanted {
        Wanted { function: "f".into(), runs, bytes: 1 << 30 }
    }

    /// What has come, in one letter each.
    fn taken(stream: &mut Bytestream, bytes: &mut Vec<u8>) -> String {
        while let Ok(chunk) = stream.frames.try_recv() {
            stream.waiting.fetch_sub(chunk.len(), Ordering::AcqRel);
            bytes.extend_from_slice(&chunk);
        }
        let letter = |frame: Result<Frame, file::Damage>| match frame {
            Ok(Frame::Version(_)) => "v".to_owned(),
            Ok(Frame::Run(_)) => "r".to_owned(),
            Ok(Frame::Gap { runs, .. }) => format!("g{runs}"),
            Ok(Frame::End { .. }) => "e".to_owned(),
            Err(_) => "-".to_owned(),
        };
        file::Frames::new(&bytes[..]).unwrap().map(letter).collect()
    }

    #[test]
    fn what_nobody_takes_is_a_gap_and_holds_no_memory() {
        let (recordings, version) = (Arc::new(Recordings::default()), version());
        assert!(!recordings.wants("f"));
        let mut stream = recordings.begin(wanted(5)).unwrap();
        assert!(recordings.begin(wanted(1)).is_none() && recordings.wants("f") && !recordings.wants("g"));
        // Two fit into the room, and three do not.
        for _ in 0..5 {
            recordings.put(&version, run(limits::RECORDING_BYTES * 2 / 5), || true);
        }
        assert!(stream.waiting.load(Ordering::Acquire) <= limits::RECORDING_BYTES);
        let mut bytes = Vec::new();
        assert_eq!(taken(&mut stream, &mut bytes), "vrr-");
        recordings.put(&version, run(1), || true);
        recordings.put(&version, run(1), || false);
        recordings.thrown_away();
        recordings.put(&version, run(1), || true);
        assert_eq!(taken(&mut stream, &mut bytes), "vrrg3rg0r-");
        recordings.put(&version, run(1), || true);
        assert_eq!(taken(&mut stream, &mut bytes), "vrrg3rg0rre");
        assert!(!recordings.wants("f"));
        // Whoever goes ends his own recording, and no other.
        let second = recordings.begin(wanted(1)).unwrap();
        drop(stream);
        assert!(recordings.wants("f"));
        drop(second);
        assert!(!recordings.wants("f"));
    }
}
