#include "bench_samples.h"

/*
 * Hoare's quickselect: afterwards samples[rank] is what a sort would put there, none before it is greater and none
 * behind it is less. Linear on the average: a sort of as many samples takes seconds where ring 0 is emulated.
 */
static uint32_t select_rank(uint32_t *samples, uint32_t first, uint32_t last, uint32_t rank)
{
    while (first < last) {
        uint32_t pivot = samples[first + (last - first) / 2];
        uint32_t low = first, high = last;

        for (;;) {
            uint32_t swapped;

            while (samples[low] < pivot)
                low++;
            while (samples[high] > pivot)
                high--;
            if (low >= high)
                break;
            swapped = samples[low];
            samples[low++] = samples[high];
            samples[high--] = swapped;
        }
        /* Nothing up to `high` is greater than what is behind it, and there is something behind it. */
        if (rank <= high)
            last = high;
        else
            first = high + 1;
    }
    return samples[rank];
}

struct distribution distribution_of(uint32_t *samples, uint32_t count)
{
    static const uint8_t percents[] = {50, 90, 99};
    struct distribution found = {.min = samples[0], .max = samples[0]};
    uint32_t *into[] = {&found.p50, &found.p90, &found.p99};
    uint32_t first = 0;

    for (uint32_t i = 1; i < count; i++) {
        if (samples[i] < found.min)
            found.min = samples[i];
        if (samples[i] > found.max)
            found.max = samples[i];
    }
    for (unsigned i = 0; i < sizeof percents; i++) {
        uint32_t rank = (count * percents[i] + 99) / 100 - 1;

        *into[i] = select_rank(samples, first, count - 1, rank);
        first = rank; /* all smaller ones are before it now */
    }
    return found;
}
