/*
 * The built-in BIOS: what its parts share.
 *
 * Every service is C code that runs with interrupts off, on the ROM's own stack, and does not wait: a service that has
 * to wait returns WAIT, to halt until an interrupt, or LOOK_AGAIN. Then entry.S lets interrupts in on the caller's stack
 * before it calls the service again. So no service is ever interrupted, and a guest may switch tasks while one waits.
 *
 * CS, DS, ES and SS are 0xF000. All other memory is reached through FS, by the functions below.
 */
#ifndef BIOS_H
#define BIOS_H

#include "../common/io.h"
#include <stddef.h>
#include <stdint.h>

/* --- The caller, as entry.S saves and restores it --------------------------------------------------- */

union reg {
    uint32_t e;
    uint16_t x;
    struct {
        uint8_t l, h;
    };
};

struct frame {
    uint16_t gs, fs, es, ds;
    union reg di, si, bp, sp, b, d, c, a; /* as PUSHAD stores them, but for sp */
    uint32_t scratch;                     /* 0 at the call, kept while the service waits */
    uint16_t vector, ip, cs, flags;
};

enum { CARRY = 1 << 0, ZERO = 1 << 6, INTERRUPTS = 1 << 9 };
enum action { DONE, WAIT, LOOK_AGAIN };

static inline void set_flag(struct frame *f, uint16_t flag, int on)
{
    f->flags = (uint16_t)(on ? f->flags | flag : f->flags & ~flag);
}

/* --- What the VMM tells (kvmbox/firmware/builtin_bios.py has the same), and what the VMM is told ------- */

struct range {
    uint64_t base, size;
    uint32_t kind, attributes;
};

struct drive {
    uint8_t number; /* DL */
    uint8_t unit;   /* of the boot disk device */
    uint8_t diskette_type; /* int 13h AH=08h BL */
    uint8_t unused;
    uint16_t sector_size;             /* 512, or 2048: a CD */
    uint16_t cylinders, heads, track; /* a CD has no cylinders */
    uint32_t unused2;
    uint64_t base;    /* the first sector, of 512 bytes, on the unit */
    uint64_t sectors; /* of sector_size */
};

/* El Torito Bootable CD-ROM Format Specification 1.0, figure 7: the specification packet */
struct specification {
    uint8_t size;  /* 0x13 */
    uint8_t media; /* 0 no emulation; diskettes of 1, 2, 3: 1200, 1440, 2880 KiB; 4 a hard disk */
    uint8_t drive, controller;
    uint32_t lba;
    uint16_t device, buffer, segment, sectors; /* of 512 bytes, to load to the segment */
    uint8_t cylinder, sector, head;            /* the last ones, as of AH=08h in CX and DH */
} __attribute__((packed));
enum { SPECIFICATION_SIZE = 0x13 };

enum start { SERVE_ONLY, BOOT, ENTER };

struct parameters {
    uint8_t trap;   /* no BIOS: each call is reported, and ends the run */
    uint8_t boot;   /* DL for the boot sector */
    uint8_t start;  /* how: only serve a kernel that is started already, boot, or enter at the entry below */
    uint8_t drives; /* how many of the table */
    uint32_t extended_kib; /* RAM from 1 MiB up without a hole */
    uint16_t entry_ip, entry_cs, entry_sp, entry_ss, entry_data;
    uint16_t ranges; /* how many of the memory map */
    struct specification cd; /* what boots from a CD */
    uint8_t linear;          /* the boot loader has set a linear mode for the kernel */
    struct drive drive[20];
    struct range map[16];
};

_Static_assert(offsetof(struct parameters, drive) == 40 && sizeof(struct drive) == 32, "as the VMM packs them");
_Static_assert(offsetof(struct parameters, map) == 680 && sizeof(struct range) == 24, "as the VMM packs them");
_Static_assert(sizeof(struct specification) == SPECIFICATION_SIZE, "as the specification has it");
_Static_assert(sizeof(struct frame) == 52, "as entry.S fills it");

extern const struct parameters parameters;

enum report {
    REPORT_SERVICE = 0,    /* a service that is missing, named by AH */
    REPORT_FUNCTION = 1,   /* the same, named by AX */
    REPORT_TRAP = 0x80,    /* a call where there is no BIOS; this and what follows ends the run */
    REPORT_UNHANDLED = 0x81, /* an exception or an interrupt that nobody handles */
    REPORT_NO_BOOT = 0x82, /* int 18h: nothing to boot from */
};

/* Whether an INT instruction of this very vector is before the place to return to. Before a fault may be another one. */
int by_instruction(const struct frame *f);
void report(const struct frame *f, enum report kind);
_Noreturn void boot(void);

/* A service that is missing: named, and refused as PC BIOSes do (CF, AH = 86h). */
void refuse(struct frame *f);

/* Ask the VMM for a reset, of which it begins anew at the reset vector, with memory that is all zero. */
_Noreturn void restart(void);

static inline uint32_t linear(uint16_t segment, uint16_t offset)
{
    return ((uint32_t)segment << 4) + offset;
}

/* --- Memory of the guest: segment and offset --------------------------------------------------------- */

#define FAR_ACCESS(bits, type, letter, class)                                                          \
    static inline uint##bits##_t far##bits(uint16_t segment, uint16_t offset)                          \
    {                                                                                                  \
        uint##bits##_t value;                                                                          \
        __asm__ volatile("movw %1, %%fs; mov" letter " %%fs:(%2), %0"                                  \
                         : "=" class(value)                                                            \
                         : "r"(segment), "r"((uint32_t)offset)                                         \
                         : "memory");                                                                  \
        return value;                                                                                  \
    }                                                                                                  \
    static inline void set_far##bits(uint16_t segment, uint16_t offset, uint##bits##_t value)          \
    {                                                                                                  \
        __asm__ volatile("movw %1, %%fs; mov" letter " %0, %%fs:(%2)"                                  \
                         :                                                                             \
                         : class(value), "r"(segment), "r"((uint32_t)offset)                           \
                         : "memory");                                                                  \
    }
FAR_ACCESS(8, uint8_t, "b", "q")
FAR_ACCESS(16, uint16_t, "w", "r")
FAR_ACCESS(32, uint32_t, "l", "r")
#undef FAR_ACCESS

/* Fill or move words of the guest's memory; the segments are the guest's. */
void far_fill16(uint32_t segment, uint32_t offset, uint32_t value, uint32_t count);
void far_move16(uint32_t segment, uint32_t to, uint32_t from, uint32_t count);

/* --- The BIOS data area (segment 0x40): IBM PC AT Technical Reference, section 5 ------------------------ */

enum {
    BDA = 0x40,
    EBDA = 0x9fc0,
    BDA_COM = 0x00,
    BDA_EBDA = 0x0e,
    BDA_EQUIPMENT = 0x10,
    BDA_MEMORY = 0x13,
    BDA_SHIFT = 0x17,
    BDA_KEYS_DOWN = 0x18,
    BDA_KEY_HEAD = 0x1a,
    BDA_KEY_TAIL = 0x1c,
    BDA_KEYS = 0x1e,
    BDA_KEYS_END = 0x3e,
    BDA_DISKETTE_STATUS = 0x41,
    BDA_MODE = 0x49,
    BDA_COLUMNS = 0x4a,
    BDA_PAGE_SIZE = 0x4c,
    BDA_PAGE_START = 0x4e,
    BDA_CURSOR = 0x50, /* column and row of each of 8 pages */
    BDA_CURSOR_SHAPE = 0x60,
    BDA_PAGE = 0x62,
    BDA_CRTC = 0x63,
    BDA_TICKS = 0x6c,
    BDA_MIDNIGHT = 0x70,
    BDA_RESET_FLAG = 0x72,
    BDA_DISK_STATUS = 0x74,
    BDA_DISKS = 0x75,
    BDA_COM_TIMEOUT = 0x7c,
    BDA_KEYS_AT = 0x80,
    BDA_KEYS_END_AT = 0x82,
    BDA_ROWS = 0x84,
    BDA_CELL_HEIGHT = 0x85,
    BDA_VIDEO_CONTROL = 0x87, /* 256 KiB; bit 7: the memory was not cleared */
    BDA_KEYBOARD_FLAGS = 0x96,
    EBDA_MOUSE_HANDLER = 0x22,
    EBDA_MOUSE_BYTES = 0x26, /* how many of a packet are there */
    EBDA_MOUSE_FLAGS = 0x27, /* bits 0 to 2: the size of a packet, less 1 */
    EBDA_DISK_0 = 0x3d, /* fixed disk parameter tables */
    EBDA_DISK_1 = 0x4d,
};

/* --- Devices: ports.h has the others -------------------------------------------------------------------- */

enum { MOUSE_HAS_HANDLER = 0x80 }; /* in EBDA_MOUSE_FLAGS */
enum { PIT_2 = 0x42, KBC_DATA = 0x60, KBC_STATUS = 0x64 };
enum { RST_CNT = 0xcf9, SYS_RST = 1 << 1, RST_CPU = 1 << 2 };

/* A time by the power management timer, which counts 24 bits and runs whatever the guest does to the PIT. A number of
 * looks at a register is none: an exit takes 1 us on one host, and 10 on another. */
enum { ALMOST_A_TICK = 190000 }; /* 53 ms, less than a period of IRQ 0, which waits: no tick is lost */

/* Whether fewer than so many of its ticks have passed since `*since`, which is 0 at the first call; 0 if there is no
 * timer. Who waits looks once more behind the end, as all of the time may have passed since the last look. */
int within(uint32_t *since, uint32_t ticks);

uint8_t cmos(uint8_t index);
void set_cmos(uint8_t index, uint8_t value);

/* --- The services, by interrupt; and what starts them --------------------------------------------------- */

enum action video_service(struct frame *f);
enum action disk_service(struct frame *f);
enum action serial_service(struct frame *f);
enum action system_service(struct frame *f);
enum action keyboard_service(struct frame *f);
enum action clock_service(struct frame *f);
void mouse_service(struct frame *f);
void pci_service(struct frame *f);
void keyboard_interrupt(uint8_t code);
void console_interrupt(void);

void video_start(void);
/* A mode of the VGA, with bit 7 without clearing the memory; 0 if there is none such. */
int set_vga_mode(uint8_t mode);
/* The same of the data area alone: no register of the VGA is written. */
void enter_mode(uint8_t mode);
enum action vbe_service(struct frame *f);
void keyboard_start(void);
void clock_start(void);
void print(const char *text);

void disk_start(void);
/* Load what boots, and enter it; return if there is nothing. */
void disk_boot(void);

/* entry.S */
extern const char vector_stubs[], timer_interrupt[], return_stub[], diskette_parameters[];
extern const uint16_t handlers[]; /* vector and offset, and so on, and NO_HANDLER */
enum { NO_HANDLER = 0xffff };
enum { STUB_SIZE = 6 };
static inline uint16_t offset_of(const void *object)
{
    return (uint16_t)(uintptr_t)object;
}
_Noreturn void enter_guest(uint32_t cs_ip, uint32_t ss_sp, uint32_t data, uint32_t drive);
void copy_above(uint32_t to, uint32_t from, uint32_t words);

#endif
