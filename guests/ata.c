/*
 * ata: the disk at the first IDE channel, with a driver that polls. Reads all of it, up to 16 sectors, by rep insw,
 * by single inw and by rep insl, which must give the same; inverts the last sector, flushes, and reads it back.
 * `--append N` does all that N times. Prints a dot each time. Status 0; 3 if the disk is not what it says.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"

#define SECTOR      512
#define MOST        16
#define MULTIPLE    8
#define PATIENCE    10000000
#define MARK        0x5f0 /* no device: for `--snapshot-when port:0x5f0` */

static uint8_t disk[MOST * SECTOR], other[MOST * SECTOR];

static uint8_t wait_until(uint8_t wanted)
{
    for (unsigned tries = 0; tries < PATIENCE; tries++) {
        uint8_t status = inb(ATA_STATUS);

        if (status & ATA_BSY)
            continue;
        if (status & ATA_ERR)
            fail("the disk reports an error");
        if ((status & ATA_DRQ) == wanted)
            return status;
    }
    fail("the disk does not answer");
}

static void command(uint8_t code, uint32_t sector, uint8_t count)
{
    outb(ATA_DEVICE, 0xe0 | (sector >> 24 & 0x0f));
    outb(ATA_COUNT, count);
    outb(ATA_LBA_LOW, (uint8_t)sector);
    outb(ATA_LBA_MID, (uint8_t)(sector >> 8));
    outb(ATA_LBA_HIGH, (uint8_t)(sector >> 16));
    outb(ATA_COMMAND, code);
}

static void in_words(uint8_t *to, unsigned words)
{
    __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(ATA_DATA) : "memory");
}

static void in_doublewords(uint8_t *to, unsigned doublewords)
{
    __asm__ volatile("rep insl" : "+D"(to), "+c"(doublewords) : "d"(ATA_DATA) : "memory");
}

static void out_words(const uint8_t *from, unsigned words)
{
    __asm__ volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(ATA_DATA) : "memory");
}

static void single_words(uint8_t *to, unsigned words)
{
    for (; words; words--, to += 2) {
        uint16_t word = inw(ATA_DATA);

        to[0] = (uint8_t)word;
        to[1] = (uint8_t)(word >> 8);
        if (words == SECTOR / 4)
            outb(MARK, 0); /* in the middle of a sector */
    }
}

/* Few instructions: on some hosts each one is emulated. */
static uint32_t sum(const uint8_t *data, unsigned size)
{
    const uint32_t *word = (const void *)data;
    uint32_t total = 0;

    for (; size; size -= 4)
        total = total * 33 + *word++;
    return total;
}

static void read_all(uint8_t *to, unsigned sectors, uint8_t code, unsigned block,
                     void (*in)(uint8_t *, unsigned), unsigned width)
{
    command(code, 0, (uint8_t)sectors);
    for (unsigned done = 0; done < sectors; done += block) {
        if (block > sectors - done)
            block = sectors - done;
        wait_until(ATA_DRQ);
        in(to + done * SECTOR, block * SECTOR / width);
    }
    wait_until(0);
}

static void write_sector(const uint8_t *from, uint32_t sector)
{
    command(ATA_WRITE, sector, 1);
    wait_until(ATA_DRQ);
    out_words(from, SECTOR / 2);
    wait_until(0);
    command(ATA_FLUSH, 0, 0);
    wait_until(0);
}

static unsigned identify(void)
{
    uint8_t facts[SECTOR];

    command(ATA_IDENTIFY, 0, 0);
    wait_until(ATA_DRQ);
    in_words(facts, SECTOR / 2);
    put_string("serial ");
    for (unsigned word = 10; word < 20; word++) {
        put_char((char)facts[2 * word + 1]);
        put_char((char)facts[2 * word]);
    }
    put_string("\n");
    return facts[120] | (unsigned)facts[121] << 8 | (unsigned)facts[122] << 16;
}

/* Returns the sum of what is on the disk then. */
static uint32_t one_round(unsigned sectors, uint32_t wanted)
{
    uint8_t *last = other + (sectors - 1) * SECTOR;

    read_all(other, sectors, ATA_READ, 1, single_words, 2);
    if (sum(other, sectors * SECTOR) != wanted)
        fail("inw reads something else");
    read_all(other, sectors, ATA_READ_MULTIPLE, MULTIPLE, in_doublewords, 4);
    if (sum(other, sectors * SECTOR) != wanted)
        fail("rep insl reads something else");
    for (unsigned place = 0; place < SECTOR; place++)
        last[place] ^= 0xff;
    write_sector(last, sectors - 1);
    wanted = sum(other, sectors * SECTOR);
    read_all(other, sectors, ATA_READ, 1, in_words, 2);
    if (sum(other, sectors * SECTOR) != wanted)
        fail("what was written is not what is read");
    return wanted;
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    unsigned sectors, rounds = 1;
    uint32_t all;

    if (magic == MULTIBOOT_MAGIC)
        rounds = decimal_argument(info, 0, 1);
    sectors = identify();
    put_string("sectors ");
    put_decimal(sectors, 1);
    if (sectors > MOST)
        sectors = MOST;
    command(ATA_SET_MULTIPLE, 0, MULTIPLE);
    wait_until(0);
    read_all(disk, sectors, ATA_READ, 1, in_words, 2);
    all = sum(disk, sectors * SECTOR);
    put_string(", sum 0x");
    put_hex(all, 8);
    put_string("\n");
    for (unsigned number = 0; number < rounds; number++) {
        all = one_round(sectors, all);
        put_char('.');
    }
    put_string("\nata: done\n");
}
