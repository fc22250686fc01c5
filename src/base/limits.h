/* Every limit that protects the station from its inputs, by name and unit. A limit only ever goes down
 * without a reason in its commit. Limits a user may want to move are configuration; their defaults are here.
 */
#ifndef PHAROS_BASE_LIMITS_H
#define PHAROS_BASE_LIMITS_H

/* JSON and YAML */
#define JSON_DEPTH_MAX 256
#define PATH_BYTES_MAX 4096 /* with its zero */
#define CONFIG_BYTES_MAX (1u << 20)
#define CONFIG_DEPTH_MAX 16
#define CONFIG_KEYS_MAX 4096 /* in one mapping */

/* Log: a line; what Linux writes to a pipe in one piece (PIPE_BUF) */
#define LOG_LINE_BYTES_MAX 4096

/* HTTP edge */
#define HTTP_HEADER_BYTES_MAX (32u << 10)
#define HTTP_HEADER_COUNT_MAX 100
#define HTTP_METHOD_BYTES_MAX 24
#define HTTP_TARGET_BYTES_MAX (8u << 10)
#define HTTP_TRAILER_BYTES_MAX (4u << 10) /* with the chunk extensions of the same body */
#define HTTP_REQUEST_ID_BYTES_MAX 128     /* a longer x-request-id is replaced */
#define HTTP_BODY_BYTES_MAX (16u << 20)
#define HTTP_BODIES_BYTES_MAX (512u << 20) /* of all requests together; beyond it a request gets 503 */
#define HTTP_REQUEST_ARENA_BYTES_MAX (128u << 20)
#define HTTP_CONNECTIONS_MAX 16384          /* idle ones cost 600 bytes each */
#define HTTP_PIPELINE_BYTES_MAX (64u << 10) /* read ahead while a reply is in flight */
#define HTTP_HEADER_DEADLINE_MS 10000       /* first byte to end of headers */
#define HTTP_BODY_DEADLINE_MS 60000         /* end of headers to end of body */
#define HTTP_IDLE_DEADLINE_MS 75000         /* keep-alive without a request */
#define HTTP_WRITE_STALL_DEADLINE_MS 30000  /* a client that reads nothing */
#define HTTP_WRITE_QUEUE_BYTES_MAX (1u << 20)
#define HTTP_STREAM_QUEUE_BYTES_MAX \
    (16u << 20)                      /* a handler that writes on in spite of back-pressure is cut */
#define HTTP_LINGER_DEADLINE_MS 2000 /* after the last byte: for the client to read it and close */
#define HTTP_RESET_LOOK_MS 20 /* an abort waits for the client to have what was written: how often it looks */
#define HTTP_REFUSALS_MAX 64  /* connections beyond the limit that are told so at the same time */
#define HTTP_PEER_PROBE_S 30  /* a silent connection's other end is asked whether it is still there ... */
#define HTTP_PEER_SILENCE_MS 60000 /* ... and is gone when it has acknowledged nothing for so long */
#define HTTP_STOP_GRACE_MS 10000   /* SIGTERM: finish within this, then cut */

/* HTTP client */
#define HTTP_CALLS_MAX 4096            /* at the same time */
#define HTTP_CALL_CONNECTIONS_MAX 2048 /* open, of all places together */
#define HTTP_CALL_IDLE_MAX 256         /* kept for later */
#define HTTP_CALL_CONNECT_TIMEOUT_MS 10000
#define HTTP_CALL_HEAD_TIMEOUT_MS 120000
#define HTTP_CALL_SILENCE_TIMEOUT_MS 60000
#define HTTP_CALL_HEAD_BYTES_MAX (64u << 10)
#define HTTP_CALL_BODY_BYTES_MAX (64u << 20)
#define HTTP_CALL_READ_BYTES (64u << 10) /* at once, from one connection */
#define HTTP_CALL_TICK_MS 20             /* time limits are looked at no more often */
#define HTTP_CALL_IDLE_AGE_MS 90000      /* a kept connection that was idle for longer is not used again */

/* Names and connections */
#define NET_NAMES_KEPT_MS 60000 /* an answer of the name server */
#define NET_NAMES_KEPT_MAX 256
#define NET_NAMES_THREADS_MAX 32 /* names looked up at the same time */
#define NET_DIAL_NEXT_MS 250     /* a silent address: the next one is tried beside it (RFC 8305, 5) */

/* Redis client */
#define REDIS_WAITING_MAX 1024           /* commands without their reply */
#define REDIS_QUEUE_BYTES_MAX (8u << 20) /* not sent yet: what comes then is dropped */
#define REDIS_CONNECT_TIMEOUT_MS 5000    /* name, connection, hello */
#define REDIS_REPLY_TIMEOUT_MS 5000      /* a connection that owes a reply for so long is given up */
#define REDIS_RETRY_MS 100               /* after that; then twice as late ... */
#define REDIS_RETRY_MAX_MS 5000
#define REDIS_STEADY_MS 10000 /* one that held for so long: the next failure is retried soon again */

/* Loop */
#define NET_WORK_MAX 256 /* jobs for the helper threads, waiting or running */

/* GGUF */
#define GGUF_KEY_COUNT_MAX 65536
#define GGUF_TENSOR_COUNT_MAX 65536
#define GGUF_NAME_BYTES_MAX 65535
#define GGUF_DIMS_MAX 4

/* Models */
#define VOCAB_TOKENS_MAX (1u << 21)
#define VOCAB_TOKEN_BYTES_MAX 2048 /* one piece, decoded */
#define MODEL_LAYERS_MAX 512
#define MODEL_HEADS_MAX 1024
#define MODEL_EXPERTS_MAX 1024
#define MODEL_DIM_MAX (1u << 20)
#define MODEL_CONTEXT_MAX (1u << 22)
#define RUNNER_ROWS_MAX 65536 /* rows in one step */
#define RUNNER_SEQUENCES_MAX 65536
#define RUNNER_LORAS_MAX 64
#define ENCODER_CONTEXT_DEFAULT_MAX 8192 /* the longest text of an embedding model, unless told otherwise */

/* Templates */
#define TEMPLATE_BYTES_MAX (1u << 20)
#define TEMPLATE_OUTPUT_BYTES_MAX (32u << 20)
#define TEMPLATE_STEPS_MAX 5000000   /* statements and expressions evaluated in one render */
#define TEMPLATE_DEPTH_MAX 200       /* nesting of the source */
#define TEMPLATE_EVAL_DEPTH_MAX 1000 /* nesting of calls, expressions and values in one render */
#define TEMPLATE_ARENA_BYTES_MAX (256u << 20)

/* Training */
#define TRAIN_MEMORY_PERCENT 75 /* of what is available when a run begins, unless the user says how much */

/* Engine */
#define ENGINE_SEQUENCES_MAX 256 /* decoding together */
#define ENGINE_QUEUE_MAX 1024    /* waiting for a place */
#define ENGINE_STOP_COUNT_MAX 16
#define ENGINE_STOP_BYTES_MAX 1024 /* one stop string */
#define ENGINE_EVENTS_MAX 64       /* undelivered tokens before a sequence waits for its reader */
#define ENGINE_LOGPROBS_MAX 20
#define ENGINE_LOGIT_BIAS_MAX 1024
#define ENGINE_CONTEXT_DEFAULT_MAX 8192
#define ENGINE_SEQUENCES_DEFAULT 32
#define ENGINE_QUEUE_DEFAULT 256
#define ENGINE_PREFILL_CHUNK_DEFAULT 512
#define ENGINE_PREFILL_CHUNK_MAX 4096
#define EMBEDDER_ROWS_DEFAULT 512  /* tokens in one run: whoever comes meanwhile waits that long */
#define EMBEDDER_TEXTS_MAX 512     /* in one run */
#define EMBEDDER_QUEUE_DEFAULT 256 /* jobs waiting */
#define ENGINE_KV_MEMORY_SHARE 3   /* the KV cache: at most one part in so many of what weights leave */

/* Chat requests */
#define CHAT_MESSAGES_MAX 16384
#define CHAT_CHOICES_MAX 32                             /* n */
#define CHAT_STOP_COUNT_MAX (ENGINE_STOP_COUNT_MAX - 1) /* one is the plain template's own */
#define CHAT_SEQUENCES_MAX 128                          /* prompts x n */
#define CHAT_REPLY_BYTES_MAX (64u << 20)                /* collected for a reply that is not streamed */
#define CHAT_INLINE_BYTES_MAX (16u << 10)               /* longer prompts are rendered on a helper thread */
#define CHAT_PROMPT_BYTES_MAX (32u << 20)               /* rendered */
#define CHAT_SSE_EVENT_BYTES_MAX (8u << 20)             /* one event of a provider */
#define CHAT_TOOL_CALLS_MAX 128                         /* of one choice */
#define CHAT_EMBED_INPUTS_MAX 2048
#define CHAT_EMBED_WIDTH_MAX (1u << 16)
#define CHAT_KEEPALIVE_MS 10000 /* silence in a stream before a comment line */

/* Gateway */
#define LEDGER_HOLDS_MAX 8192 /* requests on their way at the same time */
#define LEDGER_SLOTS 16384    /* those and settled ones that wait for the disk */
#define LEDGER_BATCH_RECORDS 256
#define LEDGER_ACCOUNTS_MAX 65536 /* keys and providers */
#define KEYS_MAX 10000
#define KEYS_FILE_BYTES_MAX (16u << 20)
#define ACCOUNT_KEYS_MAX 64
#define ACCOUNT_HEADERS_MAX 16
#define ACCOUNT_ASIDE_S 60 /* a key that was refused is tried again after this, then twice as late ... */
#define ACCOUNT_ASIDE_MAX_S 3600
#define ACCOUNT_REST_MS 1000 /* a key that was too fast, when the provider does not say for how long */
#define ACCOUNT_REST_MAX_MS 60000
#define ACCOUNT_HINT_MAX_S 86400 /* no retry-after is believed beyond this */
#define ACCOUNT_STICKY_MAX 1024  /* conversations whose key is remembered */
#define BREAKER_FAILURES_MAX 5   /* in a window, and at least half of its calls: no more calls for now */
#define BREAKER_WINDOW_S 30
#define BREAKER_OPEN_S 5 /* until the first probe, then twice as late ... */
#define BREAKER_OPEN_MAX_S 300
#define PROVIDER_WHOLE_TIMEOUT_MS 600000      /* for the head of a reply that is not streamed */
#define PROVIDER_PENDING_BYTES_MAX (4u << 20) /* of a reply, read but not to be shown yet */
#define PROVIDER_FAULT_BYTES_MAX (64u << 10)  /* of the body of a reply that is an error */
#define PROVIDER_ARENA_BYTES_MAX (192u << 20) /* of an attempt: the request translated, the reader */
#define ROUTE_CANDIDATES_MAX 64
#define ROUTE_ATTEMPTS_MAX 16 /* of one request, all models and keys together */
#define CACHE_ANSWER_BYTES_MAX (4u << 20)
#define CACHE_MB_MAX 65536
#define CACHE_REDIS_WAIT_MS 50 /* a request waits so long for a shared cache, then it goes on without */
#define CACHE_BLOCKS_MAX 256   /* of an answer read from one: changes between text, thoughts, calls */
#define ROUTE_RECORDS_MAX 4096 /* kept for /v1/routes */
#define REQUEST_LOG_TEXT_BYTES_MAX \
    (64u << 10)                       /* of a request, and of a reply, in a line of the request log */
#define SUPERVISED_LOG_TAIL_BYTES 320 /* shown when an engine does not start: it fits into a fault */
#define SUPERVISED_WAITING_MAX 1024   /* requests that wait for an engine to start */
#define SUPERVISED_START_TIMEOUT_S 300
#define SUPERVISED_STOP_GRACE_MS 5000
#define SUPERVISED_LOOK_MS 100 /* how often an engine that starts is asked whether it is there */
#define SUPERVISED_TICK_MS 1000
#define SUPERVISED_HEALTH_S 10     /* how often one that runs and has nothing to do is asked ... */
#define SUPERVISED_HEALTH_MISSES 3 /* ... and that many times without an answer it is started anew */
#define SUPERVISED_RETRY_MS 1000   /* after an engine died; then twice as long ... */
#define SUPERVISED_RETRY_MAX_MS 60000
#define SUPERVISED_STEADY_S 60 /* one that ran for so long is no longer thought to be failing */
#define SUPERVISED_COMMAND_BYTES_MAX 4096
#define SUPERVISED_ROOM_RETRY_S 10           /* when there is no memory for it */
#define SUPERVISED_PORT_TRIES 3              /* when somebody else took the port meanwhile */
#define SUPERVISED_MEASURE_S 10              /* how often a running engine's memory and log are looked at */
#define SUPERVISED_LOG_BYTES_MAX (16u << 20) /* then it becomes the old log, of which as much is kept */
#define SUPERVISED_MODEL_FILES_MAX 256       /* of one command, for a first guess of its memory */
#define GATE_WAITING_MAX 4096    /* requests before one model, unless the configuration says otherwise */
#define GATE_RUNNING_DEFAULT 256 /* requests at a model elsewhere */
#define RATES_NAMES_MAX 16384    /* keys and providers that were used within a minute */
#define DRILL_TIMEOUT_MS 1000    /* of each kind, of a provider that is to fail */
#define DRILL_REPLY_BYTES_MAX (2u << 20)
#define DRILL_IDLE_S 30 /* a drill that nobody goes on with ends */

/* Memory */
#define EMBED_WORKER_INTERVAL_MS \
    3000 /* how late a new message gets its vector, at most, when nothing else is to do */
#define VECTORS_WIDTH_MAX 4096   /* numbers of a message's vector */
#define VECTORS_HITS_MAX 512     /* of one search */
#define LEXICAL_WORDS_MAX 4096   /* of one text: the rest says little new */
#define LEXICAL_TEXTS_MAX 20000  /* counted for the rarity of words */
#define STORE_USER_BYTES_MAX 512 /* names: without their zero */
#define STORE_KEY_BYTES_MAX 512
#define STORE_ID_BYTES_MAX 256
#define STORE_DOMAIN_BYTES_MAX 256
#define STORE_ROLE_BYTES_MAX 64
#define STORE_NAME_BYTES_MAX 512
#define STORE_SPACE_BYTES_MAX 256
#define STORE_METADATA_BYTES_MAX (256u << 10)
#define STORE_NOTE_BYTES_MAX (64u << 10)
#define STORE_MESSAGE_BYTES_MAX (64u << 20) /* one message: content and all that goes with it */
#define STORE_RESPONSE_BYTES_MAX (64u << 20)
#define STORE_VECTOR_BYTES_MAX (256u << 10)
#define STORE_APPEND_MAX 65536             /* messages, or vectors, in one write */
#define STORE_QUEUE_MAX 8192               /* writes that wait, */
#define STORE_QUEUE_BYTES_MAX (256u << 20) /* and their bytes */
#define STORE_BATCH_MAX 512                /* writes in one transaction, */
#define STORE_BATCH_MESSAGES_MAX 4096      /* messages in it, */
#define STORE_READERS_DEFAULT 4
#define STORE_READERS_MAX 64
#define STORE_LOCK_WAIT_MS 30000          /* for another process that writes to the same store */
#define STORE_SERVER_WAIT_MS 20000        /* for a database server that has gone away */
#define STORE_PURGE_WAIT_MS 10000         /* a deletion waits so long for others to let go of the files */
#define STORE_PAGE_BYTES (8u << 20)       /* of rows read at once, */
#define STORE_PAGE_MAX 1000               /* rows of a list at once */
#define STORE_LINE_BYTES_MAX (256u << 20) /* a conversation as a line of text */
#define MEMORY_BYTES_MAX (512u << 20)     /* users' indexes and conversations kept in memory */
#define MEMORY_USERS_MAX 1024             /* of whom something is */
#define MEMORY_USER_CONVERSATIONS_MAX 64  /* of each of them */
#define MEMORY_HOT_WAIT_MS 50             /* a turn waits so long for a conversation in a shared cache */
#define MEMORY_HOT_GRACE_MS 10            /* ... and so much longer for a loop that is busy */
#define MEMORY_HOT_BYTES_MAX (4u << 20)   /* of a conversation there */
#define MEMORY_HOT_QUEUE_BYTES_MAX (16u << 20) /* on their way to it */
#define MEMORY_HOT_MESSAGES_MIN 16             /* of one that is kept there */
#define MEMORY_HOT_GROWTH 8 /* it goes there again when it has grown by one part in so many */
#define MEMORY_HOT_NAME_MAX 64
#define MEMORY_KEEP_RECENT 4         /* newest messages that always go, in chats */
#define MEMORY_TURN_MARGIN_TOKENS 16 /* what templates put around a whole prompt */
#define MEMORY_BUDGET_DEFAULT 8192   /* tokens, where no window is known */
#define MEMORY_ANSWER_TOKENS 4096    /* left for an answer whose length was not said; at most a quarter */
#define MEMORY_ITEMS_MAX 20          /* added to a conversation in one request */
#define MEMORY_PAGE_MAX 100          /* items of a list */
#define MEMORY_REFERENCES_MAX 1000   /* items of an input that are named only */
#define MEMORY_CONTEXT_BUDGET_MAX (1u << 24)
#define MEMORY_ABOUT_BYTES_MAX (16u << 10) /* of a message's metadata, to be found by */

#endif
