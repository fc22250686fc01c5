/* Providers that speak OpenAI's API: theirs, and the many engines and services that took it over. */
#include "chat/openai_int.h"

const struct chat_codec chat_codec_openai = {
    .name = "openai",
    .encode = openai_request,
    .reader_new = openai_reader_new,
    .feed = openai_reader_feed,
    .end = openai_reader_end,
    .fault = upstream_fault_of_body,
};
