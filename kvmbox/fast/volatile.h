/* Memory that another process, or a guest, stores to at any time: one load, one store, in order, and the fence between. */
#include <stddef.h>
#include <stdint.h>

#if !defined(__x86_64__)
#error "kvmbox runs on x86-64 only"
#endif

/* An atomic load is made once. The compiler neither repeats it nor leaves it out. Loads keep their order. */
static inline uint64_t load(const uint64_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }

/* Stores keep their order as well. */
static inline void store(uint64_t *place, uint64_t value) { __atomic_store_n(place, value, __ATOMIC_RELEASE); }

static inline void store_half(uint32_t *place, uint32_t value) { __atomic_store_n(place, value, __ATOMIC_RELEASE); }

static inline uint16_t load_short(const uint16_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }

static inline void store_short(uint16_t *place, uint16_t value) { __atomic_store_n(place, value, __ATOMIC_RELEASE); }

/* Copies bytes once: what is done with the copy later does not look at its source again. */
static inline void copy_once(void *to, const void *from, size_t size)
{
    __builtin_memcpy(to, from, size);
    __asm__ volatile("" : : : "memory");
}

/* All earlier stores come before any later load. */
static inline void fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Between two looks in a loop: lets the other thread of the core run. */
static inline void relax(void) { __builtin_ia32_pause(); }
