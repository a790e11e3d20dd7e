// See README.md.
import * as edge from "../../function-sdk/assemblyscript/edge";
export { edge_alloc } from "../../function-sdk/assemblyscript/edge";

export function edge_handle(block: usize, len: i32): i32 {
  const event = new edge.Event(block);
  const lines = event.payloadText.split("\n");
  // What stands behind the last end of a line is one only if it is not empty.
  const count = lines[lines.length - 1].length > 0 ? lines.length : lines.length - 1;
  for (let i = 0; i < count; i++) obey(event, lines[i]);
  return 0;
}

function obey(event: edge.Event, line: string): void {
  const words = new Words(line);
  const command = words.next();
  if (command == "event") {
    answerEvent(event);
  } else if (command == "config") {
    const value = edge.config(words.rest);
    answerRead(value === null ? null : edge.utf8(value));
  } else if (command == "secret") {
    const value = edge.secret(words.rest);
    answerRead(value === null ? null : edge.utf8(value));
  } else if (command == "get") {
    answerRead(edge.state(words.rest));
  } else if (command == "put") {
    const key = words.next();
    edge.statePut(key, edge.utf8(words.rest));
  } else if (command == "putfor") {
    const seconds = words.number(), key = words.next();
    edge.statePutFor(key, edge.utf8(words.rest), seconds);
  } else if (command == "putif") {
    const key = words.next(), expected = words.next();
    const put = edge.statePutIf(key, expected == "-" ? null : edge.utf8(expected), edge.utf8(words.rest));
    answer(edge.utf8(put ? "yes" : "no"));
  } else if (command == "delete") {
    edge.stateDelete(words.rest);
  } else if (command == "keys") {
    const keys = edge.stateKeys(words.rest);
    for (let i = 0; i < keys.length; i++) answerRead(edge.utf8(keys[i]));
  } else if (command == "attribute") {
    const value = event.attribute(words.rest);
    answerRead(value === null ? null : edge.utf8(value));
  } else if (command == "random") {
    answer(edge.random(11));
  } else if (command == "emit") {
    const priority = words.number(), stream = words.next();
    edge.emit(stream, edge.utf8(words.rest), priority);
  } else if (command == "publish") {
    const flags = words.number(), topic = words.next();
    edge.publish(topic, edge.utf8(words.rest), flags);
  } else if (command == "enqueue") {
    const delayMs = words.number(), queue = words.next();
    edge.enqueue(queue, edge.utf8(words.rest), delayMs);
  } else if (command == "respond") {
    const status = words.number(), name = words.next(), value = words.next();
    edge.respond(status, edge.utf8(words.rest), [new edge.Field(name, value)]);
  } else if (command == "count") {
    const name = words.next();
    edge.count(name, measure(words.rest));
  } else if (command == "observe") {
    const name = words.next();
    edge.observe(name, measure(words.rest));
  } else if (command == "blobput") {
    const name = words.next(), type = words.next();
    edge.blobPut(name, edge.utf8(words.rest), type);
  } else if (command == "blobdelete") {
    edge.blobDelete(words.rest);
  } else if (command == "blobsize") {
    const size = edge.blobSize(words.rest);
    answerRead(size < 0 ? null : edge.utf8(size.toString()));
  } else if (command == "blobget") {
    const offset = words.number(), length = words.number();
    answerRead(edge.blobRead(words.rest, offset, length));
  } else if (command == "request") {
    const method = words.next(), tag = words.next(), url = words.next();
    edge.request(url, edge.utf8(words.rest), [new edge.Field("method", method), new edge.Field("tag", tag)]);
  } else if (command == "log") {
    const level = words.number();
    edge.log(level, words.rest);
  } else if (command == "logwith") {
    const level = words.number(), name = words.next(), value = words.next();
    edge.logWith(level, words.rest, [new edge.Field(name, value)]);
  } else if (command == "twin") {
    const name = words.next();
    edge.twinReport(name, edge.utf8(words.rest));
  } else if (command == "fail") {
    edge.fail(words.rest);
  } else {
    edge.fail("unknown command: " + line);
  }
}

class Words {
  constructor(public rest: string) {}

  /** Takes what stands before the first space off the rest, and the space with it. */
  next(): string {
    const at = this.rest.indexOf(" ");
    const head = at < 0 ? this.rest : this.rest.substring(0, at);
    this.rest = at < 0 ? "" : this.rest.substring(at + 1);
    return head;
  }

  number(): i32 { return I32.parseInt(this.next()); }
}

function measure(text: string): f64 {
  const number = F64.parseFloat(text);
  if (isNaN(number)) edge.fail("no number: " + text);
  return number;
}

function answer(body: Uint8Array): void { edge.emit("answers", body); }

function answerRead(value: Uint8Array | null): void {
  answer(edge.utf8(value === null ? "-" : "=" + edge.text(value)));
}

function answerEvent(event: edge.Event): void {
  answer(edge.utf8(
    "kind=" + event.kind.toString() + " time_us=" + event.timeUs.toString() + " boot=" + event.boot.toString() +
    " sequence=" + event.sequence.toString() + " device=" + event.device + " topic=" + event.topic +
    " payload=" + event.payload.length.toString()
  ));
}
