/* int 13h: the image as a disk that can only be read. Enhanced Disk Drive Specification 3.0 for 41h and up. */
#include "bios.h"

enum {
    OK = 0x00,
    BAD_COMMAND = 0x01,
    WRITE_PROTECTED = 0x03,
    NOT_FOUND = 0x04,
    BAD_TRACK = 0x0c,
    FAILED = 0x20,
};

enum { MOST_AT_ONCE = 1024 }; /* sectors */

enum { PACKET_SIZE = 0, PACKET_COUNT = 2, PACKET_BUFFER = 4, PACKET_LBA = 8, PACKET_FLAT = 16 };

uint8_t disk_read(uint32_t lba, uint32_t count, uint32_t address)
{
    while (count) {
        uint32_t now = count < MOST_AT_ONCE ? count : MOST_AT_ONCE;
        uint32_t status;

        outl(BOOT_DISK_LBA, lba);
        outl(BOOT_DISK_COUNT, now);
        outl(BOOT_DISK_ADDRESS, address);
        outl(BOOT_DISK_COMMAND, BOOT_DISK_READ);
        do
            status = inl(BOOT_DISK_STATUS);
        while (status == BOOT_DISK_BUSY);
        if (status != BOOT_DISK_DONE)
            return FAILED;
        lba += now;
        count -= now;
        address += now * 512;
    }
    return OK;
}

static const struct geometry *geometry(uint8_t drive)
{
    const struct geometry *g = drive == 0x80 ? &parameters.disk : drive == 0 ? &parameters.diskette : NULL;

    return g && g->cylinders ? g : NULL;
}

/* So many of `count` sectors exist. Those before the end of the disk are moved, then there is an error. */
static uint32_t existing(uint32_t lba, uint32_t count)
{
    uint32_t left = parameters.disk_sectors - lba;

    return count < left ? count : left;
}

/* Read (or verify, which reads nothing) what CX, DH and AL say. */
static uint8_t by_cylinder(struct frame *f, const struct geometry *g, int verify)
{
    uint16_t cylinder = (uint16_t)(f->c.h | (f->c.l & 0xc0) << 2);
    uint8_t sector = f->c.l & 0x3f;
    uint8_t count = f->a.l;
    uint8_t status = OK;
    uint32_t lba, there;

    if (cylinder >= g->cylinders || f->d.h >= g->heads || sector == 0 || sector > g->sectors || count == 0 || count > 128)
        return BAD_COMMAND;
    lba = ((uint32_t)cylinder * g->heads + f->d.h) * g->sectors + sector - 1;
    there = lba < parameters.disk_sectors ? existing(lba, count) : 0;
    if (!verify)
        status = disk_read(lba, there, linear(f->es, f->b.x));
    f->a.l = status == OK ? (uint8_t)there : 0;
    return status == OK && there < count ? BAD_TRACK : status;
}

static uint8_t by_packet(struct frame *f, int transfers)
{
    uint16_t at = f->si.x;
    uint8_t size = far8(f->ds, at + PACKET_SIZE);
    uint16_t count = far16(f->ds, at + PACKET_COUNT);
    uint32_t buffer = far32(f->ds, at + PACKET_BUFFER);
    uint32_t address = linear((uint16_t)(buffer >> 16), (uint16_t)buffer);
    uint32_t lba = far32(f->ds, at + PACKET_LBA);
    uint32_t there;
    uint8_t status = OK;

    if (size < 16)
        return BAD_COMMAND;
    if (buffer == 0xffffffff && size >= 24)
        address = far32(f->ds, at + PACKET_FLAT);
    if (far32(f->ds, at + PACKET_LBA + 4) || lba >= parameters.disk_sectors)
        return BAD_COMMAND;
    there = existing(lba, count);
    if (transfers)
        status = disk_read(lba, there, address);
    set_far16(f->ds, at + PACKET_COUNT, status == OK ? (uint16_t)there : 0);
    return status == OK && there < count ? BAD_TRACK : status;
}

static void tell_parameters(struct frame *f, const struct geometry *g)
{
    /* The last cylinder of a hard disk is for diagnosis: IBM PC AT Technical Reference, DISK_BIOS. */
    uint16_t last = (uint16_t)(g->cylinders - (g == &parameters.disk ? 2 : 1));

    f->a.x = 0;
    f->c.h = (uint8_t)last;
    f->c.l = (uint8_t)((last >> 2 & 0xc0) | g->sectors);
    f->d.h = (uint8_t)(g->heads - 1);
    f->d.l = 1;
    if (g == &parameters.diskette) {
        f->b.x = parameters.diskette_type;
        f->es = 0xf000;
        f->di.x = offset_of(diskette_parameters);
    }
}

static uint8_t tell_extended(struct frame *f, const struct geometry *g)
{
    uint16_t at = f->si.x;

    if (far16(f->ds, at) < 26)
        return BAD_COMMAND;
    set_far16(f->ds, at, 26);
    set_far16(f->ds, at + 2, 2); /* cylinders, heads and sectors are valid */
    set_far32(f->ds, at + 4, g->cylinders);
    set_far32(f->ds, at + 8, g->heads);
    set_far32(f->ds, at + 12, g->sectors);
    set_far32(f->ds, at + 16, parameters.disk_sectors);
    set_far32(f->ds, at + 20, 0);
    set_far16(f->ds, at + 24, 512);
    return OK;
}

enum action disk_service(struct frame *f)
{
    const struct geometry *g = geometry(f->d.l);
    uint16_t kept = f->d.l & 0x80 ? BDA_DISK_STATUS : BDA_DISKETTE_STATUS;
    uint8_t status = OK;
    uint8_t function = f->a.h;

    if (function == 0x01) {
        status = far8(BDA, kept);
        f->a.h = status;
        set_flag(f, CARRY, status != OK);
        return DONE;
    }
    if (function == 0x15 && !g) { /* no such drive is an answer */
        f->a.h = 0;
        set_flag(f, CARRY, 0);
        return DONE;
    }
    if (function >= 0x41 && function <= 0x48 && g == &parameters.diskette) {
        status = BAD_COMMAND; /* no extensions for diskettes, as on PCs */
    } else if (!g && function != 0x00) {
        if (function == 0x08 && f->d.l < 0x80) { /* no diskettes: the number of them is an answer, too */
            f->a.x = f->b.x = f->c.x = f->d.x = 0;
            set_flag(f, CARRY, 0);
            return DONE;
        }
        status = BAD_COMMAND;
    } else {
        switch (function) {
        case 0x00: /* reset, seek, test, recalibrate, diagnose: nothing to do */
        case 0x0c:
        case 0x0d:
        case 0x10:
        case 0x11:
        case 0x14:
        case 0x16: /* the diskette was not changed */
        case 0x17: /* media for a format */
        case 0x18:
        case 0x47:
            break;
        case 0x02:
            status = by_cylinder(f, g, 0);
            break;
        case 0x03:
        case 0x05:
        case 0x43:
            status = WRITE_PROTECTED;
            break;
        case 0x04:
            status = by_cylinder(f, g, 1);
            break;
        case 0x08:
            tell_parameters(f, g);
            break;
        case 0x15:
            set_flag(f, CARRY, 0);
            if (f->d.l & 0x80) {
                uint32_t sectors = (uint32_t)(g->cylinders - 1) * g->heads * g->sectors;

                f->a.h = 3;
                f->c.x = (uint16_t)(sectors >> 16);
                f->d.x = (uint16_t)sectors;
            } else {
                f->a.h = 1; /* cannot tell a changed diskette */
            }
            return DONE;
        case 0x41:
            if (f->b.x != 0x55aa) {
                status = BAD_COMMAND;
                break;
            }
            f->b.x = 0xaa55;
            f->c.x = 7; /* packets, removable media, EDD parameters */
            f->a.h = 0x30;
            set_flag(f, CARRY, 0);
            return DONE;
        case 0x42:
            status = by_packet(f, 1);
            break;
        case 0x44:
            status = by_packet(f, 0);
            break;
        case 0x48:
            status = tell_extended(f, g);
            break;
        default:
            report(f, function == 0x4b ? REPORT_FUNCTION : REPORT_SERVICE);
            status = BAD_COMMAND;
        }
    }
    f->a.h = status;
    set_far8(BDA, kept, status);
    set_flag(f, CARRY, status != OK);
    return DONE;
}
