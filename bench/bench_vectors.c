/* Searching among a user's vectors: rows a second beside the machine's bandwidth, and how often the scan of
 * codes with its exact second look finds what an exact scan finds.   build/bench_vectors [rows] [width] */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "memory/vectors.h"
#include "tensor/tensor.h"

#define QUERIES 20
#define HITS 10

static void random_unit(struct rng *rng, float *out, size_t width)
{
    double sum = 0;
    for (size_t i = 0; i < width; i++) {
        out[i] = rng_float(rng) + rng_float(rng) + rng_float(rng) - 1.5f;
        sum += (double)out[i] * (double)out[i];
    }
    for (size_t i = 0; i < width; i++)
        out[i] = (float)((double)out[i] / sqrt(sum));
}

/* How many of the hits an exact scan would have, too: those that fewer than HITS rows are nearer than. */
static size_t agreement(const struct vectors_hit *hits, const float *all, const float *query, size_t rows,
                        size_t width)
{
    const struct kernels *k = kernels_select(NULL);
    size_t same = 0;
    for (size_t h = 0; h < HITS; h++) {
        size_t nearer = 0;
        for (size_t row = 0; row < rows; row++)
            nearer += tensor_dot(k, query, all + row * width, width) > hits[h].score + 1e-4f;
        same += nearer < HITS;
    }
    return same;
}

int main(int argc, char **argv)
{
    size_t rows = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 50000;
    size_t width = argc > 2 ? (size_t)strtoul(argv[2], NULL, 10) : 384;
    char dir[] = "/tmp/pharos-bench-XXXXXX";
    struct vector_home *home;
    struct vectors *vectors;
    struct vectors_hit hits[HITS];
    struct ph_err err;
    struct rng rng;
    const struct clock_source *clock = clock_system();
    if (!mkdtemp(dir) || vector_home_open(&home, dir, &err) != PH_OK)
        return 1;
    struct vectors_params params = {.home = home, .user = 1, .space = "bench", .width = width};
    float *all = mem_calloc(rows * width, sizeof *all), *query = mem_calloc(width, sizeof *query);
    if (!all || !query || vectors_open(&vectors, &params, &err) != PH_OK)
        return 1;
    rng_init(&rng, 1);
    uint64_t start = clock_monotonic_ns(clock);
    for (size_t i = 0; i < rows; i++) {
        random_unit(&rng, all + i * width, width);
        if (vectors_add(vectors, (int64_t)i + 1, 1, all + i * width, &err) != PH_OK)
            return 1;
    }
    printf("added    %zu rows of %zu in %.0f ms\n", rows, width,
           (double)(clock_monotonic_ns(clock) - start) * 1e-6);
    uint64_t best = UINT64_MAX;
    size_t same = 0;
    for (size_t q = 0; q < QUERIES; q++) {
        random_unit(&rng, query, width);
        start = clock_monotonic_ns(clock);
        (void)vectors_search(vectors, query, HITS, NULL, hits);
        uint64_t ns = clock_monotonic_ns(clock) - start;
        best = ns < best ? ns : best;
        same += agreement(hits, all, query, rows, width);
    }
    printf("search   %.3f ms: %.1f M rows/s, %.1f GB/s of codes; recall@%d %.4f\n", (double)best * 1e-6,
           (double)rows * 1e3 / (double)best, (double)(rows * width) / (double)best, HITS,
           (double)same / (QUERIES * HITS));
    vectors_close(vectors);
    uint64_t opened = clock_monotonic_ns(clock);
    if (vectors_open(&vectors, &params, &err) != PH_OK)
        return 1;
    printf("open     %.1f ms with every row checked\n", (double)(clock_monotonic_ns(clock) - opened) * 1e-6);
    if (vectors_sync(vectors, &err) != PH_OK)
        return 1;
    vectors_close(vectors);
    opened = clock_monotonic_ns(clock);
    if (vectors_open(&vectors, &params, &err) != PH_OK)
        return 1;
    printf("open     %.2f ms when it was synced\n", (double)(clock_monotonic_ns(clock) - opened) * 1e-6);
    vectors_close(vectors);
    if (vector_home_forget(home, 1, &err) != PH_OK)
        printf("%s\n", err.message);
    vector_home_close(home);
    mem_free(all);
    mem_free(query);
    return 0;
}
