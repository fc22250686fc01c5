/* What a provider says about coming again: any header, any text, never more than a day. */
#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "provider/provider_account_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"retry-after", "retry-after-ms", "x-ratelimit-reset",
                                        "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"};
    if (size == 0)
        return 0;
    char *value = mem_alloc(size);
    if (!value)
        return 0;
    memcpy(value, data + 1, size - 1);
    value[size - 1] = 0;
    struct http_header headers[] = {{names[data[0] % 5], value}, {"x-ratelimit-remaining-tokens", "0"}};
    uint64_t ms = retry_hint_ms(429, headers, 2, INT64_C(1794831743000));
    assert(ms <= UINT64_C(1000) * ACCOUNT_HINT_MAX_S);
    (void)ms;
    mem_free(value);
    return 0;
}
