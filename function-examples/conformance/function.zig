//! See README.md.
const std = @import("std");
const edge = @import("edge");

pub const panic = edge.panic;

comptime {
    edge.function(onEvent);
}

fn onEvent(event: *const edge.Event) !void {
    var rest = event.payload();
    while (rest.len > 0) try obey(event, cut(&rest, '\n'));
}

const Command = enum {
    event,
    config,
    secret,
    get,
    put,
    putfor,
    putif,
    delete,
    keys,
    attribute,
    random,
    emit,
    publish,
    enqueue,
    respond,
    count,
    observe,
    blobput,
    blobdelete,
    blobsize,
    blobget,
    request,
    log,
    logwith,
    twin,
    fail,
};

fn obey(event: *const edge.Event, line: []const u8) !void {
    var rest = line;
    const command = std.meta.stringToEnum(Command, cut(&rest, ' ')) orelse edge.failWith("unknown command: {s}", .{line});
    switch (command) {
        .event => try answerEvent(event),
        .config => try answerRead(try edge.config(rest)),
        .secret => try answerRead(try edge.secret(rest)),
        .get => try answerRead(try edge.state(rest)),
        .put => {
            const key = cut(&rest, ' ');
            edge.statePut(key, rest);
        },
        .putfor => {
            const seconds = try number(u32, &rest);
            const key = cut(&rest, ' ');
            edge.statePutFor(key, rest, seconds);
        },
        .putif => {
            const key = cut(&rest, ' ');
            const expected = cut(&rest, ' ');
            const put = try edge.statePutIf(key, if (std.mem.eql(u8, expected, "-")) null else expected, rest);
            answer(if (put) "yes" else "no");
        },
        .delete => edge.stateDelete(rest),
        .keys => {
            var keys = edge.stateKeys(rest);
            while (try keys.next()) |key| try answerRead(key);
        },
        .attribute => try answerRead(event.attribute(rest)),
        .random => {
            var bytes: [11]u8 = undefined;
            edge.random(&bytes);
            answer(&bytes);
        },
        .emit => {
            const priority = try number(u1, &rest);
            const stream = cut(&rest, ' ');
            edge.emit(stream, rest, @enumFromInt(priority));
        },
        .publish => {
            const flags = try number(u3, &rest);
            const topic = cut(&rest, ' ');
            edge.publish(topic, rest, .{ .qos = @truncate(flags), .retain = flags & 4 != 0 });
        },
        .enqueue => {
            const delay_ms = try number(u32, &rest);
            const queue = cut(&rest, ' ');
            edge.enqueue(queue, rest, delay_ms);
        },
        .respond => {
            const status = try number(u32, &rest);
            const field: edge.Field = .{ .name = cut(&rest, ' '), .value = cut(&rest, ' ') };
            try edge.respond(status, &.{field}, rest);
        },
        .count => {
            const name = cut(&rest, ' ');
            edge.count(name, measure(rest));
        },
        .observe => {
            const name = cut(&rest, ' ');
            edge.observe(name, measure(rest));
        },
        .blobput => {
            const name = cut(&rest, ' ');
            const kind = cut(&rest, ' ');
            edge.blobPut(name, kind, rest);
        },
        .blobdelete => edge.blobDelete(rest),
        .blobsize => try answerRead(if (edge.blobSize(rest)) |size| try std.fmt.allocPrint(edge.allocator, "{}", .{size}) else null),
        .blobget => {
            const offset = try number(u32, &rest);
            const room = try edge.allocator.alloc(u8, try number(u32, &rest));
            try answerRead(edge.blobRead(rest, offset, room));
        },
        .request => {
            const method = cut(&rest, ' ');
            const tag = cut(&rest, ' ');
            const url = cut(&rest, ' ');
            try edge.request(url, &.{ .{ .name = "method", .value = method }, .{ .name = "tag", .value = tag } }, rest);
        },
        .log => {
            const level = try number(u2, &rest);
            edge.log(@enumFromInt(level), rest);
        },
        .logwith => {
            const level = try number(u2, &rest);
            const field: edge.Field = .{ .name = cut(&rest, ' '), .value = cut(&rest, ' ') };
            try edge.logWith(@enumFromInt(level), rest, &.{field});
        },
        .twin => {
            const name = cut(&rest, ' ');
            edge.twinReport(name, rest);
        },
        .fail => edge.fail(rest),
    }
}

/// Takes what stands before the first `end` off `rest`, and `end` with it; everything if there is none.
fn cut(rest: *[]const u8, end: u8) []const u8 {
    const head = rest.*[0 .. std.mem.indexOfScalar(u8, rest.*, end) orelse rest.len];
    rest.* = rest.*[@min(head.len + 1, rest.len)..];
    return head;
}

fn number(T: type, rest: *[]const u8) !T {
    return std.fmt.parseInt(T, cut(rest, ' '), 10);
}

fn measure(text: []const u8) f64 {
    return std.fmt.parseFloat(f64, text) catch edge.failWith("no number: {s}", .{text});
}

fn answer(body: []const u8) void {
    edge.emit("answers", body, .normal);
}

fn answerRead(value: ?[]const u8) !void {
    answer(if (value) |found| try std.mem.concat(edge.allocator, u8, &.{ "=", found }) else "-");
}

fn answerEvent(event: *const edge.Event) !void {
    answer(try std.fmt.allocPrint(
        edge.allocator,
        "kind={} time_us={} boot={} sequence={} device={s} topic={s} payload={}",
        .{
            @intFromEnum(event.kind), event.time_us,  event.boot,            event.sequence,
            event.device(),           event.topic(), event.payload().len,
        },
    ));
}
