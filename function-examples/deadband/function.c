/* See README.md. */
#include "edge.h"

/* What lasts between two readings: when the last record was sent, and the number in it as it was written. */
#define STAMP 8

static double number_or_fail(const char *what, uint32_t what_len, edge_bytes text) {
    double number;
    if (edge_number(text, &number)) return number;
    edge_text why = {0};
    edge_add(&why, (edge_bytes){what, what_len});
    edge_add(&why, EDGE(" is no number: "));
    edge_add(&why, (edge_bytes){text.at, text.len < 64 ? text.len : 64});
    edge_fail(edge_made(&why));
}
#define NUMBER_OR_FAIL(what, text) number_or_fail(what, sizeof(what) - 1, text)

static double config_number(edge_bytes key) {
    edge_bytes value;
    if (!edge_config(key, &value)) edge_fail(EDGE("the configuration lacks \"band\" or \"silence_s\""));
    double number = NUMBER_OR_FAIL("a configuration value", value);
    if (number < 0) edge_fail(EDGE("the configuration has a negative \"band\" or \"silence_s\""));
    return number;
}

/* Whether this reading says something that the last record did not. */
static int is_news(const edge_event *event, double value, edge_bytes last) {
    double band = config_number(EDGE("band")), silence_us = config_number(EDGE("silence_s")) * 1e6;
    uint64_t sent;
    if (last.len < STAMP) return 1;
    __builtin_memcpy(&sent, last.at, STAMP);
    double was = NUMBER_OR_FAIL("the state", ((edge_bytes){last.at + STAMP, last.len - STAMP}));
    double moved = value > was ? value - was : was - value;
    /* The gateway's clock may be set back; then the silence begins anew. */
    double silent_us = event->time_us > sent ? (double)(event->time_us - sent) : 0;
    return moved > band || (silence_us > 0 && silent_us >= silence_us);
}

static int32_t on_reading(const edge_event *event) {
    edge_bytes reading = edge_payload(event), last = {0};
    double value = NUMBER_OR_FAIL("the payload", reading);
    edge_state(EDGE("last"), &last);
    if (!is_news(event, value, last)) return 0;

    edge_text record = {0};
    edge_add(&record, EDGE("{\"device\":"));
    edge_add_json(&record, edge_device(event));
    edge_add(&record, EDGE(",\"topic\":"));
    edge_add_json(&record, edge_topic(event));
    edge_add(&record, EDGE(",\"value\":"));
    edge_add(&record, reading);
    edge_add(&record, EDGE(",\"time_us\":"));
    edge_add_u64(&record, event->time_us);
    edge_add(&record, EDGE("}"));
    edge_emit(EDGE("changes"), edge_made(&record), EDGE_NORMAL);

    edge_text state = {0};
    edge_add(&state, (edge_bytes){(const char *)&event->time_us, STAMP});
    edge_add(&state, reading);
    edge_state_put(EDGE("last"), edge_made(&state));
    return 0;
}

EDGE_FUNCTION(on_reading)
