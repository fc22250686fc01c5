/* load: requests at any OpenAI-compatible server, and what came of them.
 *
 * A run is one load: so many clients one after the other (closed), arrivals at a rate (open), a recorded log
 * (replay), or agents that hold conversations and think in between. Every request leaves a sample with every
 * time that was seen, so that all figures can be computed again from load_put_sample's lines; load_summarize
 * does that here. A sweep is several runs, judged by load_saturated and load_knee; acceptance is several
 * runs, each judged by its criteria.
 *
 * Latency counts from the intended send: the moment at which the schedule wanted the request, whether or not
 * the server (or this program) was ready for it. What each figure means is in load_definitions, in the words
 * that every report prints.
 *
 * Nothing is written to disk while a run measures. Thread: a run has its own loop on the caller's thread. */
#ifndef PHAROS_OPS_LOAD_H
#define PHAROS_OPS_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/status.h"

#define LOAD_IN_FLIGHT_MAX 4000
#define LOAD_TOKENS_MAX 1000000
#define LOAD_DEFAULT_TIMEOUT_S 300

/* ---- Prompts (load_prompt.c, load_replay.c) */

struct load_prompt {
    const char *text;     /* NULL: made of words, `tokens` long */
    const char *messages; /* a JSON array, terminated; NULL: one user message with the text */
    size_t tokens;
    size_t max_tokens; /* 0: as the run says */
};

struct load_prompts {
    const struct load_prompt *items; /* NULL: every prompt is made of words */
    size_t count;
    size_t tokens; /* of those that are made */
    /* How a prompt of words is made as long as wanted: see load_calibrate. */
    double tokens_per_word, tokens_around;
};

/* A file with a prompt a line: text, or JSON: {"messages": [...]}, {"prompt": "..."}, an array of messages, a
 * string. An object may say "max_tokens". Strings live in the arena. */
PH_MUST_USE enum ph_status load_prompts_read(struct arena *arena, const char *path, struct load_prompts *out,
                                             struct ph_err *err);
/* One such line; an empty one is PH_ERR_NOTFOUND. */
PH_MUST_USE enum ph_status load_prompt_parse(struct arena *arena, const char *line, size_t len,
                                             struct load_prompt *out, struct ph_err *err);
/* The text of the prompt that is number `index` of those made of words: the same for the same seed. */
void load_prompt_words(const struct load_prompts *prompts, uint64_t seed, uint64_t index, size_t tokens,
                       struct buf *out);

struct load_arrival {
    uint64_t at_ns; /* since the first one */
    size_t stage;   /* of a sweep's samples: one after the other */
    struct load_prompt prompt;
};
struct load_replay {
    const struct load_arrival *items; /* by stage and time; each stage begins with the last one's end */
    size_t count;
};
/* A station's request log (with bodies: what was asked is asked again; without: as many tokens), or the lines
 * of load_put_sample. A station's log knows whole seconds only: arrivals are told apart by how long the
 * answers took. */
PH_MUST_USE enum ph_status load_replay_read(struct arena *arena, const char *path, struct load_replay *out,
                                            struct ph_err *err);
/* One line of either kind; at_ns counts from anywhere. PH_ERR_NOTFOUND: a line that is no request to repeat
 * (empty, a warm-up, a failed one that says no length). */
PH_MUST_USE enum ph_status load_replay_parse(struct arena *arena, const char *line, size_t len,
                                             struct load_arrival *out, struct ph_err *err);

/* ---- The server */

enum load_api { LOAD_CHAT, LOAD_COMPLETION };

struct load_target {
    const char *url; /* "http://127.0.0.1:8080", with or without /v1 */
    const char *key; /* NULL: none; only ever in the header of a request */
    const char *ca_file;
    const char *model;
    enum load_api api;
};

/* The first of its /v1/models, into the arena. */
PH_MUST_USE enum ph_status load_first_model(struct arena *arena, const struct load_target *target,
                                            const char **model, struct ph_err *err);
/* Asks twice, with a few words and with more, and learns from the counts in the replies what a word costs in
 * tokens. Where the server does not count, a word stays a token. */
PH_MUST_USE enum ph_status load_calibrate(const struct load_target *target, struct load_prompts *prompts,
                                          struct ph_err *err);

/* ---- A run */

enum load_mode { LOAD_CLOSED, LOAD_OPEN, LOAD_REPLAY, LOAD_AGENTS };
extern const char *const load_mode_names[]; /* "closed", ...; NULL-terminated */

struct load_slo { /* seconds; 0: not asked for */
    double ttft_s, tpot_s, e2e_s;
};
/* "ttft=200ms,tpot=50ms,e2e=10s" */
PH_MUST_USE enum ph_status load_slo_parse(const char *text, struct load_slo *out, struct ph_err *err);

struct load_live {
    double seconds;
    bool is_warming;
    size_t done, failed, in_flight, due; /* due: their time has come and they wait for a place */
    double tokens_out_per_s, ttft_ms;    /* of the last second; NAN: nothing came */
    size_t wanted;                       /* 0: no number was given */
};

struct load_params {
    const struct clock_source *clock; /* monotonic times and the date */
    struct load_target target;
    enum load_mode mode;
    size_t concurrency; /* CLOSED, AGENTS: clients; else the most in flight */
    double rate_per_s;  /* OPEN: the mean of a Poisson process */
    double think_s;     /* AGENTS: mean of an exponential distribution */
    size_t turns;       /* AGENTS: of a conversation; then the next one begins */
    double speed;       /* REPLAY: 2: twice as fast */
    size_t requests;    /* 0: until the time is over */
    double duration_s;  /* 0: until the requests are done */
    size_t warmup;      /* requests before the measured ones, not counted */
    double timeout_s;   /* of a request; 0: LOAD_DEFAULT_TIMEOUT_S */
    size_t max_tokens;
    bool whole;          /* not streamed */
    bool ignore_end;     /* ignore_eos: answers of exactly max_tokens */
    bool stop_saturated; /* OPEN, REPLAY: end at once when the queue only grows */
    uint64_t seed;
    struct load_prompts prompts;
    struct load_replay replay;
    void (*progress)(void *ud, const struct load_live *live); /* twice a second; NULL: none */
    void *ud;
};

enum load_error {
    LOAD_OK,
    LOAD_REFUSED, /* no connection, no such name, TLS */
    LOAD_TIMEOUT,
    LOAD_RATE,       /* 429 */
    LOAD_CLIENT,     /* other 4xx */
    LOAD_SERVER,     /* 5xx */
    LOAD_IN_STREAM,  /* an error in place of the rest of an answer */
    LOAD_CUT,        /* the answer ended before its end */
    LOAD_BAD_REPLY,  /* not HTTP, not JSON, not of the API */
    LOAD_EMPTY,      /* an answer without a token */
    LOAD_OURS,       /* no memory, no descriptors here */
    LOAD_UNFINISHED, /* in flight when the run was ended; no failure, no success */
    LOAD_ERROR_COUNT
};
extern const char *const load_error_names[LOAD_ERROR_COUNT]; /* "refused", "http_429", ... */

enum load_counted { LOAD_COUNTED_NOT, LOAD_COUNTED_USAGE, LOAD_COUNTED_CHUNKS };

struct load_sample { /* times since the run began */
    uint64_t intended_ns, sent_ns, end_ns;
    size_t chunk_first, chunk_count; /* of load_run.chunks_ns: when each piece of the answer came */
    uint64_t tokens_in, tokens_out;
    enum load_counted counted;
    enum load_error error;
    int status;                /* HTTP's; 0: none came */
    bool is_warmup, is_stream; /* is_stream: the answer came as events */
};

#define LOAD_WORDS_MAX 160
struct load_run {
    struct load_sample *samples; /* in the order of their ends */
    size_t count, room;
    uint64_t *chunks_ns;
    size_t chunk_count, chunk_room;
    int64_t started_unix_ms;
    uint64_t connections; /* opened */
    uint64_t cpu_ns;      /* of this process, while it ran */
    bool was_interrupted, was_saturated;
    char words[LOAD_ERROR_COUNT][LOAD_WORDS_MAX]; /* what was said when a kind of error came first */
};
void load_run_release(struct load_run *run);

/* Until the requests or the time are over and every answer has ended; SIGINT and SIGTERM end it at once, with
 * was_interrupted, and what was done is there. Not PH_OK: it could not begin, or memory is short. Release
 * `run` in any case. */
PH_MUST_USE enum ph_status load_run(const struct load_params *params, struct load_run *run,
                                    struct ph_err *err);

/* The next arrival of a Poisson process, for `u` uniform in [0, 1): seconds after the last one. */
double load_gap_s(double rate_per_s, double u);

/* ---- Figures (load_stats.c) */

struct load_dist { /* milliseconds; NAN where count is 0 */
    size_t count;
    double mean, p50, p95, p99, max;
};

struct load_summary {
    double requests, succeeded, failed, unfinished;
    double errors[LOAD_ERROR_COUNT];
    double seconds; /* first intended send to last end */
    double requests_per_s, tokens_in, tokens_out, tokens_in_per_s, tokens_out_per_s;
    double success_percent, goodput_percent, goodput_per_s; /* NAN: no SLO was given */
    double stream_tokens_per_s;                             /* of one stream: the median of 1 / TPOT */
    double in_flight_mean, in_flight_max;
    double counted_usage, counted_chunks; /* answers whose tokens were counted so */
    struct load_dist ttft, tpot, itl, e2e, late;
};
PH_MUST_USE enum ph_status load_summarize(const struct load_run *run, const struct load_slo *slo,
                                          struct load_summary *out, struct ph_err *err);

/* Nearest rank: the least value that at least p percent of all are not above. `sorted` ascends; NAN: none. */
double load_percentile(const double *sorted, size_t count, double p);
double load_ttft_ms(const struct load_run *run, const struct load_sample *sample); /* NAN: none */
double load_tpot_ms(const struct load_run *run, const struct load_sample *sample);

/* The figures by name: what JSON, tables and criteria call them. */
struct load_metric {
    const char *name; /* "ttft_p50_ms"; NULL ends the table */
    size_t offset;    /* of a double in load_summary */
};
extern const struct load_metric load_metrics[];
double load_metric_value(const struct load_metric *metric, const struct load_summary *summary);
const struct load_metric *load_metric_find(const char *name, size_t len); /* NULL: there is none */

struct load_definition {
    const char *name, *text; /* a NULL name ends the table */
};
extern const struct load_definition load_definitions[];

/* One level of a sweep, or one window of a run. */
struct load_level {
    double load; /* what was asked for: clients, or requests a second */
    double in_flight, ttft_ms, throughput;
};
/* Did the last level drown: more in flight and more waiting than at the one before, for nothing? */
bool load_saturated(const struct load_level *levels, size_t count);
/* The same within a run of steady arrivals, by windows of a second: in flight and TTFT both only rise. */
bool load_drowning(const struct load_level *windows, size_t count);
/* The least load that reaches 95 % of the best throughput. */
size_t load_knee(const struct load_level *levels, size_t count);

/* ---- Reports */

struct load_stage { /* one run in a report */
    const char *name;
    struct load_params params;
    const struct load_run *run;
    struct load_summary summary;
};
struct load_report {
    const struct load_stage *stages;
    size_t count;
    const char *load_name; /* what a sweep raises: "clients", "requests a second"; NULL: it is none */
    size_t knee;           /* index; of a sweep */
    bool found_knee;       /* it was over-saturated at the end, so the knee is one */
    struct load_slo slo;
    const struct load_verdict *verdicts;
    size_t verdict_count;
};
/* Sample `number` of a report's stage as a line of JSON. */
void load_put_sample(const struct load_stage *of, size_t stage, size_t number, struct buf *out);
void load_put_text(const struct load_report *report, struct buf *out);
void load_put_json(const struct load_report *report, struct buf *out);
void load_put_html(const struct load_report *report, struct buf *out);

/* ---- Acceptance (load_criteria.c) */

enum load_how { LOAD_BELOW, LOAD_AT_MOST, LOAD_ABOVE, LOAD_AT_LEAST };
struct load_want {
    const struct load_metric *metric;
    const char *text; /* as written */
    enum load_how how;
    double limit;
};
struct load_test {
    const char *name;
    const char *machine; /* the class of machines it is for; NULL: every one */
    struct load_params params;
    size_t prompt_tokens;
    struct load_slo slo;
    const struct load_want *wants;
    size_t want_count;
};
struct load_criteria {
    const struct load_test *tests;
    size_t count;
};
PH_MUST_USE enum ph_status load_criteria_parse(struct arena *arena, const char *source, const char *text,
                                               size_t len, struct load_criteria *out, struct ph_err *err);
PH_MUST_USE enum ph_status load_criteria_read(struct arena *arena, const char *path,
                                              struct load_criteria *out, struct ph_err *err);

struct load_verdict {
    const char *test;
    const struct load_want *want;
    double measured; /* NAN: nothing to measure, which fails */
    bool holds;
};
struct load_verdict load_judge(const char *test, const struct load_want *want,
                               const struct load_summary *summary);
/* "180.2 wanted < 100: 80.2 (80 %) too much" */
void load_put_verdict(const struct load_verdict *verdict, struct buf *out);

#endif
