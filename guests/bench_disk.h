/* The tests of disks: see bench_disk.c. Each returns the TSC cycles of so many units. */
#ifndef GUESTS_BENCH_DISK_H
#define GUESTS_BENCH_DISK_H

#include <stdint.h>

#define DISK_BATCH 32

uint64_t bench_ata_read(uint32_t sectors);
uint64_t bench_ata_write(uint32_t sectors);
uint64_t bench_virtio_read(uint32_t requests);      /* of 4 KiB, one at a time */
uint64_t bench_virtio_batch(uint32_t batches);      /* of DISK_BATCH such requests, behind one notification */
uint64_t bench_disk_sequential(uint32_t requests);  /* of 64 KiB, one behind the other, one at a time */

#endif
