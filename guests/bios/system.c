/* int 15h: memory, waiting, A20, block move, power. */
#include "bios.h"

enum { SMAP = 0x534d4150, UNSUPPORTED = 0x86 };

/* IBM PC AT Technical Reference, "Return system configuration": length, model FCh, submodel, revision, features: a
 * second interrupt controller, a real-time clock, keyboard intercept, an extended data area. */
static const uint8_t configuration[10] = {8, 0, 0xfc, 0, 1, 0x74, 0x40, 0, 0, 0};

static void fail_with(struct frame *f, uint8_t status)
{
    f->a.h = status;
    set_flag(f, CARRY, 1);
}

static void memory_map(struct frame *f)
{
    const struct range *range;
    const uint32_t *words;

    if (f->d.e != SMAP || f->c.e < 20 || f->b.e >= parameters.ranges) {
        fail_with(f, UNSUPPORTED);
        return;
    }
    range = &parameters.map[f->b.e];
    words = (const uint32_t *)(const void *)range;
    for (uint16_t i = 0; i < 5; i++)
        set_far32(f->es, (uint16_t)(f->di.x + 4 * i), words[i]);
    f->b.e = f->b.e + 1 < parameters.ranges ? f->b.e + 1 : 0;
    f->a.e = SMAP;
    f->c.e = 20;
}

/* --- Waiting ------------------------------------------------------------------------------------------------ */

/* The time in ticks of the PIT, modulo 2^32; valid while IRQ 0 is this ROM's and comes. */
static uint32_t time(void)
{
    uint32_t count;

    outb(PIT_CONTROL, 0); /* latch counter 0 */
    count = inb(PIT_COUNTER0);
    count |= (uint32_t)inb(PIT_COUNTER0) << 8;
    return (far32(BDA, BDA_TICKS) << 16) + ((0x10000 - count) & 0xffff);
}

static int timer_is_ours(void)
{
    return far32(0, 4 * 0x08) == (0xf0000000u | offset_of(timer_interrupt)) && !(inb(PIC1_DATA) & 1 << PIT_IRQ);
}

/* Counter 2 measures up to 54.9 ms; port 61h starts it (bit 0) and shows its output (bit 5). */
static void wait_short(uint32_t ticks)
{
    uint8_t control = inb(0x61) & 0x0c;

    while (ticks) {
        uint32_t now = ticks < 0xffff ? ticks : 0xffff;

        outb(0x61, control);
        outb(PIT_CONTROL, 0xb0); /* counter 2, low byte then high byte, interrupt on terminal count */
        outb(PIT_2, (uint8_t)now);
        outb(PIT_2, (uint8_t)(now >> 8));
        outb(0x61, control | 1);
        while (!(inb(0x61) & 0x20))
            ;
        ticks -= now;
    }
    outb(0x61, control);
}

/* CX:DX microseconds. As long as more than a timer interrupt is left, the processor halts. `scratch` is when the wait
 * ends, and not 0. */
static enum action wait_for(struct frame *f)
{
    uint32_t microseconds = (uint32_t)f->c.x << 16 | f->d.x;
    uint32_t ticks = microseconds / 1000 * 1193 + microseconds % 1000 * 1193 / 1000; /* up to an hour; 0.015 % fast */
    uint32_t left;

    if (!timer_is_ours()) {
        wait_short(ticks);
        return DONE;
    }
    if (!f->scratch)
        f->scratch = (time() + ticks) | 1;
    left = f->scratch - time();
    if (left - 1 >= 0x80000000u)
        return DONE;
    if (left > 0x10000)
        return WAIT;
    wait_short(left);
    return DONE;
}

/* --- Block move ----------------------------------------------------------------------------------------------- */

static uint32_t base_of(uint16_t segment, uint16_t descriptor)
{
    return (far32(segment, descriptor + 2) & 0xffffff) | (uint32_t)far8(segment, descriptor + 7) << 24;
}

static void block_move(struct frame *f)
{
    if (f->c.x > 0x8000) {
        fail_with(f, 1);
        return;
    }
    copy_above(base_of(f->es, f->si.x + 0x18), base_of(f->es, f->si.x + 0x10), f->c.x);
    f->a.h = 0;
}

/* --- Power ---------------------------------------------------------------------------------------------------- */

/* Advanced Power Management 1.2, chapter 4: real-mode interface, no device control. */
static void power(struct frame *f)
{
    switch (f->a.l) {
    case 0x00:
        f->a.x = 0x0102;
        f->b.x = 0x504d; /* "PM" */
        f->c.x = 0;
        break;
    case 0x01: /* connect and disconnect, idle, busy, enable, engage */
    case 0x04:
    case 0x05:
    case 0x06:
    case 0x08:
    case 0x0d:
    case 0x0f:
        f->a.h = 0;
        break;
    case 0x07:
        if (f->c.x == 3)
            shut_down();
        f->a.h = 0;
        break;
    case 0x0a: /* on line, no battery */
        f->b.x = 0x01ff;
        f->c.x = 0x80ff;
        f->d.x = 0xffff;
        break;
    case 0x0b:
        fail_with(f, 0x80); /* no event */
        break;
    case 0x0e:
        f->a.x = 0x0102;
        break;
    default:
        report(f, REPORT_FUNCTION);
        fail_with(f, 0x0c);
    }
}

enum action system_service(struct frame *f)
{
    uint32_t above = parameters.extended_kib;

    set_flag(f, CARRY, 0);
    switch (f->a.h) {
    case 0x24: /* A20 is always on */
        if (f->a.l == 0x02)
            f->a.l = 1;
        else if (f->a.l == 0x03)
            f->b.x = 3;
        else if (f->a.l == 0x00)
            return fail_with(f, 0x86), DONE;
        f->a.h = 0;
        return DONE;
    case 0x4f: /* keys are not changed */
        set_flag(f, CARRY, 1);
        return DONE;
    case 0x53:
        power(f);
        return DONE;
    case 0x85: /* what operating systems hook */
    case 0x90:
    case 0x91:
        f->a.h = 0;
        return DONE;
    case 0x86:
        return wait_for(f);
    case 0x87:
        block_move(f);
        return DONE;
    case 0x88:
        f->a.x = (uint16_t)(above < 0xfc00 ? above : 0xfc00);
        return DONE;
    case 0xc0:
        f->es = 0xf000;
        f->b.x = offset_of(configuration);
        f->a.h = 0;
        return DONE;
    case 0xc1:
        f->es = far16(BDA, BDA_EBDA);
        return DONE;
    case 0xc2:
        mouse_service(f);
        return DONE;
    case 0xe8:
        if (f->a.l == 0x20) {
            memory_map(f);
            return DONE;
        }
        if (f->a.l == 0x01 || f->a.l == 0x81) {
            uint32_t low = above < 15 * 1024 ? above : 15 * 1024;
            uint32_t high = (above - low) / 64;

            if (f->a.l == 0x81) {
                f->a.e = f->c.e = low;
                f->b.e = f->d.e = high;
            } else {
                f->a.x = f->c.x = (uint16_t)low;
                f->b.x = f->d.x = (uint16_t)high;
            }
            return DONE;
        }
        break;
    case 0xec: /* the mode that will be used */
        f->a.h = 0;
        return DONE;
    default:
        refuse(f);
        return DONE;
    }
    report(f, REPORT_FUNCTION);
    fail_with(f, UNSUPPORTED);
    return DONE;
}
