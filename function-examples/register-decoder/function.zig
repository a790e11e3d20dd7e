//! See README.md.
const std = @import("std");
const edge = @import("edge");

pub const panic = edge.panic;

comptime {
    edge.function(onRegisters);
}

const Type = enum {
    u16,
    i16,
    u32,
    i32,
    u64,
    f32,
    skip,

    fn registers(self: Type) usize {
        return switch (self) {
            .u16, .i16, .skip => 1,
            .u32, .i32, .f32 => 2,
            .u64 => 4,
        };
    }
};

/// More would not be seen before the point that they shift.
const max_decimals = 18;

const WordOrder = enum { @"high-first", @"low-first" };

fn onRegisters(event: *const edge.Event) !void {
    const fields = try edge.config("fields") orelse edge.fail("the configuration lacks \"fields\"");
    const order_name = try edge.config("word_order") orelse "high-first";
    const order = std.meta.stringToEnum(WordOrder, order_name) orelse
        edge.failWith("the configuration has word_order = {s}; allowed are high-first and low-first", .{order_name});

    var json: std.Io.Writer.Allocating = .init(edge.allocator);
    const out = &json.writer;
    var payload = event.payload();
    var separator: []const u8 = "{";
    var entries = std.mem.tokenizeAny(u8, fields, ", ");
    while (entries.next()) |entry| {
        var parts = std.mem.splitScalar(u8, entry, ':');
        const first = parts.next().?;
        const is_skip = std.mem.eql(u8, first, "skip");
        const type_name = if (is_skip) first else parts.next() orelse "";
        const ty = std.meta.stringToEnum(Type, type_name) orelse badField(entry);
        const decimals = std.fmt.parseInt(u8, parts.next() orelse "0", 10) catch badField(entry);
        if (decimals > max_decimals or std.mem.indexOfAny(u8, first, "\"\\") != null) badField(entry);

        const len = ty.registers() * 2;
        if (payload.len < len) edge.failWith(
            "the payload of {} bytes ends before \"{s}\", which takes {} more than the {} that are left",
            .{ event.payload().len, entry, len, payload.len },
        );
        const value = joined(payload[0..len], order);
        payload = payload[len..];
        if (ty == .skip) continue;
        try out.print("{s}\"{s}\":", .{ separator, first });
        try print(out, ty, value, decimals);
        separator = ",";
    }
    try out.writeAll(if (separator[0] == '{') "{}" else "}");
    edge.publish(try topicOfValues(event.topic()), json.written(), .{});
}

fn badField(entry: []const u8) noreturn {
    edge.failWith("the configuration has the field \"{s}\"; write NAME:TYPE:DECIMALS, as in voltage:u16:1", .{entry});
}

/// The registers of one value as one number, with its lowest 16 bits in the last register.
fn joined(bytes: []const u8, order: WordOrder) u64 {
    var value: u64 = 0;
    const count = bytes.len / 2;
    for (0..count) |index| {
        const at = if (order == .@"high-first") index else count - 1 - index;
        value = value << 16 | std.mem.readInt(u16, bytes[at * 2 ..][0..2], .big);
    }
    return value;
}

fn print(out: *std.Io.Writer, ty: Type, value: u64, decimals: u8) !void {
    switch (ty) {
        .skip => unreachable,
        .u16, .u32, .u64 => try printShifted(out, value, decimals),
        .i16, .i32 => {
            const wide: i64 = if (ty == .i16)
                @as(i16, @bitCast(@as(u16, @truncate(value))))
            else
                @as(i32, @bitCast(@as(u32, @truncate(value))));
            if (wide < 0) try out.writeByte('-');
            try printShifted(out, @abs(wide), decimals);
        },
        .f32 => {
            const float: f32 = @bitCast(@as(u32, @truncate(value)));
            if (std.math.isFinite(float)) try out.print("{d}", .{float}) else try out.writeAll("null");
        },
    }
}

fn printShifted(out: *std.Io.Writer, value: u64, decimals: u8) !void {
    const unit = std.math.pow(u64, 10, decimals);
    try out.print("{}", .{value / unit});
    if (decimals > 0) try out.print(".{[0]:0>[1]}", .{ value % unit, decimals });
}

/// `modbus/m1/values` for `modbus/m1/registers`.
fn topicOfValues(topic: []const u8) ![]const u8 {
    const level = std.mem.lastIndexOfScalar(u8, topic, '/') orelse edge.fail("the topic has only one level");
    return std.mem.concat(edge.allocator, u8, &.{ topic[0 .. level + 1], "values" });
}
