//! Every bound of the control plane, with its reason.

use std::time::Duration;

use sync_protocol::MAX_BODY_BYTES;
use sync_protocol::fleet::MAX_WAIT_S;

/// Most open connections. Each gateway keeps one or two open; more than this wait in the kernel's queue. Raising it
/// wants a higher limit of open files too.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;

/// A connection on which nothing moved in either direction for this long is closed: longer than the longest wait for news, during which
/// a gateway sends nothing.
pub(crate) const IDLE: Duration = Duration::from_secs(75);
const _: () = assert!(IDLE.as_secs() > MAX_WAIT_S as u64 + 10);

/// Most large bodies (ranges, reports, packages) that are held at the same time: with those of
/// [`MAX_BODY_BYTES`] and their decoded form this bounds the memory for them to some 250 MiB, and to three times as much
/// if all are made to be compressed and decoded into as much as can be.
pub(crate) const MAX_BODIES: usize = 32;

/// Most functions that are being sent at the same time: when a deployment wakes a whole fleet, this bounds the memory for
/// it to 512 MiB if functions are as large as they may be, and to some 5 MiB as they mostly are. Apart from
/// [`MAX_BODIES`], so that slow links on which functions are fetched do not keep records waiting.
pub(crate) const MAX_ARTIFACTS: usize = 64;

/// How long a request waits for one of [`MAX_BODIES`] or [`MAX_ARTIFACTS`]; then it is asked to come again later.
pub(crate) const BODY_TURN: Duration = Duration::from_secs(10);

/// A body has arrived after this time: 4 MiB in it are 140 KiB/s.
pub(crate) const BODY_ARRIVES: Duration = Duration::from_secs(30);

/// Of a body that is too large this much is read and thrown away, so that its sender gets to see the answer.
pub(crate) const DRAIN_BYTES: usize = 4 * MAX_BODY_BYTES;

/// Largest body of an enrolment, which is read before anybody proved who he is.
pub(crate) const MAX_ENROLL_BYTES: usize = 8 << 10;

/// Largest JSON body of the operator's interface: a deployment with a long configuration.
pub(crate) const MAX_JSON_BYTES: usize = 512 << 10;

/// Longest name that a gateway gives itself, and longest version of its agent, in bytes: they stand in tables.
pub(crate) const MAX_NAME_BYTES: usize = 128;

/// Most writes that wait for the writer; each may hold a body, so there are never more than a few beyond
/// [`MAX_BODIES`] that are large.
pub(crate) const WRITE_QUEUE: usize = 256;

/// Most writes of one transaction: enough that the price of one disk flush is shared, few enough that the first of
/// them does not wait long.
pub(crate) const MAX_GROUP: usize = 64;

/// Most reads that wait for a reader.
pub(crate) const READ_QUEUE: usize = 256;

/// Most records of one page, and how many there are if nobody says.
pub(crate) const MAX_PAGE: u32 = 1_000;
/// See [`MAX_PAGE`].
pub(crate) const DEFAULT_PAGE: u32 = 100;

/// A page ends when its records have this many bytes.
pub(crate) const MAX_PAGE_BYTES: usize = 4 << 20;

/// Most records that one page looks at, so that a rare match in a large store does not keep the reader for long.
pub(crate) const MAX_SCAN: usize = 50_000;

/// Most dead letters that one request has retried or dropped: as many rows change, and the others who write wait for
/// a fraction of a second. Who wants more asks again.
pub(crate) const MAX_COMMANDED: usize = 10_000;

/// Most bytes of each text that a list of dead letters shows.
pub(crate) const MAX_LIST_TEXT: usize = 1 << 10;

/// Longest life of a claim.
pub(crate) const MAX_CLAIM_S: u64 = 30 * 24 * 3_600;

/// Most sums (of a stream and a reason) that are shown of one gateway, the largest ones.
pub(crate) const MAX_SUMS_SHOWN: usize = 100;

/// Most streams of one gateway of which is shown what became of their records, those with most records; those of which
/// it reports that something waits come on top.
pub(crate) const MAX_STREAMS_SHOWN: usize = 100;

/// Most records that one request has looked up because it tells as gone what is stored: more than a gateway has on its
/// way at any time, few enough that the others who write wait for a fraction of a second. Of more than these nobody
/// asks which streams they are of.
pub(crate) const MAX_LOOKED_UP: u64 = 100_000;

/// At shutdown, requests under way have this long to end.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(10);
