//! The gateway's contract, version 1, for Zig: `docs/abi.md` is the contract itself.
//!
//!     const edge = @import("edge");
//!
//!     fn onEvent(event: *const edge.Event) !void {
//!         edge.emit("raw", event.payload(), .normal);
//!     }
//!     comptime {
//!         edge.function(onEvent);
//!     }
//!
//! Compiled with Zig 0.17:
//!
//!     zig build-exe -target wasm32-freestanding -O ReleaseSafe -fstrip -fno-entry -rdynamic --stack 16384 \
//!         --dep edge -Mroot=function.zig -Medge=function-sdk/zig/edge.zig
//!
//! An effect (`statePut`, `emit`, …) that the manifest does not allow, or that is over a limit, ends the run. So does
//! `fail`. None of them returns then, and none of the run's effects takes place.

const std = @import("std");

/// The imports, as `docs/abi.md` has them: one row there is one line here.
const imports = struct {
    extern "edge_v1" fn config_get(key: [*]const u8, key_len: usize, out: [*]u8, out_cap: usize) i32;
    extern "edge_v1" fn secret_get(key: [*]const u8, key_len: usize, out: [*]u8, out_cap: usize) i32;
    extern "edge_v1" fn state_get(key: [*]const u8, key_len: usize, out: [*]u8, out_cap: usize) i32;
    extern "edge_v1" fn state_next(prefix: [*]const u8, prefix_len: usize, after: [*]const u8, after_len: usize, out: [*]u8, out_cap: usize) i32;
    extern "edge_v1" fn blob_size(name: [*]const u8, name_len: usize) i32;
    extern "edge_v1" fn blob_get(name: [*]const u8, name_len: usize, offset: u32, out: [*]u8, out_cap: usize) i32;
    extern "edge_v1" fn random_fill(out: [*]u8, out_len: usize) void;
    extern "edge_v1" fn state_put(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize) void;
    extern "edge_v1" fn state_put_ttl(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize, ttl_s: u32) void;
    extern "edge_v1" fn state_delete(key: [*]const u8, key_len: usize) void;
    extern "edge_v1" fn emit(stream: [*]const u8, stream_len: usize, body: [*]const u8, body_len: usize, priority: i32) void;
    extern "edge_v1" fn publish(topic: [*]const u8, topic_len: usize, payload: [*]const u8, payload_len: usize, flags: i32) void;
    extern "edge_v1" fn enqueue(queue: [*]const u8, queue_len: usize, body: [*]const u8, body_len: usize, delay_ms: u32) void;
    extern "edge_v1" fn respond(status: u32, headers: [*]const u8, headers_len: usize, body: [*]const u8, body_len: usize) void;
    extern "edge_v1" fn twin_report(name: [*]const u8, name_len: usize, value: [*]const u8, value_len: usize) void;
    extern "edge_v1" fn count(name: [*]const u8, name_len: usize, value: f64) void;
    extern "edge_v1" fn observe(name: [*]const u8, name_len: usize, value: f64) void;
    extern "edge_v1" fn blob_put(name: [*]const u8, name_len: usize, kind: [*]const u8, kind_len: usize, body: [*]const u8, body_len: usize) void;
    extern "edge_v1" fn blob_delete(name: [*]const u8, name_len: usize) void;
    extern "edge_v1" fn request(url: [*]const u8, url_len: usize, head: [*]const u8, head_len: usize, body: [*]const u8, body_len: usize) void;
    extern "edge_v1" fn log(level: i32, text: [*]const u8, text_len: usize) void;
    extern "edge_v1" fn log_with(level: i32, text: [*]const u8, text_len: usize, fields: [*]const u8, fields_len: usize) void;
    extern "edge_v1" fn fail(text: [*]const u8, text_len: usize) noreturn;
};

pub const Priority = enum(i32) { normal = 0, high = 1 };
pub const LogLevel = enum(i32) { err = 0, warn = 1, info = 2, debug = 3 };
pub const PublishFlags = struct { qos: u2 = 1, retain: bool = false };

/// How an event came to be; a later gateway knows more.
pub const EventKind = enum(u32) { mqtt = 0, http = 1, schedule = 2, queue = 3, device = 4, answer = 5, blob = 6, _ };

pub const Span = extern struct { offset: u32, len: u32 };

/// The event, laid over the block. A later gateway writes a longer header; what is here stays where it is.
pub const Event = extern struct {
    header_len: u32,
    kind: EventKind,
    /// When the gateway received it, microseconds since 1970-01-01 UTC.
    time_us: u64,
    /// Means nothing if `sequence` is 0.
    boot: u64,
    /// From 1 within a boot epoch; 0: the event has no identity.
    sequence: u64,
    device_span: Span,
    topic_span: Span,
    payload_span: Span,
    /// Read it through `attribute`: a header that ends before it has none.
    attributes_span: Span,

    pub fn device(event: *const Event) []const u8 {
        return event.at(event.device_span);
    }

    pub fn topic(event: *const Event) []const u8 {
        return event.at(event.topic_span);
    }

    pub fn payload(event: *const Event) []const u8 {
        return event.at(event.payload_span);
    }

    /// The first attribute of this name.
    pub fn attribute(event: *const Event, name: []const u8) ?[]const u8 {
        if (event.header_len < @sizeOf(Event)) return null;
        var rest = event.at(event.attributes_span);
        while (rest.len >= 8) {
            const name_len = std.mem.readInt(u32, rest[0..4], .little);
            const value_len = std.mem.readInt(u32, rest[4..8], .little);
            const value = rest[8 + name_len ..][0..value_len];
            if (std.mem.eql(u8, rest[8..][0..name_len], name)) return value;
            rest = rest[8 + name_len + value_len ..];
        }
        return null;
    }

    fn at(event: *const Event, span: Span) []const u8 {
        const block: [*]const u8 = @ptrCast(event);
        return block[span.offset..][0..span.len];
    }
};

comptime {
    std.debug.assert(@sizeOf(Event) == 64 and @offsetOf(Event, "attributes_span") == 56);
}

/// Hands out ascending addresses. Nothing need be freed, for the instance ends with the run: the allocators of `std` would
/// take a page of 64 KiB for each size, and a run pays for every page.
pub const allocator: std.mem.Allocator = .{
    .ptr = undefined,
    .vtable = &.{ .alloc = Bump.alloc, .resize = Bump.resize, .remap = Bump.remap, .free = Bump.free },
};

const Bump = struct {
    const page = 64 * 1024;

    /// First free byte; 0 at the beginning.
    var next: usize = 0;

    fn alloc(_: *anyopaque, len: usize, alignment: std.mem.Alignment, _: usize) ?[*]u8 {
        const free_from = if (next == 0) @intFromPtr(@extern(*u8, .{ .name = "__heap_base" })) else next;
        const start = alignment.forward(free_from);
        const end = std.math.add(usize, start, len) catch return null;
        return if (reach(end)) @ptrFromInt(start) else null;
    }

    fn reach(end: usize) bool {
        const have = @as(u64, @wasmMemorySize(0)) * page;
        if (end > have and @wasmMemoryGrow(0, @intCast((end - have + page - 1) / page)) < 0) return false;
        next = end;
        return true;
    }

    /// What was handed out last can grow where it is.
    fn resize(_: *anyopaque, memory: []u8, _: std.mem.Alignment, len: usize, _: usize) bool {
        const start = @intFromPtr(memory.ptr);
        if (start + memory.len != next) return len <= memory.len;
        return reach(std.math.add(usize, start, len) catch return false);
    }

    fn remap(bump: *anyopaque, memory: []u8, alignment: std.mem.Alignment, len: usize, from: usize) ?[*]u8 {
        return if (resize(bump, memory, alignment, len, from)) memory.ptr else null;
    }

    fn free(_: *anyopaque, _: []u8, _: std.mem.Alignment, _: usize) void {}
};

/// Reads a configuration value.
pub fn config(key: []const u8) !?[]const u8 {
    return read(imports.config_get, key);
}

/// Reads a secret of the gateway that the manifest allows.
pub fn secret(key: []const u8) !?[]const u8 {
    return read(imports.secret_get, key);
}

/// Reads a value of the state, this run's writes included.
pub fn state(key: []const u8) !?[]const u8 {
    return read(imports.state_get, key);
}

/// Room that a value is read into at first; most are shorter, and a longer one costs a second call.
const first_room = 256;

fn read(import: *const fn ([*]const u8, usize, [*]u8, usize) callconv(.c) i32, key: []const u8) !?[]const u8 {
    var room = try allocator.alloc(u8, first_room);
    while (true) {
        const answer = import(key.ptr, key.len, room.ptr, room.len);
        if (answer < 0) return null;
        const len: usize = @intCast(answer);
        if (len <= room.len) return room[0..len];
        room = try allocator.alloc(u8, len);
    }
}

/// Bytes of a key of the state.
const key_max = 256;

/// The keys of the state that begin with `prefix`, in the order of bytes, this run's writes included.
pub fn stateKeys(prefix: []const u8) StateKeys {
    return .{ .prefix = prefix };
}

pub const StateKeys = struct {
    prefix: []const u8,
    last: []const u8 = "",

    pub fn next(keys: *StateKeys) !?[]const u8 {
        const room = try allocator.alloc(u8, key_max);
        const answer = imports.state_next(keys.prefix.ptr, keys.prefix.len, keys.last.ptr, keys.last.len, room.ptr, room.len);
        if (answer < 0) return null;
        keys.last = room[0..@intCast(answer)];
        return keys.last;
    }
};

/// The bytes of a blob, `BUCKET/NAME` or `sha256:` and the event's attribute `digest`.
pub fn blobSize(name: []const u8) ?u32 {
    const answer = imports.blob_size(name.ptr, name.len);
    return if (answer < 0) null else @intCast(answer);
}

/// Reads a blob from `offset` on; what of `out` was filled, which is nothing from its end on.
pub fn blobRead(name: []const u8, offset: u32, out: []u8) ?[]u8 {
    const answer = imports.blob_get(name.ptr, name.len, offset, out.ptr, out.len);
    return if (answer < 0) null else out[0..@intCast(answer)];
}

/// For jitter and sampling: whoever knows the seed knows the numbers.
pub fn random(out: []u8) void {
    imports.random_fill(out.ptr, out.len);
}

pub fn statePut(key: []const u8, value: []const u8) void {
    imports.state_put(key.ptr, key.len, value.ptr, value.len);
}

/// The same for some time: absent for events that are received so many seconds after this one, or later.
pub fn statePutFor(key: []const u8, value: []const u8, ttl_s: u32) void {
    imports.state_put_ttl(key.ptr, key.len, value.ptr, value.len, ttl_s);
}

/// Stores a value if the present one is `expected`, null for absent; answers whether it was. Events of one partition run one
/// at a time, so nothing comes in between.
pub fn statePutIf(key: []const u8, expected: ?[]const u8, value: []const u8) !bool {
    const found = try state(key);
    const same = if (found) |there| (if (expected) |wanted| std.mem.eql(u8, there, wanted) else false) else expected == null;
    if (same) statePut(key, value);
    return same;
}

pub fn stateDelete(key: []const u8) void {
    imports.state_delete(key.ptr, key.len);
}

pub fn emit(stream: []const u8, body: []const u8, priority: Priority) void {
    imports.emit(stream.ptr, stream.len, body.ptr, body.len, @intFromEnum(priority));
}

pub fn publish(topic: []const u8, payload: []const u8, flags: PublishFlags) void {
    const bits = @as(i32, flags.qos) | @as(i32, @intFromBool(flags.retain)) << 2;
    imports.publish(topic.ptr, topic.len, payload.ptr, payload.len, bits);
}

/// A message to the function that reads this queue, not before so many milliseconds have passed.
pub fn enqueue(queue: []const u8, body: []const u8, delay_ms: u32) void {
    imports.enqueue(queue.ptr, queue.len, body.ptr, body.len, delay_ms);
}

/// A name with its value: a header field of `respond`, a field of `logWith`, what `request` takes.
pub const Field = struct { name: []const u8, value: []const u8 };

/// The answer to an HTTP request.
pub fn respond(status: u32, fields: []const Field, body: []const u8) !void {
    const headers = try encode(fields);
    imports.respond(status, headers.ptr, headers.len, body.ptr, body.len);
}

fn encode(fields: []const Field) ![]const u8 {
    var encoded: std.ArrayList(u8) = .empty;
    for (fields) |field| {
        for ([_]usize{ field.name.len, field.value.len }) |len| {
            try encoded.appendSlice(allocator, std.mem.asBytes(&std.mem.nativeToLittle(u32, @intCast(len))));
        }
        try encoded.appendSlice(allocator, field.name);
        try encoded.appendSlice(allocator, field.value);
    }
    return encoded.items;
}

/// A property of the event's device has this value now.
pub fn twinReport(name: []const u8, value: []const u8) void {
    imports.twin_report(name.ptr, name.len, value.ptr, value.len);
}

/// Adds to a counter, which only grows.
pub fn count(name: []const u8, value: f64) void {
    imports.count(name.ptr, name.len, value);
}

/// Adds a value to a distribution.
pub fn observe(name: []const u8, value: f64) void {
    imports.observe(name.ptr, name.len, value);
}

/// Stores a blob; an empty type is `application/octet-stream`.
pub fn blobPut(name: []const u8, kind: []const u8, body: []const u8) void {
    imports.blob_put(name.ptr, name.len, kind.ptr, kind.len, body.ptr, body.len);
}

pub fn blobDelete(name: []const u8) void {
    imports.blob_delete(name.ptr, name.len);
}

/// An HTTP request, whose answer comes as an event of kind `answer`. `head` has `method`, `header.NAME`, `to`, `timeout_ms`,
/// `tries` and `tag`, as `docs/abi.md` says; all may be left out.
pub fn request(url: []const u8, head: []const Field, body: []const u8) !void {
    const bytes = try encode(head);
    imports.request(url.ptr, url.len, bytes.ptr, bytes.len, body.ptr, body.len);
}

pub fn log(level: LogLevel, text: []const u8) void {
    imports.log(@intFromEnum(level), text.ptr, text.len);
}

/// The same, with named values beside the text.
pub fn logWith(level: LogLevel, text: []const u8, fields: []const Field) !void {
    const encoded = try encode(fields);
    imports.log_with(@intFromEnum(level), text.ptr, text.len, encoded.ptr, encoded.len);
}

/// Ends the run as failed, with this text.
pub fn fail(text: []const u8) noreturn {
    imports.fail(text.ptr, text.len);
}

/// The same, with a text that is made of parts.
pub fn failWith(comptime format: []const u8, arguments: anytype) noreturn {
    fail(std.fmt.allocPrint(allocator, format, arguments) catch "no memory is left to say why");
}

/// `pub const panic = edge.panic;` in the root file makes a panic say what happened.
pub const panic = std.debug.FullPanic(struct {
    fn say(text: []const u8, _: ?usize) noreturn {
        fail(text);
    }
}.say);

/// Makes `handler` the function of this module. An error that it returns fails the run with the error's name.
pub fn function(comptime handler: fn (*const Event) anyerror!void) void {
    const exports = struct {
        fn alloc(len: usize) callconv(.c) ?[*]u8 {
            const room = allocator.alignedAlloc(u8, .@"8", len) catch return null;
            return room.ptr;
        }

        fn handle(event: *const Event, _: usize) callconv(.c) i32 {
            handler(event) catch |err| fail(@errorName(err));
            return 0;
        }
    };
    @export(&exports.alloc, .{ .name = "edge_alloc" });
    @export(&exports.handle, .{ .name = "edge_handle" });
}
