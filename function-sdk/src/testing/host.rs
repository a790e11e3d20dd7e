//! The gateway's side of one run, in memory.

use std::collections::BTreeMap;
use std::panic::resume_unwind;

use function_abi::{BLOB_DIGEST, LogLevel, Priority, PublishFlags};
use function_package::{
    Allow, BlobPattern, Limits, MAX_TWIN_VALUE_BYTES, Target, check_blob_name, check_metric_name, check_stream_name,
    check_twin_name,
};

use super::{Emitted, Enqueued, LogLine, Published, PutBlob, Reported, Requested, Response, State, Stored};
use crate::Request;

/// Why a run ended in the middle; thrown, since an effect that is not allowed does not return on a gateway either.
pub(super) struct Trap(pub(super) String);

/// What the handler sees of the gateway.
pub(crate) struct Host {
    name: String,
    config: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    limits: Limits,
    /// `None`: there is no manifest, and everything is allowed.
    allow: Option<Allow>,
    pub(super) state: State,
    /// What other partitions hold, in bytes.
    elsewhere: u64,
    time_us: u64,
    pub(super) random: u64,
    pub(super) emitted: Vec<Emitted>,
    pub(super) published: Vec<Published>,
    pub(super) enqueued: Vec<Enqueued>,
    pub(super) reported: Vec<Reported>,
    pub(super) requested: Vec<Requested>,
    pub(super) response: Option<Response>,
    pub(super) counted: Vec<(String, f64)>,
    pub(super) observed: Vec<(String, f64)>,
    /// As they were before the run.
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    /// `None`: all of them.
    pub(super) readable: Option<Vec<BlobPattern>>,
    /// What names the content of the event's blob, and the blob.
    pub(super) event_blob: Option<(String, String)>,
    pub(super) blobs_put: Vec<PutBlob>,
    pub(super) blobs_deleted: Vec<String>,
    pub(super) logs: Vec<LogLine>,
    effects: u32,
    output: usize,
    put: bool,
}

fn trap(message: String) -> ! {
    // Not `panic!`, which would write to the test's output.
    resume_unwind(Box::new(Trap(message)))
}

impl Host {
    pub(super) fn new(
        name: String,
        (config, secrets): (BTreeMap<String, String>, BTreeMap<String, String>),
        (state, elsewhere): (State, u64),
        limits: Limits,
        allow: Option<Allow>,
        random: u64,
        time_us: u64,
    ) -> Self {
        Self {
            name,
            config,
            secrets,
            limits,
            allow,
            state,
            elsewhere,
            time_us,
            random,
            reported: Vec::new(),
            emitted: Vec::new(),
            published: Vec::new(),
            enqueued: Vec::new(),
            requested: Vec::new(),
            response: None,
            counted: Vec::new(),
            observed: Vec::new(),
            blobs: BTreeMap::new(),
            readable: None,
            event_blob: None,
            blobs_put: Vec::new(),
            blobs_deleted: Vec::new(),
            logs: Vec::new(),
            effects: 0,
            output: 0,
            put: false,
        }
    }

    pub(crate) fn config_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.config.get(str::from_utf8(key).ok()?).map(|value| value.clone().into_bytes())
    }

    pub(crate) fn secret_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let Ok(name) = str::from_utf8(key) else { trap("secret_get: the key is not UTF-8".to_owned()) };
        if self.allow.as_ref().is_some_and(|allow| !allow.secrets.iter().any(|allowed| allowed == name)) {
            trap(format!(
                "secret_get: the secret {name:?} is not allowed; name it in function.toml under [allow] secrets"
            ));
        }
        self.secrets.get(name).map(|value| value.clone().into_bytes())
    }

    pub(crate) fn state_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.state.get(key).filter(|stored| stored.is_there(self.time_us)).map(|stored| stored.value.clone())
    }

    pub(crate) fn state_next(&mut self, prefix: &[u8], after: &[u8]) -> Option<Vec<u8>> {
        let there = self.state.iter().filter(|(_, stored)| stored.is_there(self.time_us)).map(|(key, _)| key);
        let mut keys = there.filter(|key| key.as_slice() > after || after < prefix);
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
        self.admit(name.len() + content_type.len() + body.len());
        let (name, content_type) = (name.to_owned(), content_type.to_owned());
        self.blobs_deleted.retain(|deleted| *deleted != name);
        self.blobs_put.push(PutBlob { name, content_type, body: body.to_vec() });
    }

    pub(crate) fn blob_delete(&mut self, name: &str) {
        self.check_change("blob_delete", name);
        self.admit(name.len());
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

    pub(crate) fn state_put(&mut self, key: &[u8], value: &[u8], ttl_s: Option<u32>) {
        let most = kib(self.limits.state_value_kib);
        if value.len() > most {
            let key = key.escape_ascii();
            trap(format!("state_put: the value of \"{key}\" has {} bytes; allowed are {most}", value.len()));
        }
        self.admit(key.len() + value.len());
        let ends_us = ttl_s.map(|ttl_s| self.time_us.saturating_add(u64::from(ttl_s) * 1_000_000));
        self.state.insert(key.to_vec(), Stored { value: value.to_vec(), ends_us });
        self.put = true;
    }

    pub(crate) fn state_delete(&mut self, key: &[u8]) {
        self.admit(key.len());
        self.state.remove(key);
    }

    pub(crate) fn emit(&mut self, stream: &str, body: &[u8], priority: Priority) {
        if let Err(error) = check_stream_name(stream) {
            trap(format!("emit: {stream:?}: {error}"));
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.stream(stream)) {
            trap(format!("emit: the stream {stream:?} is not allowed; name it in function.toml under [allow] streams"));
        }
        self.admit(stream.len() + body.len());
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
        self.admit(topic.len() + payload.len());
        self.published.push(Published { topic: topic.to_owned(), payload: payload.to_vec(), flags });
    }

    pub(crate) fn enqueue(&mut self, queue: &str, body: &[u8], delay_ms: u32) {
        if self.allow.as_ref().is_some_and(|allow| !allow.queues.iter().any(|allowed| allowed == queue)) {
            trap(format!("enqueue: the queue {queue:?} is not allowed; name it in function.toml under [allow] queues"));
        }
        self.admit(queue.len() + body.len());
        self.enqueued.push(Enqueued { queue: queue.to_owned(), body: body.to_vec(), delay_ms });
    }

    pub(crate) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        if !(200..=599).contains(&status) {
            trap(format!("respond: {status} is no status that ends a request; allowed is 200 to 599"));
        }
        self.admit(headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>() + body.len());
        let headers = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect();
        self.response = Some(Response { status, headers, body: body.to_vec() });
    }

    pub(crate) fn twin_report(&mut self, name: &str, value: &[u8]) {
        if let Err(error) = check_twin_name(name) {
            trap(format!("twin_report: {name:?}: {error}"));
        }
        if value.len() > MAX_TWIN_VALUE_BYTES {
            let bytes = value.len();
            trap(format!("twin_report: the value of {name:?} has {bytes} bytes; allowed are {MAX_TWIN_VALUE_BYTES}"));
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.property(name)) {
            trap(format!(
                "twin_report: the property {name:?} is not allowed; name it in function.toml under [allow] twin"
            ));
        }
        self.admit(name.len() + value.len());
        self.reported.push(Reported { name: name.to_owned(), value: value.to_vec() });
    }

    pub(crate) fn count(&mut self, name: &str, value: f64) {
        self.measured("count", name);
        self.counted.push((name.to_owned(), value));
    }

    pub(crate) fn observe(&mut self, name: &str, value: f64) {
        self.measured("observe", name);
        self.observed.push((name.to_owned(), value));
    }

    fn measured(&mut self, import: &str, name: &str) {
        if let Err(error) = check_metric_name(name) {
            trap(format!("{import}: {name:?}: {error}"));
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.metrics.iter().any(|allowed| allowed == name)) {
            trap(format!(
                "{import}: the metric {name:?} is not allowed; name it in function.toml under [allow] metrics"
            ));
        }
        self.admit(name.len() + size_of::<f64>());
    }

    /// The URL, and whether it is allowed; what the head may say is for the gateway to check.
    pub(crate) fn request(&mut self, request: Request) {
        let Request { url, head, body } = request;
        let target = match Target::parse(&url) {
            Ok(target) => target,
            Err(error) => trap(format!("request: the URL {url:?} cannot be used: {error}")),
        };
        if let Some(allow) = &self.allow {
            if !allow.hosts.iter().any(|host| host.allows(&target)) {
                trap(format!(
                    "request: the host of {url:?} is not allowed; name it in function.toml under [allow] hosts"
                ));
            }
            let to = head.iter().find(|(name, _)| name == "to").map_or(&self.name, |(_, to)| to);
            if *to != self.name && !allow.answers.contains(to) {
                trap(format!(
                    "request: answers to {to:?} are not allowed; name it in function.toml under [allow] answers"
                ));
            }
        }
        self.admit(
            url.len() + head.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>() + body.len(),
        );
        self.requested.push(Requested { url, head, body });
    }

    pub(crate) fn log(&mut self, level: LogLevel, text: &str) {
        self.log_with(level, text, &[]);
    }

    pub(crate) fn log_with(&mut self, level: LogLevel, text: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.logs.push(LogLine { level, text: text.to_owned(), fields });
    }

    /// What a gateway checks when the handler has returned.
    pub(super) fn check_state(&self) -> Result<(), String> {
        let own = self.state.iter().map(|(key, stored)| (key.len() + stored.value.len()) as u64);
        let (bytes, most) = (self.elsewhere + own.sum::<u64>(), u64::from(self.limits.state_kib) * 1024);
        if self.put && bytes > most {
            return Err(format!("the function's state would come to {bytes} bytes; allowed are {most}"));
        }
        Ok(())
    }

    fn admit(&mut self, bytes: usize) {
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
