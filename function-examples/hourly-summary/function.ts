// See README.md.
import * as edge from "../../function-sdk/assemblyscript/edge";
export { edge_alloc } from "../../function-sdk/assemblyscript/edge";

export function edge_handle(block: usize, len: i32): i32 {
  const event = new edge.Event(block);
  const value = number("the payload", event.payloadText);
  const start = startOfPeriod(event.timeUs);
  const stored = edge.state("period");
  let period = stored === null ? new Period(start) : Period.read(stored);
  if (start > period.start) {
    edge.emit("summaries", edge.utf8(period.summary(event)));
    period = new Period(start);
  }
  period.add(value);
  edge.statePut("period", period.bytes());
  return 0;
}

function startOfPeriod(timeUs: u64): u64 {
  const text = edge.config("period_s");
  const seconds = number("the configuration value period_s", text === null ? "" : text);
  if (seconds < 1 || seconds > 86400) edge.fail("the configuration has a period_s outside of 1 to 86400");
  const us = <u64>seconds * 1000000;
  return timeUs - timeUs % us;
}

/** Fails if the text is not a finite number of JSON (RFC 8259, section 6) from end to end: `parseFloat` ignores a bad rest. */
function number(what: string, text: string): f64 {
  const value = isNumber(text) ? parseFloat(text) : NaN;
  if (!isFinite(value)) edge.fail(what + " is no number: " + text.substring(0, 64));
  return value;
}

function isNumber(text: string): bool {
  let at = text.startsWith("-") ? 1 : 0;
  let next = digits(text, at);
  if (next == at || (next > at + 1 && text.charAt(at) == "0")) return false;
  at = next;
  if (text.charAt(at) == ".") {
    next = digits(text, at + 1);
    if (next == at + 1) return false;
    at = next;
  }
  if (text.charAt(at) == "e" || text.charAt(at) == "E") {
    at += 1;
    if (text.charAt(at) == "+" || text.charAt(at) == "-") at += 1;
    next = digits(text, at);
    if (next == at) return false;
    at = next;
  }
  return at == text.length;
}

/** Where the digits that begin at `at` end. */
function digits(text: string, at: i32): i32 {
  while (at < text.length && text.charCodeAt(at) >= 0x30 && text.charCodeAt(at) <= 0x39) at += 1;
  return at;
}

/** The readings of one period so far. */
class Period {
  count: u64 = 0;
  min: f64 = Infinity;
  max: f64 = -Infinity;
  mean: f64 = 0;

  constructor(public start: u64) {}

  add(value: f64): void {
    this.count += 1;
    this.min = Math.min(this.min, value);
    this.max = Math.max(this.max, value);
    // A sum could overflow.
    this.mean += (value - this.mean) / <f64>this.count;
  }

  summary(event: edge.Event): string {
    return (
      '{"device":' + edge.json(event.device) + ',"topic":' + edge.json(event.topic) +
      ',"from_us":' + this.start.toString() + ',"count":' + this.count.toString() +
      ',"min":' + this.min.toString() + ',"max":' + this.max.toString() + ',"mean":' + this.mean.toString() + "}"
    );
  }

  // The state: five numbers of 8 bytes, little-endian.
  bytes(): Uint8Array {
    const bytes = new Uint8Array(40);
    store<u64>(bytes.dataStart, this.start);
    store<u64>(bytes.dataStart, this.count, 8);
    store<f64>(bytes.dataStart, this.min, 16);
    store<f64>(bytes.dataStart, this.max, 24);
    store<f64>(bytes.dataStart, this.mean, 32);
    return bytes;
  }

  static read(bytes: Uint8Array): Period {
    if (bytes.length != 40) edge.fail("the state is not that of this function");
    const period = new Period(load<u64>(bytes.dataStart));
    period.count = load<u64>(bytes.dataStart, 8);
    period.min = load<f64>(bytes.dataStart, 16);
    period.max = load<f64>(bytes.dataStart, 24);
    period.mean = load<f64>(bytes.dataStart, 32);
    return period;
  }
}
