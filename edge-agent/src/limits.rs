//! Every bound of the agent's own queues and caches, with its reason. The broker's are in its `Options`, a function's in
//! its manifest, a topic's and the deduplication's in the core.

use std::time::Duration;

use agent_core::lanes::MemoryLimits;

/// Events that were received and are not yet committed. Larger lets more of them share a commit; each holds its payload
/// in memory, so this times the largest packet is the worst case.
pub const EVENTS_IN_FLIGHT: usize = 8_192;

/// Events in flight that one function may want: beyond that, whoever sends one more waits, and nobody else does. Two commits
/// of a full group, so that the next ones run while the first is written.
pub const EVENTS_OF_A_FUNCTION: usize = 2 * GROUP;

/// Bytes of payload that events in flight may hold. Keeps the worst case of [`EVENTS_IN_FLIGHT`] within a small gateway.
pub const BYTES_IN_FLIGHT: u32 = 64 << 20;

/// Outcomes in one commit. One fsync for a thousand is as good as for ten thousand, and a thousand take about 2 ms to
/// write, which is what an acknowledgement waits at least.
pub const GROUP: usize = 1_024;

/// Runs that wait on one worker's stack while another is served. Each holds its instance; the last one is not interrupted.
pub const PAUSED_RUNS: usize = 8;

/// How often a worker looks whether something takes the place of a version that cannot be loaded.
pub const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What lanes may remember of their state and of the sources they heard.
pub const LANE_MEMORY: MemoryLimits = MemoryLimits { lane: 4 << 20, idle: 16 << 20 };

/// Publishes of functions that are handed over at once, before the first of them is confirmed. They come back to the
/// pipeline as events of one source, so this must stay below the deduplication's window.
pub const PUBLISHES_IN_FLIGHT: usize = 64;

/// Publishes that are read together, when so many wait: to read is to leave the runtime's threads for a moment.
pub const PUBLISHES_READ: usize = 512;

/// Publishes that an outside broker has taken before the store knows of one of them: at most so many go out once more after a
/// power failure. For the gateway's own functions it is what deduplication remembers.
pub const PUBLISHES_UNNOTED: u64 = 2_048;

/// How long the store may not know that a publish was taken. Most of them are noted with the next commit of events, and cost
/// none of their own.
pub const NOTE_WAIT: Duration = Duration::from_millis(20);

/// Records that are looked at at once when some must go: they are dropped in one commit, which the commit of others waits
/// for, some 10 ms.
pub const CANDIDATES: usize = 1_024;

/// Ranges of one request. Each is settled by itself, in some 20 µs, and the commit of others waits for that.
pub const RANGES: usize = 512;

/// How long requests follow each other before others may change what waits, such as those that drop records.
pub const OUTBOX_TURN: Duration = Duration::from_secs(1);

/// How often it is looked whether records have waited for too long: a tenth of the shortest time to live, within these. Also
/// how exact powered time is across a power cut.
pub const KEEP_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often it is looked whether a month is over, when its budget is used up.
pub const BUDGET_CHECK: Duration = Duration::from_secs(60);

/// Messages that were given to functions and have no outcome yet. As many as one device may have on the way.
pub const MESSAGES_IN_FLIGHT: usize = 128;

/// HTTP requests of functions that are on the way at once. Each holds its body and that of its answer.
pub const REQUESTS_IN_FLIGHT: usize = 32;

/// Of these, requests of one function: servers that hang hold up whoever asks them, and not the others.
pub const REQUESTS_OF_A_FUNCTION: usize = 8;

/// HTTP requests without an answer that the status counts: whoever sees so many knows enough, and counting costs time.
pub const REQUESTS_COUNTED: usize = 10_000;

/// How often the clock is looked at by whoever waits for a time of day: it may be set.
pub const LOOK_AT_CLOCK: Duration = Duration::from_secs(20);

/// How long a request of a function waits whose answer could not be written.
pub const REQUEST_AGAIN: Duration = Duration::from_secs(1);

/// Requests to functions over HTTP that wait for their answer at once. Each holds its body.
pub const HTTP_REQUESTS: usize = 256;

/// Blobs that are taken or given over HTTP at once. Each holds some pieces of 64 KiB.
pub const BLOB_TRANSFERS: usize = 16;

/// How long a client may send nothing of a blob, or take nothing of it.
pub const BLOB_IDLE: Duration = Duration::from_secs(60);

/// Files of a watched folder. Each is looked at every time, and what is known of it held in memory.
pub const WATCHED_FILES: usize = 10_000;

/// How often a watched folder is looked through: half of the time that a file must rest, within these.
pub const LOOK_AT_FOLDER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often contents to which nothing refers are looked for; also whenever there may be some.
pub const COLLECT_EVERY: Duration = Duration::from_secs(10);

/// Contents that are removed in one go.
pub const COLLECTED: usize = 256;

/// Header fields of a request that a function is told, in bytes; more are left out.
pub const HTTP_HEADER_BYTES: usize = 8 << 10;

/// Bytes of what a run read that a dead letter keeps, so that it can be made again: as much as the largest value of the
/// state by default, and little enough to send to the control plane.
pub const LETTER_READS_BYTES: usize = 64 << 10;

/// Bytes of what a run read that a recording keeps of it; a function with the usual fuel can ask for far more.
pub const RECORDED_READS_BYTES: usize = 1 << 20;

/// Bytes of a recording that nobody has taken yet. At 1 KiB a run this is what comes in some seconds from a busy gateway;
/// what does not fit is a gap in the recording.
pub const RECORDING_BYTES: usize = 4 << 20;

/// What a record holds beside what the function emitted: device, topic, stream and function, each with a length of u16
/// at most, and numbers.
const AROUND_A_BODY: usize = 4 * 65_535 + 1_024;

// A record that the store refuses would come again for ever.
const _: () =
    assert!(function_package::MAX_OUTPUT_KIB as usize * 1_024 + AROUND_A_BODY <= agent_store::MAX_RECORD_BYTES);
const _: () = assert!(CANDIDATES <= sync_protocol::records::MAX_ENTRIES);
const _: () = assert!(RANGES <= sync_protocol::records::MAX_ENTRIES);
const _: () = assert!(PUBLISHES_IN_FLIGHT as u64 * 2 <= agent_core::dedup::WINDOW);
const _: () = assert!(device_wire::WINDOW as u64 * 2 <= agent_core::dedup::WINDOW);
