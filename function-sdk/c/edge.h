/* The gateway's contract, version 1, for C: one header, no C library. docs/abi.md is the contract itself.
 *
 *     #include "edge.h"
 *
 *     static int32_t on_event(const edge_event *event) {
 *         edge_emit(EDGE("raw"), edge_payload(event), EDGE_NORMAL);
 *         return 0;
 *     }
 *     EDGE_FUNCTION(on_event)
 *
 * Compiled with clang and lld:
 *
 *     clang --target=wasm32 -Os -ffreestanding -mbulk-memory -nostdlib -I function-sdk/c -Wl,--no-entry \
 *         -Wl,-zstack-size=16384 -Wl,--strip-all function.c -o function.wasm
 *
 * An effect (edge_state_put, edge_emit, …) that the manifest does not allow, or that is over a limit, ends the run. So do
 * edge_fail and a lack of memory. None of them returns then, and none of the run's effects takes place.
 */
#ifndef EDGE_H
#define EDGE_H

#include <stddef.h>
#include <stdint.h>

#define EDGE_IMPORT(name) __attribute__((import_module("edge_v1"), import_name(#name)))
#define EDGE_EXPORT(name) __attribute__((export_name(#name)))
/* For what is long: copied into every place that calls it, it would double the module. */
#define EDGE_LONG static __attribute__((noinline, unused))

/* ---- The imports, as docs/abi.md has them: one row there is one line here. ---- */

EDGE_IMPORT(config_get) int32_t edge_import_config_get(const void *key, size_t key_len, void *out, size_t out_cap);
EDGE_IMPORT(secret_get) int32_t edge_import_secret_get(const void *key, size_t key_len, void *out, size_t out_cap);
EDGE_IMPORT(state_get) int32_t edge_import_state_get(const void *key, size_t key_len, void *out, size_t out_cap);
EDGE_IMPORT(state_next)
int32_t edge_import_state_next(const void *prefix, size_t prefix_len, const void *after, size_t after_len, void *out,
                               size_t out_cap);
EDGE_IMPORT(blob_size) int32_t edge_import_blob_size(const void *name, size_t name_len);
EDGE_IMPORT(blob_get)
int32_t edge_import_blob_get(const void *name, size_t name_len, uint32_t offset, void *out, size_t out_cap);
EDGE_IMPORT(random_fill) void edge_import_random_fill(void *out, size_t out_len);
EDGE_IMPORT(state_put)
void edge_import_state_put(const void *key, size_t key_len, const void *value, size_t value_len);
EDGE_IMPORT(state_put_ttl)
void edge_import_state_put_ttl(const void *key, size_t key_len, const void *value, size_t value_len, uint32_t ttl_s);
EDGE_IMPORT(state_delete) void edge_import_state_delete(const void *key, size_t key_len);
EDGE_IMPORT(emit)
void edge_import_emit(const void *stream, size_t stream_len, const void *body, size_t body_len, int32_t priority);
EDGE_IMPORT(publish)
void edge_import_publish(const void *topic, size_t topic_len, const void *payload, size_t payload_len, int32_t flags);
EDGE_IMPORT(enqueue)
void edge_import_enqueue(const void *queue, size_t queue_len, const void *body, size_t body_len, uint32_t delay_ms);
EDGE_IMPORT(respond)
void edge_import_respond(uint32_t status, const void *headers, size_t headers_len, const void *body, size_t body_len);
EDGE_IMPORT(twin_report)
void edge_import_twin_report(const void *name, size_t name_len, const void *value, size_t value_len);
EDGE_IMPORT(count) void edge_import_count(const void *name, size_t name_len, double value);
EDGE_IMPORT(observe) void edge_import_observe(const void *name, size_t name_len, double value);
EDGE_IMPORT(blob_put)
void edge_import_blob_put(const void *name, size_t name_len, const void *type, size_t type_len, const void *body,
                          size_t body_len);
EDGE_IMPORT(blob_delete) void edge_import_blob_delete(const void *name, size_t name_len);
EDGE_IMPORT(request)
void edge_import_request(const void *url, size_t url_len, const void *head, size_t head_len, const void *body,
                         size_t body_len);
EDGE_IMPORT(log) void edge_import_log(int32_t level, const void *text, size_t text_len);
EDGE_IMPORT(log_with)
void edge_import_log_with(int32_t level, const void *text, size_t text_len, const void *fields, size_t fields_len);
EDGE_IMPORT(fail) _Noreturn void edge_import_fail(const void *text, size_t text_len);

enum { EDGE_NORMAL = 0, EDGE_HIGH = 1 };                                  /* priority of emit */
enum { EDGE_QOS0 = 0, EDGE_QOS1 = 1, EDGE_QOS2 = 2, EDGE_RETAIN = 4 };    /* flags of publish */
enum { EDGE_ERROR = 0, EDGE_WARN = 1, EDGE_INFO = 2, EDGE_DEBUG = 3 };    /* level of log */
enum { EDGE_MQTT = 0, EDGE_HTTP = 1, EDGE_SCHEDULE = 2, EDGE_QUEUE = 3, EDGE_DEVICE = 4,
       EDGE_ANSWER = 5, EDGE_BLOB = 6 };                                    /* kind of an event */

enum { EDGE_KEY_MAX = 256 }; /* bytes of a key of the state */

/* ---- Bytes, which may be text; no 0 at the end. ---- */

typedef struct {
    const char *at;
    uint32_t len;
} edge_bytes;

/* The bytes of a string literal. */
#define EDGE(literal) ((edge_bytes){(literal), sizeof(literal) - 1})

EDGE_LONG int edge_same(edge_bytes a, edge_bytes b) {
    if (a.len != b.len) return 0;
    for (uint32_t i = 0; i < a.len; i++)
        if (a.at[i] != b.at[i]) return 0;
    return 1;
}

/* Takes what stands before the first `end` off `rest`, and `end` with it; everything if there is none. */
EDGE_LONG edge_bytes edge_cut(edge_bytes *rest, char end) {
    edge_bytes head = {rest->at, 0};
    while (head.len < rest->len && head.at[head.len] != end) head.len++;
    uint32_t taken = head.len < rest->len ? head.len + 1 : head.len;
    rest->at += taken;
    rest->len -= taken;
    return head;
}

/* ---- The event, laid over the block. A later gateway writes a longer header; what is here stays where it is. ---- */

typedef struct {
    uint32_t offset, len;
} edge_span;

typedef struct {
    uint32_t header_len;
    uint32_t kind;
    uint64_t time_us;        /* when the gateway received it, microseconds since 1970-01-01 UTC */
    uint64_t boot, sequence; /* sequence 0: the event has no identity, and boot means nothing */
    edge_span device, topic, payload;
    edge_span attributes; /* read it through edge_attribute: a header that ends before it has none */
} edge_event;

_Static_assert(sizeof(edge_event) == 64 && offsetof(edge_event, attributes) == 56, "docs/abi.md has another layout");

static inline edge_bytes edge_at(const edge_event *event, edge_span span) {
    return (edge_bytes){(const char *)event + span.offset, span.len};
}
static inline edge_bytes edge_device(const edge_event *event) { return edge_at(event, event->device); }
static inline edge_bytes edge_topic(const edge_event *event) { return edge_at(event, event->topic); }
static inline edge_bytes edge_payload(const edge_event *event) { return edge_at(event, event->payload); }

/* Finds the first attribute of this name; answers whether there is one, and leaves it empty if not. */
EDGE_LONG int edge_attribute(const edge_event *event, edge_bytes name, edge_bytes *value) {
    *value = (edge_bytes){0};
    if (event->header_len < sizeof(edge_event)) return 0;
    edge_bytes rest = edge_at(event, event->attributes);
    while (rest.len >= 8) {
        uint32_t lens[2];
        __builtin_memcpy(lens, rest.at, sizeof lens);
        edge_bytes known = {rest.at + 8, lens[0]}, found = {known.at + lens[0], lens[1]};
        if (edge_same(known, name)) {
            *value = found;
            return 1;
        }
        rest.at = found.at + found.len;
        rest.len -= 8 + lens[0] + lens[1];
    }
    return 0;
}

/* ---- Memory: handed out once and never taken back, for the instance ends with the run. ---- */

/* First free byte; 0 at the beginning. Weak, so that all files of a module share one. */
__attribute__((weak)) uint32_t edge_next;
extern unsigned char __heap_base;

/* `len` bytes, divisible by 8; a null pointer if there are no more. */
EDGE_LONG void *edge_room_or_null(size_t len) {
    uint64_t at = (((uint64_t)(edge_next ? edge_next : (uint32_t)(uintptr_t)&__heap_base)) + 7) & ~(uint64_t)7;
    uint64_t end = at + len, have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    if (end > have) {
        uint64_t pages = (end - have + 0xffff) >> 16;
        if (end > UINT32_MAX || __builtin_wasm_memory_grow(0, pages) == (size_t)-1) return 0;
    }
    edge_next = (uint32_t)end;
    return (void *)(uintptr_t)at;
}

/* The same; ends the run if there are no more. The gateway then names the limit that was in the way. */
EDGE_LONG void *edge_room(size_t len) {
    void *room = edge_room_or_null(len);
    if (!room) __builtin_trap();
    return room;
}

/* ---- What a handler reads. ---- */

typedef int32_t edge_reader(const void *key, size_t key_len, void *out, size_t out_cap);

EDGE_LONG int edge_read(edge_reader *read, edge_bytes key, edge_bytes *value) {
    uint32_t cap = 256; /* most values are shorter; a longer one costs a second call */
    *value = (edge_bytes){0};
    for (;;) {
        char *out = edge_room(cap);
        int32_t len = read(key.at, key.len, out, cap);
        if (len < 0) return 0;
        if ((uint32_t)len <= cap) {
            *value = (edge_bytes){out, (uint32_t)len};
            return 1;
        }
        cap = (uint32_t)len;
    }
}

/* Reads a configuration value; answers whether there is one, and leaves it empty if not. */
static inline int edge_config(edge_bytes key, edge_bytes *value) {
    return edge_read(edge_import_config_get, key, value);
}
/* Reads a secret of the gateway that the manifest allows; answers whether there is one, and leaves it empty if not. */
static inline int edge_secret(edge_bytes key, edge_bytes *value) {
    return edge_read(edge_import_secret_get, key, value);
}
/* Reads a value of the state, this run's writes included; answers whether there is one. */
static inline int edge_state(edge_bytes key, edge_bytes *value) {
    return edge_read(edge_import_state_get, key, value);
}
/* Walks through the keys of the state that begin with `prefix`, in the order of bytes, this run's writes included: makes
 * the next one of `key`, which is empty before the first; answers whether there is one. */
EDGE_LONG int edge_state_next(edge_bytes prefix, edge_bytes *key) {
    char *out = edge_room(EDGE_KEY_MAX);
    int32_t len = edge_import_state_next(prefix.at, prefix.len, key->at, key->len, out, EDGE_KEY_MAX);
    if (len < 0) return 0;
    *key = (edge_bytes){out, (uint32_t)len};
    return 1;
}
/* The bytes of a blob, BUCKET/NAME or "sha256:" and the event's `digest`; -1 if there is none. */
static inline int32_t edge_blob_size(edge_bytes name) { return edge_import_blob_size(name.at, name.len); }
/* Reads a blob from `offset` on, `cap` bytes at most; answers how many, which is 0 from its end on; -1 if there is none. */
static inline int32_t edge_blob_read(edge_bytes name, uint32_t offset, void *out, uint32_t cap) {
    return edge_import_blob_get(name.at, name.len, offset, out, cap);
}
static inline void edge_random(void *out, uint32_t len) { edge_import_random_fill(out, len); }

/* ---- What it wants done. ---- */

static inline void edge_state_put(edge_bytes key, edge_bytes value) {
    edge_import_state_put(key.at, key.len, value.at, value.len);
}
/* The same for some time: absent for events that are received so many seconds after this one, or later. */
static inline void edge_state_put_for(edge_bytes key, edge_bytes value, uint32_t ttl_s) {
    edge_import_state_put_ttl(key.at, key.len, value.at, value.len, ttl_s);
}
/* Stores a value if the present one is `expected`, a null pointer for absent; answers whether it was. Events of one partition
 * run one at a time, so nothing comes in between. */
EDGE_LONG int edge_state_put_if(edge_bytes key, const edge_bytes *expected, edge_bytes value) {
    edge_bytes found;
    int there = edge_state(key, &found);
    if (there != (expected != 0) || (there && !edge_same(found, *expected))) return 0;
    edge_state_put(key, value);
    return 1;
}
static inline void edge_state_delete(edge_bytes key) { edge_import_state_delete(key.at, key.len); }
static inline void edge_emit(edge_bytes stream, edge_bytes body, int32_t priority) {
    edge_import_emit(stream.at, stream.len, body.at, body.len, priority);
}
static inline void edge_publish(edge_bytes topic, edge_bytes payload, int32_t flags) {
    edge_import_publish(topic.at, topic.len, payload.at, payload.len, flags);
}
/* A message to the function that reads this queue, not before so many milliseconds have passed. */
static inline void edge_enqueue(edge_bytes queue, edge_bytes body, uint32_t delay_ms) {
    edge_import_enqueue(queue.at, queue.len, body.at, body.len, delay_ms);
}
/* The answer to an HTTP request. `fields`: header fields, made with edge_add_field; or EDGE(""). */
static inline void edge_respond(uint32_t status, edge_bytes fields, edge_bytes body) {
    edge_import_respond(status, fields.at, fields.len, body.at, body.len);
}
/* A property of the event's device has this value now. */
static inline void edge_twin_report(edge_bytes name, edge_bytes value) {
    edge_import_twin_report(name.at, name.len, value.at, value.len);
}
/* Adds to a counter, which only grows. */
static inline void edge_count(edge_bytes name, double value) { edge_import_count(name.at, name.len, value); }
/* Adds a value to a distribution. */
static inline void edge_observe(edge_bytes name, double value) { edge_import_observe(name.at, name.len, value); }
/* Stores a blob; an empty type is application/octet-stream. */
static inline void edge_blob_put(edge_bytes name, edge_bytes type, edge_bytes body) {
    edge_import_blob_put(name.at, name.len, type.at, type.len, body.at, body.len);
}
static inline void edge_blob_delete(edge_bytes name) { edge_import_blob_delete(name.at, name.len); }
/* An HTTP request, whose answer comes as an event of kind EDGE_ANSWER. `head`: method, header.NAME, to, timeout_ms, tries
 * and tag, as docs/abi.md says, made with edge_add_field; or EDGE(""). */
static inline void edge_request(edge_bytes url, edge_bytes head, edge_bytes body) {
    edge_import_request(url.at, url.len, head.at, head.len, body.at, body.len);
}
static inline void edge_log(int32_t level, edge_bytes text) { edge_import_log(level, text.at, text.len); }
/* `fields`: names with values, made with edge_add_field. */
static inline void edge_log_with(int32_t level, edge_bytes text, edge_bytes fields) {
    edge_import_log_with(level, text.at, text.len, fields.at, fields.len);
}
static inline _Noreturn void edge_fail(edge_bytes text) { edge_import_fail(text.at, text.len); }

/* ---- Text, made piece by piece: begin with `edge_text text = {0}`. ---- */

typedef struct {
    char *at;
    uint32_t len, cap;
} edge_text;

static inline edge_bytes edge_made(const edge_text *text) { return (edge_bytes){text->at, text->len}; }

EDGE_LONG void edge_add(edge_text *text, edge_bytes more) {
    if (more.len > text->cap - text->len) {
        uint32_t cap = (text->cap + more.len) * 2;
        char *at = edge_room(cap);
        __builtin_memcpy(at, text->at, text->len);
        text->at = at;
        text->cap = cap;
    }
    __builtin_memcpy(text->at + text->len, more.at, more.len);
    text->len += more.len;
}

EDGE_LONG void edge_add_u64(edge_text *text, uint64_t number) {
    char digits[20];
    uint32_t at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    edge_add(text, (edge_bytes){digits + at, sizeof digits - at});
}

/* A name with its value: a header field for edge_respond, a field for edge_log_with, what edge_request takes. */
EDGE_LONG void edge_add_field(edge_text *fields, edge_bytes name, edge_bytes value) {
    uint32_t lens[2] = {name.len, value.len};
    edge_add(fields, (edge_bytes){(const char *)lens, sizeof lens});
    edge_add(fields, name);
    edge_add(fields, value);
}

/* A string of JSON, with its quotes. */
EDGE_LONG void edge_add_json(edge_text *text, edge_bytes value) {
    edge_add(text, EDGE("\""));
    for (uint32_t i = 0; i < value.len; i++) {
        unsigned char byte = (unsigned char)value.at[i];
        if (byte == '"' || byte == '\\') edge_add(text, EDGE("\\"));
        if (byte < 0x20) {
            const char *hex = "0123456789abcdef";
            char escape[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
            edge_add(text, (edge_bytes){escape, sizeof escape});
        } else {
            edge_add(text, (edge_bytes){value.at + i, 1});
        }
    }
    edge_add(text, EDGE("\""));
}

/* Reads a number as JSON writes it (RFC 8259, section 6), all of `text`; answers whether it is one. Exact up to 15 digits,
 * beyond that right to some units in the last place. */
EDGE_LONG int edge_number(edge_bytes text, double *number) {
    const char *at = text.at, *end = text.at + text.len;
    int negative = at < end && *at == '-', digits = 0, exponent = 0;
    double value = 0;
    at += negative;
    if (at < end && *at == '0' && at + 1 < end && at[1] >= '0' && at[1] <= '9') return 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++, digits++) value = value * 10 + (*at - '0');
    if (!digits) return 0;
    if (at < end && *at == '.') {
        int places = 0;
        for (at++; at < end && *at >= '0' && *at <= '9'; at++, places++) value = value * 10 + (*at - '0');
        if (!places) return 0;
        exponent = -places;
    }
    if (at < end && (*at | 0x20) == 'e') {
        at++;
        int down = at < end && *at == '-', given = 0, size = 0;
        at += at < end && (*at == '-' || *at == '+');
        for (; at < end && *at >= '0' && *at <= '9'; at++, given++)
            if (size < 10000) size = size * 10 + (*at - '0');
        if (!given) return 0;
        exponent += down ? -size : size;
    }
    if (at != end) return 0;
    if (value == 0) exponent = 0; /* 0e999 is 0, and not 0 times infinity */
    double power = 1, factor = 10;
    for (unsigned n = (unsigned)(exponent < 0 ? -exponent : exponent); n; n >>= 1, factor *= factor)
        if (n & 1) power *= factor;
    value = exponent < 0 ? value / power : value * power;
    *number = negative ? -value : value;
    return 1;
}

/* ---- The exports: once in a module. `handler` answers 0, or what the gateway reports as a failure. ---- */

#define EDGE_FUNCTION(handler)                                                               \
    EDGE_EXPORT(edge_alloc) void *edge_alloc(size_t len) { return edge_room_or_null(len); }  \
    EDGE_EXPORT(edge_handle) int32_t edge_handle(const edge_event *event, size_t len) {      \
        (void)len;                                                                           \
        return handler(event);                                                               \
    }

#endif
