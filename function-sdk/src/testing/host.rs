//! The gateway's side of one run, in memory.

use std::collections::BTreeMap;
use std::panic::resume_unwind;

use function_abi::{BLOB_DIGEST, LogLevel, Priority, PublishFlags};
use function_package::{Allow, BlobPattern, Limits, check_blob_name, check_stream_name};

use super::{Emitted, Enqueued, Published, PutBlob, Response, State};

/// Why a run ended in the middle; thrown, since an effect that is not allowed does not return on a gateway either.
pub(super) struct Trap(pub(super) String);

/// What the handler sees of the gateway.
pub(crate) struct Host {
    config: BTreeMap<String, String>,
    limits: Limits,
    /// `None`: there is no manifest, and everything is allowed.
    allow: Option<Allow>,
    pub(super) state: State,
    pub(super) random: u64,
    pub(super) emitted: Vec<Emitted>,
    pub(super) published: Vec<Published>,
    pub(super) enqueued: Vec<Enqueued>,
    pub(super) response: Option<Response>,
    /// As they were before the run.
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    /// `None`: all of them.
    pub(super) readable: Option<Vec<BlobPattern>>,
    /// What names the content of the event's blob, and the blob.
    pub(super) event_blob: Option<(String, String)>,
    pub(super) blobs_put: Vec<PutBlob>,
    pub(super) blobs_deleted: Vec<String>,
    pub(super) logs: Vec<(LogLevel, String)>,
    effects: u32,
    output: usize,
}

fn trap(message: String) -> ! {
    // Not `panic!`, which would write to the test's output.
    resume_unwind(Box::new(Trap(message)))
}

impl Host {
    pub(super) fn new(
        config: BTreeMap<String, String>,
        state: State,
        limits: Limits,
        allow: Option<Allow>,
        random: u64,
    ) -> Self {
        Self {
            config,
            limits,
            allow,
            state,
            random,
            emitted: Vec::new(),
            published: Vec::new(),
            enqueued: Vec::new(),
            response: None,
            blobs: BTreeMap::new(),
            readable: None,
            event_blob: None,
            blobs_put: Vec::new(),
            blobs_deleted: Vec::new(),
            logs: Vec::new(),
            effects: 0,
            output: 0,
        }
    }

    pub(crate) fn config_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.config.get(str::from_utf8(key).ok()?).map(|value| value.clone().into_bytes())
    }

    pub(crate) fn state_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.get(key).cloned()
    }

    pub(crate) fn state_next(&mut self, prefix: &[u8], after: &[u8]) -> Option<Vec<u8>> {
        let mut keys = self.state.keys().filter(|key| key.as_slice() > after || after < prefix);
        keys.find(|key| key.starts_with(prefix)).cloned()
    }

    pub(crate) fn blob_size(&mut self, name: &str) -> Option<u32> {
        self.blob("blob_size", name).map(|blob| blob.len() as u32)
    }

    pub(crate) fn blob_get(&mut self, name: &str, offset: u32, out: &mut [u8]) -> Option<usize> {
        let rest = self.blob("blob_get", name)?.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        Some(read)
    }

    fn blob(&self, import: &str, name: &str) -> Option<&Vec<u8>> {
        if name.starts_with(BLOB_DIGEST) {
            match &self.event_blob {
                Some((digest, event)) if digest == name => return self.blobs.get(event),
                _ => trap(format!("{import}: {name:?} is not the content of this event's blob")),
            }
        }
        if let Err(error) = check_blob_name(name) {
            trap(format!("{import}: {error}"));
        }
        if self.readable.as_ref().is_some_and(|patterns| !patterns.iter().any(|pattern| pattern.matches(name))) {
            trap(format!(
                "{import}: the blob {name:?} is not allowed; name it in function.toml under [allow] blobs_read"
            ));
        }
        self.blobs.get(name)
    }

    fn check_change(&self, import: &str, name: &str) {
        if let Err(error) = check_blob_name(name) {
            trap(format!("{import}: {error}"));
        }
        let allowed = |allow: &Allow| allow.blobs.iter().any(|pattern| pattern.matches(name));
        if !self.allow.as_ref().is_none_or(allowed) {
            trap(format!("{import}: the blob {name:?} is not allowed; name it in function.toml under [allow] blobs"));
        }
    }

    pub(crate) fn blob_put(&mut self, name: &str, content_type: &str, body: &[u8]) {
        self.check_change("blob_put", name);
        let content_type = if content_type.is_empty() { "application/octet-stream" } else { content_type };
        self.count(name.len() + content_type.len() + body.len());
        let (name, content_type) = (name.to_owned(), content_type.to_owned());
        self.blobs_deleted.retain(|deleted| *deleted != name);
        self.blobs_put.push(PutBlob { name, content_type, body: body.to_vec() });
    }

    pub(crate) fn blob_delete(&mut self, name: &str) {
        self.check_change("blob_delete", name);
        self.count(name.len());
        self.blobs_put.retain(|put| put.name != name);
        self.blobs_deleted.push(name.to_owned());
    }

    pub(crate) fn random_fill(&mut self, out: &mut [u8]) {
        for byte in out {
            // Xorshift (Marsaglia, 2003): the same numbers in every test run.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            *byte = self.random.to_le_bytes()[7];
        }
    }

    pub(crate) fn state_put(&mut self, key: &[u8], value: &[u8]) {
        let most = kib(self.limits.state_value_kib);
        if value.len() > most {
            let key = key.escape_ascii();
            trap(format!("state_put: the value of \"{key}\" has {} bytes; allowed are {most}", value.len()));
        }
        self.count(key.len() + value.len());
        self.state.insert(key.to_vec(), value.to_vec());
    }

    pub(crate) fn state_delete(&mut self, key: &[u8]) {
        self.count(key.len());
        self.state.remove(key);
    }

    pub(crate) fn emit(&mut self, stream: &str, body: &[u8], priority: Priority) {
        if let Err(error) = check_stream_name(stream) {
            trap(format!("emit: {stream:?}: {error}"));
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.stream(stream)) {
            trap(format!("emit: the stream {stream:?} is not allowed; name it in function.toml under [allow] streams"));
        }
        self.count(stream.len() + body.len());
        self.emitted.push(Emitted { stream: stream.to_owned(), body: body.to_vec(), priority });
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], flags: PublishFlags) {
        if topic.is_empty() || topic.contains(['+', '#', '\0']) {
            trap(format!("publish: {topic:?} is no topic: it is empty or holds a wildcard or U+0000"));
        }
        let allowed = |allow: &Allow| allow.publish.iter().any(|filter| matches(filter, topic));
        if !self.allow.as_ref().is_none_or(allowed) {
            trap(format!(
                "publish: the topic {topic:?} is not allowed; name it in function.toml under [allow] publish"
            ));
        }
        self.count(topic.len() + payload.len());
        self.published.push(Published { topic: topic.to_owned(), payload: payload.to_vec(), flags });
    }

    pub(crate) fn enqueue(&mut self, queue: &str, body: &[u8], delay_ms: u32) {
        if self.allow.as_ref().is_some_and(|allow| !allow.queues.iter().any(|allowed| allowed == queue)) {
            trap(format!("enqueue: the queue {queue:?} is not allowed; name it in function.toml under [allow] queues"));
        }
        self.count(queue.len() + body.len());
        self.enqueued.push(Enqueued { queue: queue.to_owned(), body: body.to_vec(), delay_ms });
    }

    pub(crate) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        if !(200..=599).contains(&status) {
            trap(format!("respond: {status} is no status that ends a request; allowed is 200 to 599"));
        }
        self.count(headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>() + body.len());
        let headers = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect();
        self.response = Some(Response { status, headers, body: body.to_vec() });
    }

    pub(crate) fn log(&mut self, level: LogLevel, text: &str) {
        self.logs.push((level, text.to_owned()));
    }

    fn count(&mut self, bytes: usize) {
        self.effects += 1;
        self.output += bytes;
        if self.effects > self.limits.effects {
            trap(format!("more than {} effects in one run", self.limits.effects));
        }
        if self.output > kib(self.limits.output_kib) {
            trap(format!("more than {} KiB of effects in one run", self.limits.output_kib));
        }
    }
}

fn kib(count: u32) -> usize {
    count as usize * 1024
}

/// Whether a topic filter matches a topic (MQTT 5.0, section 4.7).
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(name)) if wanted == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}
