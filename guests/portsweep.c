/*
 * portsweep: ports read and written in sizes of 1, 2 and 4 bytes, with values that make no sense. Proves that nothing
 * a guest does to a port stops the host: the run goes on to a clean end, status 0. Ports whose write would rightly end
 * the run, or garble the console, are left out.
 *
 * All ports are read byte by byte; the rest of the sweep takes every port below 0x1000, where the devices are, and
 * above that every 127th, an odd stride for the sake of all alignments. "--append 1" takes another stride: each of the
 * 65,536 ports in each size and direction, which is 390,000 exits. The last ports are taken in wide accesses too,
 * which go on at port 0.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"

#define PORTS         0x10000
#define DEVICE_PORTS  0x1000
#define LAST_PORTS    0xfff8 /* from here on none is left out: a wide access at the end goes on at port 0 */
#define SPARSE_STRIDE 127

static const struct {
    uint16_t first, last;
} not_written[] = {
    {PIC1_COMMAND, PIC1_DATA},
    {I8042_COMMAND, I8042_COMMAND},
    {SYSTEM_CONTROL, SYSTEM_CONTROL},
    {PIC2_COMMAND, PIC2_DATA},
    {0xe9, 0xe9}, /* debug console */
    {DEBUG_EXIT, DEBUG_EXIT + 3},
    {COM1 + UART_THR, COM1 + UART_THR},
    {0x402, 0x402}, /* debug console */
    {0x4d0, 0x4d1}, /* edge or level, per interrupt line */
    {0x501, 0x505}, /* the second debug-exit, pvpanic */
    {0x604, 0x605}, /* PM1a control: sleep */
    {0xcf9, 0xcf9}, /* reset control of later chipsets */
    {SHUTDOWN, SHUTDOWN},
};

static uint8_t keep_out[PORTS]; /* by port: looking through the ranges each time would cost more than the exits */
static uint32_t reads, writes, left_out, stride;

static void fill_keep_out(void)
{
    for (unsigned i = 0; i < sizeof not_written / sizeof *not_written; i++)
        for (uint32_t port = not_written[i].first; port <= not_written[i].last; port++)
            keep_out[port] = 1;
}

static int may_write(uint32_t port, uint32_t size)
{
    while (size--)
        if (keep_out[port++ % PORTS])
            return 0;
    return 1;
}

static void read_port(uint16_t port, uint32_t size)
{
    if (size == 1)
        inb(port);
    else if (size == 2)
        inw(port);
    else
        inl(port);
    reads++;
}

static void write_port(uint16_t port, uint32_t size)
{
    uint32_t value = port * 0x9e3779b1u >> 3; /* any bits will do, the same ones each time */

    if (!may_write(port, size)) {
        left_out++;
        return;
    }
    if (size == 1)
        outb(port, (uint8_t)value);
    else if (size == 2)
        outw(port, (uint16_t)value);
    else
        outl(port, value);
    writes++;
}

static uint32_t next_port(uint32_t port)
{
    if (port < DEVICE_PORTS || port >= LAST_PORTS)
        return port + 1;
    return port + stride < LAST_PORTS ? port + stride : LAST_PORTS;
}

static void sweep(void (*access)(uint16_t port, uint32_t size), uint32_t size)
{
    for (uint32_t port = 0; port < PORTS; port = next_port(port))
        access((uint16_t)port, size);
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic;
    stride = decimal_argument(info, 0, SPARSE_STRIDE);
    if (stride == 0)
        stride = SPARSE_STRIDE;
    put_string("portsweep: reading and writing all over\n");
    fill_keep_out();
    for (uint32_t port = 0; port < PORTS; port++)
        inb((uint16_t)port);
    reads = PORTS;
    for (uint32_t size = 2; size <= 4; size *= 2)
        sweep(read_port, size);
    for (uint32_t size = 1; size <= 4; size *= 2)
        sweep(write_port, size);

    console_reset();
    put_string("portsweep: ");
    put_decimal(reads, 1);
    put_string(" reads, ");
    put_decimal(writes, 1);
    put_string(" writes, ");
    put_decimal(left_out, 1);
    put_string(" writes left out\n");
}
