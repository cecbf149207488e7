/* Power-on: vectors, interrupt controllers, timer, data areas; then the boot sector. And who serves which vector. */
#include "bios.h"

_Noreturn void start(void);
enum action dispatch(struct frame *f);

static void own(uint16_t vector, uint16_t handler)
{
    set_far32(0, (uint16_t)(4 * vector), 0xf0000000u | handler);
}

static void start_vectors(void)
{
    for (unsigned vector = 0; vector < 256; vector++)
        own((uint16_t)vector, offset_of(vector_stubs + STUB_SIZE * vector));
    for (const uint16_t *pair = handlers; *pair != NO_HANDLER; pair += 2)
        own(pair[0], pair[1]);
}

static void start_interrupts(void)
{
    outb(PIC1_COMMAND, PIC_ICW1);
    outb(PIC2_COMMAND, PIC_ICW1);
    outb(PIC1_DATA, 0x08);
    outb(PIC2_DATA, 0x70);
    outb(PIC1_DATA, 1 << PIC_CASCADE);
    outb(PIC2_DATA, PIC_CASCADE);
    outb(PIC1_DATA, PIC_ICW4_8086);
    outb(PIC2_DATA, PIC_ICW4_8086);
    outb(PIC1_DATA, (uint8_t) ~(1 << PIT_IRQ | 1 << 1 | 1 << PIC_CASCADE));
    outb(PIC2_DATA, 0xff);
    outb(PIT_CONTROL, PIT_MODE2);
    outb(PIT_COUNTER0, 0);
    outb(PIT_COUNTER0, 0);
}

static void start_data_area(void)
{
    static const uint16_t com[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    uint16_t ports = 0;
    uint16_t reset_flag = far16(BDA, BDA_RESET_FLAG);

    far_fill16(BDA, 0, 0, 128);
    set_far16(BDA, BDA_RESET_FLAG, reset_flag);
    for (unsigned i = 0; i < 4; i++)
        if (inb(com[i] + UART_IIR) != 0xff) {
            set_far16(BDA, (uint16_t)(BDA_COM + 2 * ports), com[i]);
            set_far8(BDA, (uint16_t)(BDA_COM_TIMEOUT + ports), 1); /* s */
            ports++;
        }
    set_far16(BDA, BDA_EBDA, EBDA);
    set_far8(EBDA, 0, 1); /* its size in KiB */
    set_far16(BDA, BDA_MEMORY, EBDA >> 6);
    /* A coprocessor, a mouse, 80 columns in colour, serial ports. */
    set_far16(BDA, BDA_EQUIPMENT, (uint16_t)(1 << 1 | 1 << 2 | 2 << 4 | ports << 9));
}

_Noreturn void boot(void)
{
    const struct parameters *p = &parameters;

    if (p->start == ENTER)
        enter_guest((uint32_t)p->entry_cs << 16 | p->entry_ip, (uint32_t)p->entry_ss << 16 | p->entry_sp,
                    p->entry_data, p->boot);
    disk_boot();
    __asm__ volatile("int $0x18");
    __builtin_unreachable();
}

_Noreturn void start(void)
{
    static uint8_t started;

    /* Where the VMM has not entered the ROM, a guest has: its jump to the reset vector is a reset. */
    if (started || parameters.start == SERVE_ONLY)
        restart();
    started = 1;
    start_vectors();
    start_interrupts();
    start_data_area();
    video_start();
    keyboard_start();
    clock_start();
    disk_start();
    boot();
}

/* --- Who serves what ------------------------------------------------------------------------------------- */

static int in_service(uint16_t pic, unsigned irq)
{
    outb(pic, PIC_READ_ISR);
    return inb(pic) >> irq & 1;
}

/* IRQs that nobody has taken. The first controller's vectors are those of exceptions, too. */
static void hardware_interrupt(struct frame *f, uint8_t vector)
{
    unsigned irq = vector & 7;

    if (vector >= 0x70) {
        if (in_service(PIC2_COMMAND, irq)) {
            if (irq == 0)
                cmos(RTC_C); /* or the clock would not interrupt again */
            outb(PIC2_COMMAND, PIC_EOI);
        }
        outb(PIC1_COMMAND, PIC_EOI);
        return;
    }
    if (!in_service(PIC1_COMMAND, irq)) {
        if (irq != 7)
            report(f, REPORT_UNHANDLED);
        return; /* of IRQ 7: spurious */
    }
    if (irq == COM1_IRQ)
        console_interrupt();
    if (irq == 1)
        keyboard_interrupt(f->a.l);
    outb(PIC1_COMMAND, PIC_EOI);
}

enum action dispatch(struct frame *f)
{
    uint8_t vector = (uint8_t)f->vector;

    if (parameters.trap)
        report(f, REPORT_TRAP);
    switch (vector) {
    case 0x00: /* faults: to return is to have them again */
    case 0x06:
    case 0x07:
        report(f, by_instruction(f) ? REPORT_SERVICE : REPORT_UNHANDLED);
        return DONE;
    case 0x10:
        return f->a.h == 0x4f ? vbe_service(f) : video_service(f);
    case 0x11:
        f->a.x = far16(BDA, BDA_EQUIPMENT);
        return DONE;
    case 0x12:
        f->a.x = far16(BDA, BDA_MEMORY);
        return DONE;
    case 0x13:
        return disk_service(f);
    case 0x14:
        return serial_service(f);
    case 0x15:
        return system_service(f);
    case 0x16:
        return keyboard_service(f);
    case 0x18:
        print("No bootable device.\r\n");
        report(f, REPORT_NO_BOOT);
        return DONE;
    case 0x19:
        boot();
    case 0x1a:
        return clock_service(f);
    default:
        if ((vector >= 0x08 && vector <= 0x0f) || (vector >= 0x70 && vector <= 0x77))
            hardware_interrupt(f, vector);
        else
            report(f, REPORT_SERVICE);
        return DONE;
    }
}
