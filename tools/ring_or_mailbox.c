/*
 * A split virtqueue in a shared page against the mailbox of `--ipc shm`: what does a request cost?
 *
 * ring_or_mailbox WAY DEPTH SPINS REQUESTS WORK_NS prints nanoseconds per request.
 *
 * Two processes share memory, and have two pipes as doorbells, as a VMM and a device process do. A request is 32
 * bytes and so is its reply. `mailbox`: one request at a time; DEPTH are made one after the other. `ring`: the layout
 * of VIRTIO 1.2, 2.7 with EVENT_IDX. DEPTH requests are made available with one doorbell at most, and all are waited
 * for. `run`: a mailbox whose request has DEPTH bytes as its payload, as WRITE_RUN has: it counts as DEPTH requests.
 *
 * SPINS 1: each side has a CPU and looks at memory without end. 0: both are on one CPU, and sleep in `read`.
 * WORK_NS is how long the device takes for each request.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { ENTRIES = 128, WORDS = 4 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct used_element {
    uint32_t id, length;
};

static struct page {
    /* The mailbox: the first word is the last one that is stored, and a sequence number is in it. */
    _Alignas(64) uint64_t request[WORDS];
    _Alignas(64) uint8_t payload[4064];
    _Alignas(64) uint64_t reply[WORDS];
    _Alignas(64) uint32_t device_waits;
    _Alignas(64) uint32_t vmm_waits;
    /* The ring. */
    _Alignas(64) struct descriptor descriptors[2 * ENTRIES];
    _Alignas(64) struct { uint16_t flags, index, ring[ENTRIES], used_event; } available;
    _Alignas(64) struct { uint16_t flags, index; struct used_element ring[ENTRIES]; uint16_t available_event; } used;
    _Alignas(64) uint64_t requests[ENTRIES][WORDS];
    _Alignas(64) uint64_t replies[ENTRIES][WORDS];
} *page;

static int of_device[2], of_vmm[2], spins;
static long work_ns;

#define LOAD(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define STORE(place, value) __atomic_store_n(&(place), value, __ATOMIC_RELEASE)
#define FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void work(void)
{
    if (work_ns)
        for (uint64_t end = now() + work_ns; now() < end;)
            ;
}

static void ring_bell(int descriptor)
{
    if (write(descriptor, "", 1) != 1)
        exit(1);
}

static void sleep_at(int descriptor)
{
    char taken[64];
    if (read(descriptor, taken, sizeof taken) < 1)
        exit(0);
}

static void on_cpu(int number)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* Wait until `came` is true: by looking, or at a doorbell. The other side looks at `waits` before it rings. */
#define WAIT(came, waits, bell)              \
    do {                                     \
        if (spins) {                         \
            while (!(came))                  \
                __builtin_ia32_pause();      \
            break;                           \
        }                                    \
        STORE(waits, 1);                     \
        FENCE();                             \
        while (!(came))                      \
            sleep_at(bell);                  \
        STORE(waits, 0);                     \
    } while (0)

/* --- Mailbox ------------------------------------------------------------------------------------------------- */

static void serve_mailbox(void)
{
    for (uint64_t seen = 0;;) {
        WAIT(LOAD(page->request[0]) != seen, page->device_waits, of_device[0]);
        seen = LOAD(page->request[0]);
        uint64_t words[WORDS], sum = 0;
        for (int i = 1; i < WORDS; i++)
            words[i] = LOAD(page->request[i]);
        for (uint64_t i = 0; i < words[3]; i++) { /* a run: the model takes each byte */
            sum += page->payload[i];
            work();
        }
        if (!words[3])
            work();
        for (int i = 1; i < WORDS; i++)
            STORE(page->reply[i], words[i] + sum);
        STORE(page->reply[0], seen);
        FENCE();
        if (LOAD(page->vmm_waits))
            ring_bell(of_vmm[1]);
    }
}

static void ask_mailbox(uint64_t number, uint64_t bytes)
{
    memset(page->payload, 1, bytes);
    STORE(page->request[1], number);
    STORE(page->request[2], number);
    STORE(page->request[3], bytes);
    STORE(page->request[0], number);
    FENCE();
    if (LOAD(page->device_waits))
        ring_bell(of_device[1]);
    WAIT(LOAD(page->reply[0]) == number, page->vmm_waits, of_vmm[0]);
    uint64_t words[WORDS];
    for (int i = 0; i < WORDS; i++)
        words[i] = LOAD(page->reply[i]);
    if (words[0] != number)
        exit(1);
}

/* --- Ring ---------------------------------------------------------------------------------------------------- */

static void serve_ring(void)
{
    for (uint16_t next = 0, given = 0;;) {
        if (!spins) {
            STORE(page->used.available_event, next);
            FENCE();
        }
        WAIT(LOAD(page->available.index) != next, page->device_waits, of_device[0]);
        uint16_t before = given;
        for (uint16_t index = LOAD(page->available.index); next != index; next++) {
            uint16_t head = page->available.ring[next % ENTRIES];
            struct descriptor in = page->descriptors[head], out = page->descriptors[in.next];
            uint64_t *request = page->requests[in.address], *reply = page->replies[out.address];
            work();
            for (int i = 0; i < WORDS; i++)
                reply[i] = request[i] + 1;
            page->used.ring[given % ENTRIES] = (struct used_element){head, out.length};
            STORE(page->used.index, ++given);
        }
        FENCE();
        /* VIRTIO 1.2, 2.7.10: whether the driver is to hear of one of these. */
        uint16_t event = LOAD(page->available.used_event);
        if (!spins && (uint16_t)(given - event - 1) < (uint16_t)(given - before))
            ring_bell(of_vmm[1]);
    }
}

static void ask_ring(uint16_t *made, unsigned depth)
{
    uint16_t first = *made;
    for (unsigned i = 0; i < depth; i++) {
        uint16_t head = 2 * (*made % ENTRIES), slot = *made % ENTRIES;
        for (int word = 0; word < WORDS; word++)
            page->requests[slot][word] = *made;
        page->descriptors[head] = (struct descriptor){slot, 32, 1, head + 1};
        page->descriptors[head + 1] = (struct descriptor){slot, 32, 2, 0};
        page->available.ring[slot] = head;
        (*made)++;
    }
    STORE(page->available.used_event, (uint16_t)(*made - 1)); /* ring when the last one is done */
    STORE(page->available.index, *made);
    FENCE();
    uint16_t event = LOAD(page->used.available_event);
    if (!spins && (uint16_t)(*made - event - 1) < (uint16_t)(*made - first))
        ring_bell(of_device[1]);
    WAIT(LOAD(page->used.index) == *made, page->vmm_waits, of_vmm[0]);
    for (; first != *made; first++)
        if (page->replies[page->used.ring[first % ENTRIES].id / 2][0] != (uint64_t)first + 1)
            exit(1);
}

int main(int count, char **given)
{
    if (count != 6)
        return 2;
    unsigned depth = atoi(given[2]);
    spins = atoi(given[3]);
    long requests = atol(given[4]);
    work_ns = atol(given[5]);
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || depth < 1 || depth > ENTRIES || pipe(of_device) || pipe(of_vmm))
        return 1;
    char way = given[1][0] == 'm' ? 'm' : given[1][1];
    if (!fork()) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        on_cpu(spins);
        close(of_device[1]);
        way == 'i' ? serve_ring() : serve_mailbox();
    }
    on_cpu(0);
    close(of_device[0]);
    uint16_t made = 0;
    uint64_t number = 0, began = 0;
    for (long done = -requests / 4; done < requests; done += depth) { /* a quarter to get warm */
        if (done >= 0 && !began)
            began = now();
        if (way == 'i')
            ask_ring(&made, depth);
        else if (way == 'u')
            ask_mailbox(++number, depth);
        else
            for (unsigned i = 0; i < depth; i++)
                ask_mailbox(++number, 0);
    }
    printf("%.1f\n", (double)(now() - began) / requests);
    return 0;
}
