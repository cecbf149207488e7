/* The tests of a network: see bench_net.c. Each returns the TSC cycles of so many units. */
#ifndef GUESTS_BENCH_NET_H
#define GUESTS_BENCH_NET_H

#include <stdint.h>

#define NET_BATCH 32

uint64_t bench_net_round_trip(uint32_t frames); /* one at a time */
uint64_t bench_net_batch(uint32_t batches);     /* of NET_BATCH frames, behind one notification */

#endif
