/*
 * fwcfg: what the machine tells through fw_cfg. Proves the selector, the data port and DMA: every file is read both
 * ways and the bytes compared; a DMA request is done when the OUT that starts it is. "--append NAME" prints the file
 * NAME. Status 0; 3 if one way reads something else than the other, or a request fails.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include <stdbool.h>

#define FW_CFG_SELECTOR 0x510
#define FW_CFG_DATA     0x511
#define FW_CFG_DMA      0x514

#define KEY_SIGNATURE 0x00
#define KEY_RAM_SIZE  0x03
#define KEY_NB_CPUS   0x05
#define KEY_DIRECTORY 0x19

#define DMA_READ   2
#define DMA_SKIP   4
#define DMA_SELECT 8

#define NAME_SIZE   56
#define CHUNK       1024
#define MOST_BY_PORT 8192 /* of a file: a byte by port takes some 20 us */

struct file {
    uint32_t size;
    uint16_t key;
    uint16_t reserved;
    char name[NAME_SIZE];
};

struct request {
    volatile uint32_t control;
    uint32_t length;
    uint64_t address;
};

static struct request request;
static uint8_t by_dma[CHUNK];
static uint8_t by_port[CHUNK];

static uint32_t big_endian(uint32_t value)
{
    return value << 24 | (value & 0xff00) << 8 | (value >> 8 & 0xff00) | value >> 24;
}

static void select_item(uint16_t key)
{
    outw(FW_CFG_SELECTOR, key);
}

static void read_port(void *to, uint32_t count)
{
    uint8_t *bytes = to;

    while (count--)
        *bytes++ = inb(FW_CFG_DATA);
}

/* One request, without waiting: there is nothing to wait for. */
static void do_dma(uint32_t control, void *to, uint32_t count)
{
    request.control = big_endian(control);
    request.length = big_endian(count);
    request.address = (uint64_t)big_endian((uint32_t)(uintptr_t)to) << 32;
    outl(FW_CFG_DMA + 4, big_endian((uint32_t)(uintptr_t)&request));
    if (request.control)
        fail("a DMA request is not done, or has failed");
}

static void read_dma(void *to, uint32_t count)
{
    do_dma(DMA_READ, to, count);
}

static void select_dma(uint16_t key, void *to, uint32_t count)
{
    do_dma((uint32_t)key << 16 | DMA_SELECT | DMA_READ, to, count);
}

static bool same(const void *one, const void *other, uint32_t count)
{
    const uint8_t *a = one, *b = other;

    while (count--)
        if (*a++ != *b++)
            return false;
    return true;
}

static void put_number(const char *what, uint16_t key, uint32_t size)
{
    uint64_t dma = 0, port = 0;

    select_item(key);
    read_port(&port, size);
    select_dma(key, &dma, size);
    if (dma != port)
        fail("a number is another one by DMA");
    put_string(what);
    put_decimal((uint32_t)port, 1);
    put_char('\n');
}

static bool is_wanted(const char *name, const struct multiboot_info *info)
{
    const char *words = info->flags & MULTIBOOT_INFO_CMDLINE ? physical(info->cmdline) : "";

    while (*words && *words != ' ') /* the image's name */
        words++;
    if (*words == ' ')
        words++;
    while (*name && *name == *words)
        name++, words++;
    return !*name && (!*words || *words == ' ');
}

static void show_file(const struct file *file, const struct multiboot_info *info)
{
    uint16_t key = (uint16_t)(big_endian(file->key) >> 16);
    uint32_t size = big_endian(file->size), sum = 0;
    bool wanted = is_wanted(file->name, info);

    select_dma(key, by_dma, 0);
    for (uint32_t done = 0, count; done < size; done += count) {
        count = size - done < CHUNK ? size - done : CHUNK;
        read_dma(by_dma, count);
        if (done < MOST_BY_PORT) {
            /* Both ways share one place in the item: go back to where this piece begins. */
            do_dma((uint32_t)key << 16 | DMA_SELECT | DMA_SKIP, 0, done);
            read_port(by_port, count);
            if (!same(by_dma, by_port, count))
                fail("a file has other bytes by DMA");
        }
        for (uint32_t i = 0; i < count && (wanted || done < MOST_BY_PORT); i++) {
            sum = (sum << 1 | sum >> 31) + by_dma[i];
            if (wanted)
                put_char((char)by_dma[i]);
        }
    }
    put_string("file ");
    put_string(file->name);
    put_string(": ");
    put_decimal(size, 1);
    put_string(" bytes, sum 0x");
    put_hex(sum, 8);
    put_char('\n');
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    uint32_t count, text[2];

    (void)magic;
    select_item(KEY_SIGNATURE);
    read_port(text, 4);
    if (text[0] != 0x554d4551) { /* QEMU */
        put_string("fwcfg: there is no fw_cfg\n");
        debug_exit(EXIT_PROOF_FAILED);
    }
    text[0] = inl(FW_CFG_DMA);
    text[1] = inl(FW_CFG_DMA + 4);
    if (!same(text, "QEMU CFG", 8))
        fail("there is no DMA");
    put_number("CPUs: ", KEY_NB_CPUS, 2);
    put_number("bytes of RAM: ", KEY_RAM_SIZE, 8);
    select_dma(KEY_DIRECTORY, &count, 4);
    count = big_endian(count);
    for (uint32_t n = 0; n < count; n++) {
        static struct file file;

        select_dma(KEY_DIRECTORY, &file, 4);
        do_dma(DMA_SKIP, 0, n * sizeof file);
        read_dma(&file, sizeof file);
        show_file(&file, info);
    }
    put_string("fwcfg: done\n");
}
