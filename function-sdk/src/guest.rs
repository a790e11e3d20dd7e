//! The module's side of the contract: the imports and the two exports.
#![allow(unsafe_code, reason = "pointers cross the boundary between module and gateway here")]

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use function_abi::{ABSENT, Attributes, EVENT_ALIGN, LogLevel, Priority, PublishFlags};

use crate::{Context, Event, Request, Result};

mod imports {
    #[link(wasm_import_module = "edge_v1")]
    unsafe extern "C" {
        pub(super) fn config_get(key: *const u8, key_len: usize, out: *mut u8, out_cap: usize) -> i32;
        pub(super) fn secret_get(key: *const u8, key_len: usize, out: *mut u8, out_cap: usize) -> i32;
        pub(super) fn state_get(key: *const u8, key_len: usize, out: *mut u8, out_cap: usize) -> i32;
        pub(super) fn state_next(
            prefix: *const u8,
            prefix_len: usize,
            after: *const u8,
            after_len: usize,
            out: *mut u8,
            out_cap: usize,
        ) -> i32;
        pub(super) fn blob_size(name: *const u8, name_len: usize) -> i32;
        pub(super) fn blob_get(name: *const u8, name_len: usize, offset: u32, out: *mut u8, out_cap: usize) -> i32;
        pub(super) fn random_fill(out: *mut u8, out_len: usize);
        pub(super) fn state_put(key: *const u8, key_len: usize, value: *const u8, value_len: usize);
        pub(super) fn state_put_ttl(key: *const u8, key_len: usize, value: *const u8, value_len: usize, ttl_s: u32);
        pub(super) fn state_delete(key: *const u8, key_len: usize);
        pub(super) fn emit(stream: *const u8, stream_len: usize, body: *const u8, body_len: usize, priority: i32);
        pub(super) fn publish(topic: *const u8, topic_len: usize, payload: *const u8, payload_len: usize, flags: i32);
        pub(super) fn enqueue(queue: *const u8, queue_len: usize, body: *const u8, body_len: usize, delay_ms: u32);
        pub(super) fn respond(status: u32, headers: *const u8, headers_len: usize, body: *const u8, body_len: usize);
        pub(super) fn twin_report(name: *const u8, name_len: usize, value: *const u8, value_len: usize);
        pub(super) fn count(name: *const u8, name_len: usize, value: f64);
        pub(super) fn observe(name: *const u8, name_len: usize, value: f64);
        pub(super) fn blob_put(
            name: *const u8,
            name_len: usize,
            content_type: *const u8,
            content_type_len: usize,
            body: *const u8,
            body_len: usize,
        );
        pub(super) fn blob_delete(name: *const u8, name_len: usize);
        pub(super) fn request(
            url: *const u8,
            url_len: usize,
            head: *const u8,
            head_len: usize,
            body: *const u8,
            body_len: usize,
        );
        pub(super) fn log(level: i32, text: *const u8, text_len: usize);
        pub(super) fn log_with(level: i32, text: *const u8, text_len: usize, fields: *const u8, fields_len: usize);
        pub(super) fn fail(text: *const u8, text_len: usize) -> !;
    }
}

/// Room that a value is read into at first; most are shorter, and a longer one costs a second call.
const FIRST_ROOM: usize = 256;

/// The gateway, as the imports show it.
pub(crate) struct Host;

impl Host {
    pub(crate) fn config_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: the key is a live slice; `read` passes memory that it owns.
        read(|out, cap| unsafe { imports::config_get(key.as_ptr(), key.len(), out, cap) })
    }

    pub(crate) fn secret_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: as above.
        read(|out, cap| unsafe { imports::secret_get(key.as_ptr(), key.len(), out, cap) })
    }

    pub(crate) fn state_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: as above.
        read(|out, cap| unsafe { imports::state_get(key.as_ptr(), key.len(), out, cap) })
    }

    pub(crate) fn state_next(&mut self, prefix: &[u8], after: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: as above.
        read(|out, cap| unsafe {
            imports::state_next(prefix.as_ptr(), prefix.len(), after.as_ptr(), after.len(), out, cap)
        })
    }

    pub(crate) fn blob_size(&mut self, name: &str) -> Option<u32> {
        // SAFETY: the gateway only reads from the live slice.
        u32::try_from(unsafe { imports::blob_size(name.as_ptr(), name.len()) }).ok()
    }

    pub(crate) fn blob_get(&mut self, name: &str, offset: u32, out: &mut [u8]) -> Option<usize> {
        // SAFETY: the gateway reads from the one live slice, and writes to the other, which nobody else holds.
        let read = unsafe { imports::blob_get(name.as_ptr(), name.len(), offset, out.as_mut_ptr(), out.len()) };
        usize::try_from(read).ok()
    }

    pub(crate) fn random_fill(&mut self, out: &mut [u8]) {
        // SAFETY: the gateway writes `len` bytes to a live slice that nobody else holds.
        unsafe { imports::random_fill(out.as_mut_ptr(), out.len()) }
    }

    pub(crate) fn state_put(&mut self, key: &[u8], value: &[u8], ttl_s: Option<u32>) {
        let (key_at, value_at) = (key.as_ptr(), value.as_ptr());
        match ttl_s {
            // SAFETY: the gateway only reads from the two live slices.
            None => unsafe { imports::state_put(key_at, key.len(), value_at, value.len()) },
            // SAFETY: as above.
            Some(ttl_s) => unsafe { imports::state_put_ttl(key_at, key.len(), value_at, value.len(), ttl_s) },
        }
    }

    pub(crate) fn state_delete(&mut self, key: &[u8]) {
        // SAFETY: the gateway only reads from the live slice.
        unsafe { imports::state_delete(key.as_ptr(), key.len()) }
    }

    pub(crate) fn emit(&mut self, stream: &str, body: &[u8], priority: Priority) {
        // SAFETY: the gateway only reads from the two live slices.
        unsafe { imports::emit(stream.as_ptr(), stream.len(), body.as_ptr(), body.len(), priority as i32) }
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], flags: PublishFlags) {
        // SAFETY: the gateway only reads from the two live slices.
        unsafe { imports::publish(topic.as_ptr(), topic.len(), payload.as_ptr(), payload.len(), flags.to_i32()) }
    }

    pub(crate) fn enqueue(&mut self, queue: &str, body: &[u8], delay_ms: u32) {
        // SAFETY: the gateway only reads from the two live slices.
        unsafe { imports::enqueue(queue.as_ptr(), queue.len(), body.as_ptr(), body.len(), delay_ms) }
    }

    pub(crate) fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let fields = encode(headers);
        // SAFETY: the gateway only reads from the two live slices.
        unsafe { imports::respond(status.into(), fields.as_ptr(), fields.len(), body.as_ptr(), body.len()) }
    }

    pub(crate) fn twin_report(&mut self, name: &str, value: &[u8]) {
        // SAFETY: the gateway only reads from the two live slices.
        unsafe { imports::twin_report(name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
    }

    pub(crate) fn count(&mut self, name: &str, value: f64) {
        // SAFETY: the gateway only reads from the live slice.
        unsafe { imports::count(name.as_ptr(), name.len(), value) }
    }

    pub(crate) fn observe(&mut self, name: &str, value: f64) {
        // SAFETY: the gateway only reads from the live slice.
        unsafe { imports::observe(name.as_ptr(), name.len(), value) }
    }

    pub(crate) fn blob_put(&mut self, name: &str, content_type: &str, body: &[u8]) {
        let (kind, kind_len) = (content_type.as_ptr(), content_type.len());
        // SAFETY: the gateway only reads from the three live slices.
        unsafe { imports::blob_put(name.as_ptr(), name.len(), kind, kind_len, body.as_ptr(), body.len()) }
    }

    pub(crate) fn blob_delete(&mut self, name: &str) {
        // SAFETY: the gateway only reads from the live slice.
        unsafe { imports::blob_delete(name.as_ptr(), name.len()) }
    }

    pub(crate) fn request(&mut self, request: Request) {
        let Request { url, head, body } = request;
        let head: Vec<(&str, &str)> = head.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let head = encode(&head);
        // SAFETY: the gateway only reads from the three live slices.
        unsafe {
            imports::request(url.as_ptr(), url.len(), head.as_ptr(), head.len(), body.as_ptr(), body.len());
        }
    }

    pub(crate) fn log(&mut self, level: LogLevel, text: &str) {
        // SAFETY: the gateway only reads from the live slice.
        unsafe { imports::log(level as i32, text.as_ptr(), text.len()) }
    }

    pub(crate) fn log_with(&mut self, level: LogLevel, text: &str, fields: &[(&str, &str)]) {
        let fields = encode(fields);
        // SAFETY: the gateway only reads from the two live slices.
        unsafe { imports::log_with(level as i32, text.as_ptr(), text.len(), fields.as_ptr(), fields.len()) }
    }
}

/// Names with values, encoded as attributes are.
fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in pairs {
        // A module has no 4 GiB for one.
        let _ = Attributes::write(name, value, |part| encoded.extend_from_slice(part));
    }
    encoded
}

fn fail(text: &str) -> ! {
    // SAFETY: the gateway only reads from the live slice, and does not return.
    unsafe { imports::fail(text.as_ptr(), text.len()) }
}

/// Calls a reading import, again with more room if the value is longer than the first room.
fn read(import: impl Fn(*mut u8, usize) -> i32) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(FIRST_ROOM);
    loop {
        let answer = import(value.as_mut_ptr(), value.capacity());
        if answer == ABSENT {
            return None;
        }
        let len = answer as u32 as usize;
        if len <= value.capacity() {
            // SAFETY: the gateway wrote `len` bytes, for they fit.
            unsafe { value.set_len(len) };
            return Some(value);
        }
        value.reserve_exact(len);
    }
}

/// Where the event block is, and how long; length 0: there is none yet.
static BLOCK: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

/// Room for the event block. It is never freed: the instance ends with the run.
#[unsafe(no_mangle)]
extern "C" fn edge_alloc(len: usize) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(len.max(1), EVENT_ALIGN as usize) else { fail("an event of 2 GiB") };
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    BLOCK.0.store(block as usize, Relaxed);
    BLOCK.1.store(len, Relaxed);
    block
}

/// Runs the handler: what the export `edge_handle` does.
pub fn handle(event: usize, len: usize, handler: fn(&mut Context<'_>) -> Result) -> i32 {
    std::panic::set_hook(Box::new(|panic| fail(&panic.to_string())));
    if event != BLOCK.0.load(Relaxed) || len > BLOCK.1.load(Relaxed) {
        fail("edge_handle was called with another block than edge_alloc gave");
    }
    // SAFETY: just checked to be the block of `edge_alloc`, which lives as long as the instance; the gateway wrote it
    // and does not write while the module runs, and nothing in the module ever does.
    let block: &'static [u8] = unsafe { std::slice::from_raw_parts(event as *const u8, len) };
    match Event::from_block(block).and_then(|event| handler(&mut Context::new(event, &mut Host))) {
        Ok(()) => 0,
        Err(error) => fail(&error.to_string()),
    }
}
