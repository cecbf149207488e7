/* What to say about samples: exact percentiles, in place. */
#ifndef GUESTS_BENCH_SAMPLES_H
#define GUESTS_BENCH_SAMPLES_H

#include <stdint.h>

struct distribution {
    uint32_t min, p50, p90, p99, max;
};

/* Of `count` samples, at least one; percentiles are those samples that nearest rank picks. Reorders them. */
struct distribution distribution_of(uint32_t *samples, uint32_t count);

#endif
