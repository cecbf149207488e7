/* int 13h: diskettes, hard disks and CDs. Enhanced Disk Drive Specification 3.0 for 41h to 49h, El Torito Bootable
 * CD-ROM Format Specification 1.0 for 4Ah to 4Ch. */
#include "bios.h"

enum {
    OK = 0x00,
    BAD_COMMAND = 0x01,
    WRITE_PROTECTED = 0x03,
    TOO_MUCH = 0x09,
    BAD_TRACK = 0x0c,
    FAILED = 0x20,
    LOCKED = 0xb1,
    NOT_REMOVABLE = 0xb2,
};

enum { DISKETTE = 0x00, HARD_DISK = 0x80, CD = 0xe0 };
enum operation { VERIFY, READ = BOOT_DISK_READ, WRITE = BOOT_DISK_WRITE };

enum { MOST_AT_ONCE = 1024 };     /* sectors for the device */
enum { MOST_IN_A_CALL = 0x10000 }; /* bytes */
enum { CD_SECTORS = 2048 / 512 };

enum { PACKET_SIZE = 0, PACKET_COUNT = 2, PACKET_BUFFER = 4, PACKET_LBA = 8, PACKET_FLAT = 16 };

/* --- Drives ------------------------------------------------------------------------------------------------ */

static struct drive emulated; /* a part of the CD; cylinders 0: none */
static struct specification booted;

static int same_kind(uint8_t one, uint8_t other)
{
    return one < CD && other < CD && !((one ^ other) & HARD_DISK);
}

/* The drive that a caller names, or NULL. An emulated one is the first of its kind, and moves the others up. */
static const struct drive *find(uint8_t number)
{
    if (emulated.cylinders) {
        if (number == emulated.number)
            return &emulated;
        if (same_kind(number, emulated.number))
            number--;
    }
    for (const struct drive *d = parameters.drive; d < parameters.drive + parameters.drives; d++)
        if (d->number == number)
            return d;
    return NULL;
}

static uint8_t drives_like(uint8_t number)
{
    uint8_t count = emulated.cylinders && same_kind(number, emulated.number);

    for (unsigned i = 0; i < parameters.drives; i++)
        count += same_kind(number, parameters.drive[i].number);
    return count;
}

/* ATA/ATAPI-6, annex C: what an ATA disk says of itself. It may have more cylinders than these. */
enum { ATA_CYLINDERS = 16383, ATA_HEADS = 16, ATA_TRACK = 63, FEWEST_CYLINDERS = 2 };

/* At most one cylinder too many. */
static uint32_t ata_cylinders(const struct drive *d)
{
    uint32_t cylinders = ATA_CYLINDERS + 1;

    if (d->sectors < (uint64_t)cylinders * ATA_HEADS * ATA_TRACK)
        cylinders = (uint32_t)d->sectors / (ATA_HEADS * ATA_TRACK);
    return cylinders < FEWEST_CYLINDERS ? FEWEST_CYLINDERS : cylinders;
}

/* Fixed disk parameter table: IBM PC AT Technical Reference, section 5, "Fixed Disk Parameters". A disk of more than
 * 1024 cylinders has the translated one of the Enhanced Disk Drive Specification 3.0, annex A, which also tells the
 * geometry that the drive has. */
static void start_table(uint8_t number, uint16_t vector, uint16_t at)
{
    enum { CYLINDERS = 0, HEADS = 2, SIGNATURE = 3, TRACK = 4, NO_PRECOMPENSATION = 5, CONTROL = 8, PARKED = 12 };
    enum { NO_RETRIES = 0xc0 };
    enum { PHYSICAL_CYLINDERS = 9, PHYSICAL_HEADS = 11, LOGICAL_TRACK = 14, CHECKSUM = 15 };
    const struct drive *d = find(number);
    uint32_t cylinders;
    uint8_t sum = 0;

    if (!d)
        return;
    cylinders = ata_cylinders(d);
    if (cylinders > ATA_CYLINDERS)
        cylinders = ATA_CYLINDERS;
    set_far16(EBDA, at + CYLINDERS, d->cylinders);
    set_far8(EBDA, at + HEADS, (uint8_t)d->heads);
    set_far16(EBDA, at + NO_PRECOMPENSATION, 0xffff);
    set_far8(EBDA, at + CONTROL, (uint8_t)(NO_RETRIES | (d->heads > 8) << 3));
    set_far16(EBDA, at + PARKED, (uint16_t)cylinders);
    set_far8(EBDA, at + LOGICAL_TRACK, (uint8_t)d->track);
    if (d->cylinders != cylinders) {
        set_far8(EBDA, at + SIGNATURE, 0xa0);
        set_far8(EBDA, at + TRACK, ATA_TRACK);
        set_far16(EBDA, at + PHYSICAL_CYLINDERS, (uint16_t)cylinders);
        set_far8(EBDA, at + PHYSICAL_HEADS, ATA_HEADS);
        for (uint16_t i = 0; i < CHECKSUM; i++)
            sum += far8(EBDA, at + i);
        set_far8(EBDA, at + CHECKSUM, (uint8_t)-sum);
    }
    set_far32(0, 4 * vector, (uint32_t)EBDA << 16 | at);
}

void disk_start(void)
{
    uint8_t diskettes = drives_like(DISKETTE);
    uint16_t equipment = far16(BDA, BDA_EQUIPMENT) & ~0xc1;

    if (diskettes)
        equipment |= (uint16_t)(1 | (diskettes - 1) << 6);
    set_far16(BDA, BDA_EQUIPMENT, equipment);
    set_far8(BDA, BDA_DISKS, drives_like(HARD_DISK));
    start_table(HARD_DISK, 0x41, EBDA_DISK_0);
    start_table(HARD_DISK + 1, 0x46, EBDA_DISK_1);
}

/* --- Sectors ------------------------------------------------------------------------------------------------ */

/* Move sectors, which exist, at a linear address. */
static uint8_t move(enum operation operation, const struct drive *d, uint64_t lba, uint32_t count, uint32_t address)
{
    uint32_t factor = d->sector_size / 512;
    uint64_t at = d->base + lba * factor;
    uint32_t left = operation == VERIFY ? 0 : count * factor;

    while (left) {
        uint32_t now = left < MOST_AT_ONCE ? left : MOST_AT_ONCE;
        uint32_t status;

        outl(BOOT_DISK_DRIVE, d->unit);
        outl(BOOT_DISK_LBA, (uint32_t)at);
        outl(BOOT_DISK_LBA_HIGH, (uint32_t)(at >> 32));
        outl(BOOT_DISK_COUNT, now);
        outl(BOOT_DISK_ADDRESS, address);
        outl(BOOT_DISK_COMMAND, operation);
        do
            status = inl(BOOT_DISK_STATUS);
        while (status == BOOT_DISK_BUSY);
        if (status != BOOT_DISK_DONE)
            return status == BOOT_DISK_PROTECTED ? WRITE_PROTECTED : FAILED;
        at += now;
        left -= now;
        address += now * 512;
    }
    return OK;
}

/* The same for a caller: sectors before the end of the drive are moved, and if there are fewer than `count`, that is an
 * error. `count` becomes how many were moved. */
static uint8_t move_some(enum operation operation, const struct drive *d, uint64_t lba, uint32_t *count, uint32_t address)
{
    uint32_t wanted = *count;
    uint64_t left = d->sectors - lba;
    uint32_t there = left < wanted ? (uint32_t)left : wanted;
    uint8_t status = wanted * d->sector_size > MOST_IN_A_CALL ? TOO_MUCH : move(operation, d, lba, there, address);

    *count = status == OK ? there : 0;
    return status == OK && there < wanted ? BAD_TRACK : status;
}

/* What CX, DH and AL say. */
static uint8_t by_cylinder(struct frame *f, const struct drive *d, enum operation operation)
{
    uint16_t cylinder = (uint16_t)(f->c.h | (f->c.l & 0xc0) << 2);
    uint8_t sector = f->c.l & 0x3f;
    uint32_t count = f->a.l;
    uint32_t lba;
    uint8_t status;

    if (cylinder >= d->cylinders || f->d.h >= d->heads || sector == 0 || sector > d->track || count == 0 || count > 128)
        return BAD_COMMAND;
    lba = ((uint32_t)cylinder * d->heads + f->d.h) * d->track + sector - 1;
    if (lba >= d->sectors) { /* an image may be smaller than its cylinders */
        f->a.l = 0;
        return BAD_TRACK;
    }
    status = move_some(operation, d, lba, &count, linear(f->es, f->b.x));
    f->a.l = (uint8_t)count;
    return status;
}

static uint8_t by_packet(struct frame *f, const struct drive *d, enum operation operation)
{
    uint16_t at = f->si.x;
    uint8_t size = far8(f->ds, at + PACKET_SIZE);
    uint32_t count = far16(f->ds, at + PACKET_COUNT);
    uint32_t buffer = far32(f->ds, at + PACKET_BUFFER);
    uint32_t address = linear((uint16_t)(buffer >> 16), (uint16_t)buffer);
    uint64_t lba = far32(f->ds, at + PACKET_LBA) | (uint64_t)far32(f->ds, at + PACKET_LBA + 4) << 32;
    uint8_t status;

    if (size < 16)
        return BAD_COMMAND;
    if (buffer == 0xffffffff && size >= 24) {
        address = far32(f->ds, at + PACKET_FLAT);
        if (far32(f->ds, at + PACKET_FLAT + 4))
            return BAD_COMMAND; /* the device has addresses of 32 bits */
    }
    if (lba >= d->sectors)
        return BAD_COMMAND;
    status = move_some(operation, d, lba, &count, address);
    set_far16(f->ds, at + PACKET_COUNT, (uint16_t)count);
    return status;
}

/* --- What a drive is ---------------------------------------------------------------------------------------- */

static uint8_t tell_parameters(struct frame *f, const struct drive *d)
{
    /* The last cylinder of a hard disk is for diagnosis: IBM PC AT Technical Reference, DISK_BIOS. */
    uint16_t last = (uint16_t)(d->cylinders - (d->number < HARD_DISK ? 1 : 2));

    if (!d->cylinders)
        return BAD_COMMAND;
    f->a.x = 0;
    f->c.h = (uint8_t)last;
    f->c.l = (uint8_t)((last >> 2 & 0xc0) | d->track);
    f->d.h = (uint8_t)(d->heads - 1);
    f->d.l = drives_like(d->number);
    if (d->number < HARD_DISK) {
        f->b.x = d->diskette_type;
        f->es = 0xf000;
        f->di.x = offset_of(diskette_parameters);
    }
    return OK;
}

static void tell_type(struct frame *f, const struct drive *d)
{
    uint32_t sectors = (uint32_t)(d->cylinders - 1) * d->heads * d->track;

    f->a.h = 1; /* cannot tell a changed medium */
    if (d->number >= HARD_DISK && d->cylinders) {
        f->a.h = 3;
        f->c.x = (uint16_t)(sectors >> 16);
        f->d.x = (uint16_t)sectors;
    }
    set_flag(f, CARRY, 0);
}

/* The geometry here is that of an ATA disk, not the one to give to AH=02h. */
static uint8_t tell_extended(struct frame *f, const struct drive *d)
{
    enum { CHS_IS_VALID = 1 << 1, REMOVABLE = 1 << 2 };
    uint16_t at = f->si.x;
    uint16_t size = far16(f->ds, at);
    uint32_t cylinders = ata_cylinders(d);

    if (size < 26)
        return BAD_COMMAND;
    set_far16(f->ds, at, size < 30 ? 26 : 30);
    if (!d->cylinders) {
        set_far16(f->ds, at + 2, REMOVABLE);
        for (unsigned i = 4; i < 16; i += 4)
            set_far32(f->ds, (uint16_t)(at + i), 0);
    } else {
        set_far16(f->ds, at + 2, cylinders > ATA_CYLINDERS ? 0 : CHS_IS_VALID);
        set_far32(f->ds, at + 4, cylinders > ATA_CYLINDERS ? ATA_CYLINDERS : cylinders);
        set_far32(f->ds, at + 8, ATA_HEADS);
        set_far32(f->ds, at + 12, ATA_TRACK);
    }
    set_far32(f->ds, at + 16, (uint32_t)d->sectors);
    set_far32(f->ds, at + 20, (uint32_t)(d->sectors >> 32));
    set_far16(f->ds, at + 24, d->sector_size);
    if (size >= 30)
        set_far32(f->ds, at + 26, 0xffffffff); /* no parameters of a host adapter */
    return OK;
}

/* --- El Torito ---------------------------------------------------------------------------------------------- */

/* Show what the specification names. 0: it cannot be. */
static int emulate(const struct specification *wanted)
{
    static const uint8_t tracks[] = {15, 18, 36}, types[] = {2, 4, 6};
    uint8_t media = wanted->media & 0x0f;
    const struct drive *cd = find(CD);
    struct drive *e = &emulated;

    e->cylinders = 0;
    if (!cd || media > 4)
        return 0;
    if (media) {
        e->number = media == 4 ? HARD_DISK : DISKETTE;
        e->unit = cd->unit;
        e->diskette_type = media == 4 ? 0 : types[media - 1];
        e->sector_size = 512;
        e->heads = media == 4 ? (uint16_t)(wanted->head + 1) : 2;
        e->track = media == 4 ? wanted->sector & 0x3f : tracks[media - 1];
        e->cylinders = media == 4 ? (uint16_t)(((wanted->sector & 0xc0) << 2 | wanted->cylinder) + 1) : 80;
        e->base = (uint64_t)wanted->lba * CD_SECTORS;
        e->sectors = (uint32_t)e->cylinders * e->heads * e->track;
    }
    booted = *wanted;
    booted.drive = media ? e->number : CD;
    if (!booted.segment)
        booted.segment = 0x7c0;
    disk_start();
    return 1;
}

/* Show it, load the beginning and enter it; or return. */
static void boot_from_cd(const struct specification *wanted)
{
    const struct drive *cd = find(CD);
    uint32_t count = (wanted->sectors + CD_SECTORS - 1u) / CD_SECTORS; /* whole ones, as SeaBIOS does */

    if (!wanted->sectors || !emulate(wanted))
        return;
    if (linear(booted.segment, 0) + count * 2048 > 0xa0000 || wanted->lba + (uint64_t)count > cd->sectors)
        return;
    if (move(READ, cd, wanted->lba, count, linear(booted.segment, 0)) == OK)
        enter_guest((uint32_t)(booted.segment & 0xf000) << 16 | (booted.segment & 0xfff) << 4, 0x7000, 0, booted.drive);
}

void disk_boot(void)
{
    const struct drive *d = find(parameters.boot);

    if (parameters.boot == CD)
        boot_from_cd(&parameters.cd);
    else if (d && move(READ, d, 0, 1, 0x7c00) == OK && far16(0, 0x7dfe) == 0xaa55)
        enter_guest(0x7c00, 0x7000, 0, parameters.boot);
}

/* 4Ah: begin to emulate; 4Bh: tell of it, and end it if AL is 0; 4Ch: begin, and boot. */
static uint8_t emulation(struct frame *f)
{
    uint8_t *bytes = (uint8_t *)&booted;
    struct specification wanted;

    if (f->a.h == 0x4b) {
        booted.size = SPECIFICATION_SIZE;
        for (uint16_t i = 0; i < SPECIFICATION_SIZE; i++)
            set_far8(f->ds, (uint16_t)(f->si.x + i), bytes[i]);
        if (f->a.l == 0) {
            emulated.cylinders = 0;
            disk_start();
        }
        return OK;
    }
    bytes = (uint8_t *)&wanted;
    for (uint16_t i = 0; i < SPECIFICATION_SIZE; i++)
        bytes[i] = far8(f->ds, (uint16_t)(f->si.x + i));
    if (f->a.h == 0x4a)
        return emulate(&wanted) ? OK : BAD_COMMAND;
    boot_from_cd(&wanted);
    return FAILED;
}

/* --- The service -------------------------------------------------------------------------------------------- */

static uint8_t serve(struct frame *f, const struct drive *d)
{
    switch (f->a.h) {
    case 0x00: /* reset, seek, test, recalibrate, diagnose: nothing to do */
    case 0x0c:
    case 0x0d:
    case 0x10:
    case 0x11:
    case 0x14:
    case 0x16: /* the diskette was not changed */
    case 0x17: /* media for a format */
    case 0x18:
    case 0x45: /* lock */
    case 0x47:
    case 0x49:
        return OK;
    case 0x02:
        return by_cylinder(f, d, READ);
    case 0x03:
        return by_cylinder(f, d, WRITE);
    case 0x04:
        return by_cylinder(f, d, VERIFY);
    case 0x05: /* format */
        return BAD_COMMAND;
    case 0x08:
        return tell_parameters(f, d);
    case 0x42:
        return by_packet(f, d, READ);
    case 0x43:
        return by_packet(f, d, WRITE);
    case 0x44:
        return by_packet(f, d, VERIFY);
    case 0x46: /* eject */
        return d->sector_size == 512 ? NOT_REMOVABLE : LOCKED;
    case 0x48:
        return tell_extended(f, d);
    default:
        report(f, REPORT_SERVICE);
        return BAD_COMMAND;
    }
}

enum action disk_service(struct frame *f)
{
    const struct drive *d = find(f->d.l);
    uint16_t kept = f->d.l & 0x80 ? BDA_DISK_STATUS : BDA_DISKETTE_STATUS;
    uint8_t function = f->a.h;
    uint8_t status;

    if (function == 0x15) {
        if (d) {
            tell_type(f, d);
        } else { /* no such drive is an answer */
            f->a.h = 0;
            set_flag(f, CARRY, 0);
        }
        return DONE;
    }
    if (function == 0x08 && !d && f->d.l < 0x80) { /* no diskettes: the number of them is an answer, too */
        f->a.x = f->b.x = f->c.x = f->d.x = 0;
        set_flag(f, CARRY, 0);
        return DONE;
    }
    if (function == 0x01) {
        status = far8(BDA, kept);
    } else if (function >= 0x4a && function <= 0x4c) {
        status = emulation(f);
    } else if (!d) {
        status = function == 0x00 && f->d.l < HARD_DISK ? OK : BAD_COMMAND; /* boot sectors reset any diskette */
    } else if (function >= 0x41 && (d->number < HARD_DISK || d == &emulated)) {
        status = BAD_COMMAND; /* no extensions for diskettes, as on PCs */
    } else if (function == 0x41 && f->b.x == 0x55aa) {
        f->b.x = 0xaa55;
        f->c.x = 7; /* packets, removable media, EDD parameters */
        f->a.h = 0x30;
        set_flag(f, CARRY, 0);
        return DONE;
    } else {
        status = function == 0x41 ? BAD_COMMAND : serve(f, d);
    }
    f->a.h = status;
    set_far8(BDA, kept, status);
    set_flag(f, CARRY, status != OK);
    return DONE;
}
