/**
 * The gateway's contract, version 1, for AssemblyScript: `docs/abi.md` is the contract itself.
 *
 *     import * as edge from "../../function-sdk/assemblyscript/edge";
 *     export { edge_alloc } from "../../function-sdk/assemblyscript/edge";
 *
 *     export function edge_handle(event: usize, len: i32): i32 {
 *       edge.emit("raw", new edge.Event(event).payload);
 *       return 0;
 *     }
 *
 * Compiled with AssemblyScript 0.28:
 *
 *     asc function.ts --outFile function.wasm --optimize --shrinkLevel 2 --runtime stub \
 *       --use abort=function-sdk/assemblyscript/edge/onAbort
 *
 * An effect (`statePut`, `emit`, …) that the manifest does not allow, or that is over a limit, ends the run. So do `fail`
 * and a failed assertion. None of them returns then, and none of the run's effects takes place.
 */

// The imports, as docs/abi.md has them: one row there is one function here.

@external("edge_v1", "config_get")
declare function config_get(key: usize, key_len: i32, out: usize, out_cap: i32): i32;
@external("edge_v1", "secret_get")
declare function secret_get(key: usize, key_len: i32, out: usize, out_cap: i32): i32;
@external("edge_v1", "state_get")
declare function state_get(key: usize, key_len: i32, out: usize, out_cap: i32): i32;
@external("edge_v1", "state_next")
declare function state_next(prefix: usize, prefix_len: i32, after: usize, after_len: i32, out: usize, out_cap: i32): i32;
@external("edge_v1", "blob_size")
declare function blob_size(name: usize, name_len: i32): i32;
@external("edge_v1", "blob_get")
declare function blob_get(name: usize, name_len: i32, offset: u32, out: usize, out_cap: i32): i32;
@external("edge_v1", "random_fill")
declare function random_fill(out: usize, out_len: i32): void;
@external("edge_v1", "state_put")
declare function state_put(key: usize, key_len: i32, value: usize, value_len: i32): void;
@external("edge_v1", "state_put_ttl")
declare function state_put_ttl(key: usize, key_len: i32, value: usize, value_len: i32, ttl_s: u32): void;
@external("edge_v1", "state_delete")
declare function state_delete(key: usize, key_len: i32): void;
@external("edge_v1", "emit")
declare function emit_(stream: usize, stream_len: i32, body: usize, body_len: i32, priority: i32): void;
@external("edge_v1", "publish")
declare function publish_(topic: usize, topic_len: i32, payload: usize, payload_len: i32, flags: i32): void;
@external("edge_v1", "enqueue")
declare function enqueue_(queue: usize, queue_len: i32, body: usize, body_len: i32, delay_ms: u32): void;
@external("edge_v1", "respond")
declare function respond_(status: u32, headers: usize, headers_len: i32, body: usize, body_len: i32): void;
@external("edge_v1", "twin_report")
declare function twin_report(name: usize, name_len: i32, value: usize, value_len: i32): void;
@external("edge_v1", "count")
declare function count_(name: usize, name_len: i32, value: f64): void;
@external("edge_v1", "observe")
declare function observe_(name: usize, name_len: i32, value: f64): void;
@external("edge_v1", "blob_put")
declare function blob_put(name: usize, name_len: i32, kind: usize, kind_len: i32, body: usize, body_len: i32): void;
@external("edge_v1", "blob_delete")
declare function blob_delete(name: usize, name_len: i32): void;
@external("edge_v1", "request")
declare function request_(url: usize, url_len: i32, head: usize, head_len: i32, body: usize, body_len: i32): void;
@external("edge_v1", "log")
declare function log_(level: i32, text: usize, text_len: i32): void;
@external("edge_v1", "log_with")
declare function log_with(level: i32, text: usize, text_len: i32, fields: usize, fields_len: i32): void;
@external("edge_v1", "fail")
declare function fail_(text: usize, text_len: i32): void;

export enum Priority { Normal = 0, High = 1 }
export enum LogLevel { Error = 0, Warn = 1, Info = 2, Debug = 3 }
/** Flags of `publish`; they are added up. */
export enum Publish { Qos0 = 0, Qos1 = 1, Qos2 = 2, Retain = 4 }
/** How an event came to be; a later gateway knows more. */
export enum EventKind { Mqtt = 0, Http = 1, Schedule = 2, Queue = 3, Device = 4, Answer = 5, Blob = 6 }

/** The event. A later gateway writes a longer header; what is here stays where it is. */
export class Event {
  constructor(private block: usize) {}

  /** An `EventKind`. */
  get kind(): u32 { return load<u32>(this.block, 4); }
  /** When the gateway received it, microseconds since 1970-01-01 UTC. */
  get timeUs(): u64 { return load<u64>(this.block, 8); }
  /** Means nothing if `sequence` is 0. */
  get boot(): u64 { return load<u64>(this.block, 16); }
  /** From 1 within a boot epoch; 0: the event has no identity. */
  get sequence(): u64 { return load<u64>(this.block, 24); }
  get device(): string { return this.text(32); }
  get topic(): string { return this.text(40); }
  /** The payload, which must be UTF-8. */
  get payloadText(): string { return this.text(48); }
  get payload(): Uint8Array { return bytesAt(this.at(48), this.len(48)); }

  /** The first attribute of this name; null if there is none. */
  attribute(name: string): string | null {
    if (load<u32>(this.block) < 64) return null; // a gateway that knows no attributes
    let at = this.at(56);
    const end = at + this.len(56);
    while (at < end) {
      const nameLength = load<u32>(at), valueLength = load<u32>(at, 4), value = at + 8 + nameLength;
      if (String.UTF8.decodeUnsafe(at + 8, nameLength) == name) return String.UTF8.decodeUnsafe(value, valueLength);
      at = value + valueLength;
    }
    return null;
  }

  private at(span: usize): usize { return this.block + <usize>load<u32>(this.block + span); }
  private len(span: usize): i32 { return load<i32>(this.block + span, 4); }
  private text(span: usize): string { return String.UTF8.decodeUnsafe(this.at(span), this.len(span)); }
}

/** Reads a configuration value; null if there is none. */
export function config(key: string): string | null {
  const value = read(config_get, utf8(key));
  return value === null ? null : text(value);
}

/** Reads a secret of the gateway that the manifest allows; null if there is none. */
export function secret(key: string): string | null {
  const value = read(secret_get, utf8(key));
  return value === null ? null : text(value);
}

/** Reads a value of the state, this run's writes included; null if there is none. */
export function state(key: string): Uint8Array | null { return read(state_get, utf8(key)); }

/** The keys of the state that begin with `prefix`, in the order of bytes, this run's writes included. */
export function stateKeys(prefix: string): string[] {
  const keys: string[] = [], p = utf8(prefix), room = new Uint8Array(KEY_MAX);
  let after = new Uint8Array(0);
  while (true) {
    const length = state_next(p.dataStart, p.length, after.dataStart, after.length, room.dataStart, KEY_MAX);
    if (length < 0) return keys;
    after = room.slice(0, length);
    keys.push(text(after));
  }
}

/** The bytes of a blob, `BUCKET/NAME` or `sha256:` and the event's attribute `digest`; -1 if there is none. */
export function blobSize(name: string): i32 {
  const n = utf8(name);
  return blob_size(n.dataStart, n.length);
}

/** Reads `length` bytes of a blob from `offset` on, or as many as there are; null if there is no such blob. */
export function blobRead(name: string, offset: u32, length: i32): Uint8Array | null {
  const n = utf8(name), room = new Uint8Array(length);
  const read = blob_get(n.dataStart, n.length, offset, room.dataStart, length);
  return read < 0 ? null : room.subarray(0, read);
}

/** Random bytes, for jitter and sampling: whoever knows the seed knows the numbers. */
export function random(length: i32): Uint8Array {
  const bytes = new Uint8Array(length);
  random_fill(bytes.dataStart, length);
  return bytes;
}

export function statePut(key: string, value: Uint8Array): void {
  const k = utf8(key);
  state_put(k.dataStart, k.length, value.dataStart, value.length);
}

/** The same for some time: absent for events that are received so many seconds after this one, or later. */
export function statePutFor(key: string, value: Uint8Array, ttlS: u32): void {
  const k = utf8(key);
  state_put_ttl(k.dataStart, k.length, value.dataStart, value.length, ttlS);
}

/**
 * Stores a value if the present one is `expected`, null for absent; answers whether it was. Events of one partition run one
 * at a time, so nothing comes in between.
 */
export function statePutIf(key: string, expected: Uint8Array | null, value: Uint8Array): bool {
  const found = state(key);
  if (found === null || expected === null) {
    if (found !== null || expected !== null) return false;
  } else if (found.length != expected.length || memory.compare(found.dataStart, expected.dataStart, found.length) != 0) {
    return false;
  }
  statePut(key, value);
  return true;
}

export function stateDelete(key: string): void {
  const k = utf8(key);
  state_delete(k.dataStart, k.length);
}

export function emit(stream: string, body: Uint8Array, priority: i32 = Priority.Normal): void {
  const s = utf8(stream);
  emit_(s.dataStart, s.length, body.dataStart, body.length, priority);
}

export function publish(topic: string, payload: Uint8Array, flags: i32 = Publish.Qos1): void {
  const t = utf8(topic);
  publish_(t.dataStart, t.length, payload.dataStart, payload.length, flags);
}

/** A message to the function that reads this queue, not before so many milliseconds have passed. */
export function enqueue(queue: string, body: Uint8Array, delayMs: u32 = 0): void {
  const q = utf8(queue);
  enqueue_(q.dataStart, q.length, body.dataStart, body.length, delayMs);
}

/** A name with its value: a header field of `respond`, a field of `logWith`, what `request` takes. */
export class Field {
  constructor(public name: string, public value: string) {}
}

/** The answer to an HTTP request. */
export function respond(status: u32, body: Uint8Array, fields: Field[] = []): void {
  const headers = encoded(fields);
  respond_(status, headers.dataStart, headers.length, body.dataStart, body.length);
}

/** A property of the event's device has this value now. */
export function twinReport(name: string, value: Uint8Array): void {
  const n = utf8(name);
  twin_report(n.dataStart, n.length, value.dataStart, value.length);
}

/** Adds to a counter, which only grows. */
export function count(name: string, value: f64): void {
  const n = utf8(name);
  count_(n.dataStart, n.length, value);
}

/** Adds a value to a distribution. */
export function observe(name: string, value: f64): void {
  const n = utf8(name);
  observe_(n.dataStart, n.length, value);
}

/** Stores a blob; an empty type is `application/octet-stream`. */
export function blobPut(name: string, body: Uint8Array, type: string = ""): void {
  const n = utf8(name), t = utf8(type);
  blob_put(n.dataStart, n.length, t.dataStart, t.length, body.dataStart, body.length);
}

export function blobDelete(name: string): void {
  const n = utf8(name);
  blob_delete(n.dataStart, n.length);
}

/**
 * An HTTP request, whose answer comes as an event of kind `Answer`. `head` has `method`, `header.NAME`, `to`, `timeout_ms`,
 * `tries` and `tag`, as `docs/abi.md` says; all may be left out.
 */
export function request(url: string, body: Uint8Array, head: Field[] = []): void {
  const u = utf8(url), h = encoded(head);
  request_(u.dataStart, u.length, h.dataStart, h.length, body.dataStart, body.length);
}

export function log(level: i32, line: string): void {
  const l = utf8(line);
  log_(level, l.dataStart, l.length);
}

/** The same, with named values beside the text. */
export function logWith(level: i32, line: string, fields: Field[]): void {
  const l = utf8(line), f = encoded(fields);
  log_with(level, l.dataStart, l.length, f.dataStart, f.length);
}

/** Ends the run as failed, with this text. */
export function fail(why: string): void {
  const w = utf8(why);
  fail_(w.dataStart, w.length);
  unreachable();
}

/** The bytes of a text, UTF-8. */
export function utf8(value: string): Uint8Array { return Uint8Array.wrap(String.UTF8.encode(value)); }

/** The text of bytes that are UTF-8. */
export function text(bytes: Uint8Array): string { return String.UTF8.decodeUnsafe(bytes.dataStart, bytes.length); }

/** A text as a string of JSON, with its quotes. */
export function json(value: string): string {
  let out = '"';
  for (let i = 0; i < value.length; i++) {
    const unit = value.charCodeAt(i);
    if (unit == 0x22 || unit == 0x5c) out += "\\" + String.fromCharCode(unit);
    else if (unit < 0x20) out += "\\u" + unit.toString(16).padStart(4, "0");
    else out += String.fromCharCode(unit);
  }
  return out + '"';
}

/** The exporting file hands this on: where the gateway asks for room for the event. */
export function edge_alloc(len: i32): usize { return heap.alloc(len); } // divisible by 16

/** What `--use abort` names: a failed assertion, or an exception, fails the run and says where. */
export function onAbort(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message === null ? "aborted" : message;
  fail(what + " (" + (file === null ? "?" : file) + ":" + line.toString() + ":" + column.toString() + ")");
}

/** Bytes of a key of the state. */
const KEY_MAX = 256;

/** Room that a value is read into at first; most are shorter, and a longer one costs a second call. */
const FIRST_ROOM = 256;

function read(get: (key: usize, key_len: i32, out: usize, out_cap: i32) => i32, key: Uint8Array): Uint8Array | null {
  let room = new Uint8Array(FIRST_ROOM);
  while (true) {
    const length = get(key.dataStart, key.length, room.dataStart, room.length);
    if (length < 0) return null;
    if (length <= room.length) return room.subarray(0, length);
    room = new Uint8Array(length);
  }
}

function encoded(fields: Field[]): Uint8Array {
  let bytes = new Uint8Array(0);
  for (let i = 0; i < fields.length; i++) bytes = joined(bytes, encodedField(fields[i]));
  return bytes;
}

function encodedField(field: Field): Uint8Array {
  const name = utf8(field.name), value = utf8(field.value), lengths = new Uint8Array(8);
  store<u32>(lengths.dataStart, name.length);
  store<u32>(lengths.dataStart, value.length, 4);
  return joined(joined(lengths, name), value);
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

function bytesAt(at: usize, length: i32): Uint8Array {
  const bytes = new Uint8Array(length);
  memory.copy(bytes.dataStart, at, length);
  return bytes;
}
