/* See README.md. */
#include "edge.h"

static void answer(edge_bytes body) { edge_emit(EDGE("answers"), body, EDGE_NORMAL); }

static void answer_read(int found, edge_bytes value) {
    edge_text text = {0};
    edge_add(&text, found ? EDGE("=") : EDGE("-"));
    if (found) edge_add(&text, value);
    answer(edge_made(&text));
}

static void answer_event(const edge_event *event) {
    edge_text text = {0};
    edge_add(&text, EDGE("kind="));
    edge_add_u64(&text, event->kind);
    edge_add(&text, EDGE(" time_us="));
    edge_add_u64(&text, event->time_us);
    edge_add(&text, EDGE(" boot="));
    edge_add_u64(&text, event->boot);
    edge_add(&text, EDGE(" sequence="));
    edge_add_u64(&text, event->sequence);
    edge_add(&text, EDGE(" device="));
    edge_add(&text, edge_device(event));
    edge_add(&text, EDGE(" topic="));
    edge_add(&text, edge_topic(event));
    edge_add(&text, EDGE(" payload="));
    edge_add_u64(&text, event->payload.len);
    answer(edge_made(&text));
}

static void answer_keys(edge_bytes prefix) {
    edge_bytes key = {0};
    while (edge_state_next(prefix, &key)) answer_read(1, key);
}

static uint32_t number(edge_bytes word) {
    uint32_t number = 0;
    for (uint32_t i = 0; i < word.len; i++) number = number * 10 + (uint32_t)(word.at[i] - '0');
    return number;
}

static void respond(edge_bytes rest) {
    edge_text fields = {0};
    uint32_t status = number(edge_cut(&rest, ' '));
    edge_bytes name = edge_cut(&rest, ' '), value = edge_cut(&rest, ' ');
    edge_add_field(&fields, name, value);
    edge_respond(status, edge_made(&fields), rest);
}

static double measure(edge_bytes text) {
    double number = 0;
    if (!edge_number(text, &number)) {
        edge_text why = {0};
        edge_add(&why, EDGE("no number: "));
        edge_add(&why, text);
        edge_fail(edge_made(&why));
    }
    return number;
}

static void blob_size(edge_bytes name) {
    edge_text text = {0};
    int32_t size = edge_blob_size(name);
    if (size >= 0) edge_add_u64(&text, (uint64_t)size);
    answer_read(size >= 0, edge_made(&text));
}

static void blob_get(edge_bytes rest) {
    uint32_t offset = number(edge_cut(&rest, ' ')), cap = number(edge_cut(&rest, ' '));
    char *room = edge_room(cap);
    int32_t read = edge_blob_read(rest, offset, room, cap);
    answer_read(read >= 0, (edge_bytes){room, read >= 0 ? (uint32_t)read : 0});
}

static void request(edge_bytes rest) {
    edge_text head = {0};
    edge_bytes method = edge_cut(&rest, ' '), tag = edge_cut(&rest, ' '), url = edge_cut(&rest, ' ');
    edge_add_field(&head, EDGE("method"), method);
    edge_add_field(&head, EDGE("tag"), tag);
    edge_request(url, edge_made(&head), rest);
}

static int32_t digit(edge_bytes word) { return word.len == 1 ? word.at[0] - '0' : -1; }

static void obey(const edge_event *event, edge_bytes line) {
    edge_bytes rest = line, value, command = edge_cut(&rest, ' ');
    if (edge_same(command, EDGE("event"))) {
        answer_event(event);
    } else if (edge_same(command, EDGE("config"))) {
        int found = edge_config(rest, &value);
        answer_read(found, value);
    } else if (edge_same(command, EDGE("secret"))) {
        int found = edge_secret(rest, &value);
        answer_read(found, value);
    } else if (edge_same(command, EDGE("get"))) {
        int found = edge_state(rest, &value);
        answer_read(found, value);
    } else if (edge_same(command, EDGE("put"))) {
        edge_bytes key = edge_cut(&rest, ' ');
        edge_state_put(key, rest);
    } else if (edge_same(command, EDGE("putfor"))) {
        uint32_t seconds = number(edge_cut(&rest, ' '));
        edge_bytes key = edge_cut(&rest, ' ');
        edge_state_put_for(key, rest, seconds);
    } else if (edge_same(command, EDGE("putif"))) {
        edge_bytes key = edge_cut(&rest, ' '), expected = edge_cut(&rest, ' ');
        int absent = edge_same(expected, EDGE("-"));
        answer(edge_state_put_if(key, absent ? 0 : &expected, rest) ? EDGE("yes") : EDGE("no"));
    } else if (edge_same(command, EDGE("delete"))) {
        edge_state_delete(rest);
    } else if (edge_same(command, EDGE("keys"))) {
        answer_keys(rest);
    } else if (edge_same(command, EDGE("attribute"))) {
        int found = edge_attribute(event, rest, &value);
        answer_read(found, value);
    } else if (edge_same(command, EDGE("random"))) {
        char bytes[11];
        edge_random(bytes, sizeof bytes);
        answer((edge_bytes){bytes, sizeof bytes});
    } else if (edge_same(command, EDGE("emit"))) {
        int32_t priority = digit(edge_cut(&rest, ' '));
        edge_bytes stream = edge_cut(&rest, ' ');
        edge_emit(stream, rest, priority);
    } else if (edge_same(command, EDGE("publish"))) {
        int32_t flags = digit(edge_cut(&rest, ' '));
        edge_bytes topic = edge_cut(&rest, ' ');
        edge_publish(topic, rest, flags);
    } else if (edge_same(command, EDGE("enqueue"))) {
        uint32_t delay_ms = number(edge_cut(&rest, ' '));
        edge_bytes queue = edge_cut(&rest, ' ');
        edge_enqueue(queue, rest, delay_ms);
    } else if (edge_same(command, EDGE("respond"))) {
        respond(rest);
    } else if (edge_same(command, EDGE("count"))) {
        edge_bytes name = edge_cut(&rest, ' ');
        edge_count(name, measure(rest));
    } else if (edge_same(command, EDGE("observe"))) {
        edge_bytes name = edge_cut(&rest, ' ');
        edge_observe(name, measure(rest));
    } else if (edge_same(command, EDGE("blobput"))) {
        edge_bytes name = edge_cut(&rest, ' '), type = edge_cut(&rest, ' ');
        edge_blob_put(name, type, rest);
    } else if (edge_same(command, EDGE("blobdelete"))) {
        edge_blob_delete(rest);
    } else if (edge_same(command, EDGE("blobsize"))) {
        blob_size(rest);
    } else if (edge_same(command, EDGE("blobget"))) {
        blob_get(rest);
    } else if (edge_same(command, EDGE("request"))) {
        request(rest);
    } else if (edge_same(command, EDGE("log"))) {
        int32_t level = digit(edge_cut(&rest, ' '));
        edge_log(level, rest);
    } else if (edge_same(command, EDGE("logwith"))) {
        edge_text fields = {0};
        int32_t level = digit(edge_cut(&rest, ' '));
        edge_bytes name = edge_cut(&rest, ' ');
        edge_add_field(&fields, name, edge_cut(&rest, ' '));
        edge_log_with(level, rest, edge_made(&fields));
    } else if (edge_same(command, EDGE("twin"))) {
        edge_bytes name = edge_cut(&rest, ' ');
        edge_twin_report(name, rest);
    } else if (edge_same(command, EDGE("fail"))) {
        edge_fail(rest);
    } else {
        edge_text why = {0};
        edge_add(&why, EDGE("unknown command: "));
        edge_add(&why, line);
        edge_fail(edge_made(&why));
    }
}

static int32_t on_event(const edge_event *event) {
    edge_bytes rest = edge_payload(event);
    while (rest.len) obey(event, edge_cut(&rest, '\n'));
    return 0;
}

EDGE_FUNCTION(on_event)
