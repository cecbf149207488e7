/*
 * int 1Ah AH=B1h: the PCI BIOS (PCI BIOS Specification 2.1, chapter 4), by configuration mechanism #1, on bus 0.
 *
 * bios32.c has it a second time, for 32-bit code. That may be called by any addresses of code and data, so nothing here
 * is in memory but the frame.
 */
#include "bios.h"

enum { ADDRESS = 0xcf8, DATA = 0xcfc, FUNCTIONS = 256, MULTIFUNCTION = 0x80 };
static const uint32_t ENABLE = 0x80000000;

enum status {
    SUCCESSFUL = 0x00,
    UNSUPPORTED = 0x81,
    BAD_VENDOR = 0x83,
    NOT_FOUND = 0x86,
    BAD_REGISTER = 0x87,
};

static void finish(struct frame *f, enum status status)
{
    f->a.h = status;
    set_flag(f, CARRY, status != SUCCESSFUL);
}

static void select_register(uint32_t function, uint32_t offset)
{
    outl(ADDRESS, ENABLE | function << 8 | (offset & 0xfc));
}

static uint32_t config(uint32_t function, uint32_t offset)
{
    select_register(function, offset);
    return inl(DATA);
}

static int is_there(void)
{
    outl(ADDRESS, ENABLE);
    return inl(ADDRESS) == ENABLE;
}

/* Function number f->si.x of those whose register at `offset`, without its lowest `shift` bits, is `wanted`. */
static void find(struct frame *f, uint32_t offset, unsigned shift, uint32_t wanted)
{
    uint16_t left = f->si.x;

    for (uint32_t function = 0; function < FUNCTIONS; function++) {
        int exists = (uint16_t)config(function, 0) != 0xffff;

        if (exists && config(function, offset) >> shift == wanted && !left--) {
            f->b.x = (uint16_t)function; /* BH, the bus, is 0 */
            finish(f, SUCCESSFUL);
            return;
        }
        if (!(function & 7) && (!exists || !(config(function, 0x0c) >> 16 & MULTIFUNCTION)))
            function |= 7;
    }
    finish(f, NOT_FOUND);
}

/* AL = 08h to 0Dh: read, then write, a byte, a word or a double word of register DI of BX, from or to ECX. */
static void access(struct frame *f)
{
    unsigned size = 1u << (f->a.l - 8) % 3;
    uint16_t port = (uint16_t)(DATA + (f->di.x & 3));

    if (f->di.x > 255 || f->di.x % size) {
        finish(f, BAD_REGISTER);
        return;
    }
    select_register(f->b.x, f->di.x);
    switch (f->a.l) {
    case 0x08:
        f->c.l = inb(port);
        break;
    case 0x09:
        f->c.x = inw(port);
        break;
    case 0x0a:
        f->c.e = inl(port);
        break;
    case 0x0b:
        outb(port, f->c.l);
        break;
    case 0x0c:
        outw(port, f->c.x);
        break;
    default:
        outl(port, f->c.e);
    }
    finish(f, SUCCESSFUL);
}

static void refuse_function(struct frame *f)
{
#ifndef BIOS32
    report(f, REPORT_FUNCTION);
#endif
    finish(f, UNSUPPORTED);
}

void pci_service(struct frame *f)
{
    if (!is_there()) {
        refuse_function(f);
        return;
    }
    switch (f->a.l) {
    case 0x01:
        f->d.e = 0x20494350; /* "PCI " */
        f->a.l = 1;          /* mechanism #1, no special cycles */
        f->b.x = 0x0210;
        f->c.l = 0; /* the last bus */
        finish(f, SUCCESSFUL);
        break;
    case 0x02:
        if (f->d.x == 0xffff)
            finish(f, BAD_VENDOR);
        else
            find(f, 0x00, 0, (uint32_t)f->c.x << 16 | f->d.x);
        break;
    case 0x03:
        find(f, 0x08, 8, f->c.e & 0xffffff);
        break;
    case 0x08:
    case 0x09:
    case 0x0a:
    case 0x0b:
    case 0x0c:
    case 0x0d:
        access(f);
        break;
    default: /* special cycles, interrupt routing */
        refuse_function(f);
    }
}
