/*
 * acpi: what firmware leaves in memory, found as a kernel finds it. Proves the BIOS data area, the RSDP, RSDT and XSDT
 * with the same tables, MADT, HPET, FADT, DSDT and FACS, the MP and the SMBIOS tables: their places, lengths and
 * checksums, and the id of the I/O APIC in both and in its register. It ends by debug-exit with 42: status 85. With
 * --append 1 it writes another id to the register first, and resets the machine.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"
#include "common/rtc.h"

#define EXIT_ALL_FOUND 42

#define BDA_COM1         0x400
#define BDA_EBDA_SEGMENT 0x40e
#define BDA_BASE_MEMORY  0x413
#define BIOS_START       0xe0000
#define BIOS_END         0x100000

#define RSDP_RSDT    16
#define RSDP_LENGTH  20
#define RSDP_XSDT    24
#define TABLE_LENGTH 4
#define HEADER       36
#define MADT_ENTRIES 44
#define MP_TABLE     4
#define MP_ENTRIES   44
#define MAX_TABLES   16

#define IO_APIC        0xfec00000
#define IO_APIC_WINDOW 0x10 /* the register whose index is at 0 */
#define IO_APIC_ID     0
#define OTHER_ID       5
#define CMOS_MARK      0x50 /* a byte of CMOS RAM, which a reset keeps */
#define MARK           0xa1

/* The compiler takes what it knows to point into the first page for an error: it must not know. */
static const uint8_t *at(uint32_t address)
{
    __asm__("" : "+r"(address));
    return (const uint8_t *)(uintptr_t)address;
}

/* Tables are not aligned to their fields. */
static uint32_t number(const uint8_t *from, unsigned size)
{
    uint32_t value = 0;

    while (size--)
        value = value << 8 | from[size];
    return value;
}

static int is(const uint8_t *data, const char *signature)
{
    while (*signature)
        if (*data++ != (uint8_t)*signature++)
            return 0;
    return 1;
}

static void put_signature(const uint8_t *data)
{
    for (unsigned i = 0; i < 4; i++)
        put_char((char)data[i]);
}

static void check_sum(const uint8_t *data, uint32_t size, const char *what)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + data[i]);
    if (sum)
        fail(what);
}

static const uint8_t *scan(uint32_t start, uint32_t end, const char *signature)
{
    for (; start < end; start += 16)
        if (is(at(start), signature))
            return at(start);
    return 0;
}

/* The first KiB of the EBDA, then the BIOS area, on 16-byte boundaries. */
static const uint8_t *find(const char *signature, const char *missing)
{
    uint32_t ebda = number(at(BDA_EBDA_SEGMENT), 2) << 4;
    const uint8_t *found = scan(ebda, ebda + 1024, signature);

    if (!found)
        found = scan(BIOS_START, BIOS_END, signature);
    if (!found)
        fail(missing);
    return found;
}

static void put_register(const char *name, const uint8_t *address, unsigned digits)
{
    put_string(name);
    put_hex(number(address, 4), digits);
}

/* ---- The I/O APIC ---- */

static volatile uint32_t *io_apic_id(uint32_t address)
{
    *(volatile uint32_t *)(uintptr_t)address = IO_APIC_ID;
    return (volatile uint32_t *)(uintptr_t)(address + IO_APIC_WINDOW);
}

static void check_io_apic(unsigned id, uint32_t address)
{
    if ((*io_apic_id(address) >> 24 & 0xf) != id)
        fail("I/O APIC: its register has the id of the table");
}

static void reset_with_another_id(uint32_t address)
{
    if (rtc_read(CMOS_MARK) == MARK)
        return;
    rtc_write(CMOS_MARK, MARK);
    *io_apic_id(address) = OTHER_ID << 24;
    check_io_apic(OTHER_ID, address);
    put_string("acpi: reset\n");
    outb(I8042_COMMAND, I8042_RESET);
    halt();
}

/* ---- ACPI ---- */

static void print_madt(const uint8_t *madt)
{
    const uint8_t *end = madt + number(madt + TABLE_LENGTH, 4);
    unsigned cpus = 0;

    put_register("MADT: local APICs at 0x", madt + 36, 8);
    put_char('\n');
    for (const uint8_t *entry = madt + MADT_ENTRIES; entry < end; entry += entry[1]) {
        if (entry[1] < 2)
            fail("MADT: an entry without a length");
        if (entry[0] == 0 && entry[4] & 1)
            cpus++;
        if (entry[0] == 1) {
            put_string("MADT: I/O APIC ");
            put_decimal(entry[2], 1);
            put_register(" at 0x", entry + 4, 8);
            put_char('\n');
            check_io_apic(entry[2], number(entry + 4, 4));
        }
        if (entry[0] == 2 && entry[3] != number(entry + 4, 4)) {
            put_string("MADT: IRQ ");
            put_decimal(entry[3], 1);
            put_string(" is interrupt ");
            put_decimal(number(entry + 4, 4), 1);
            put_char('\n');
        }
    }
    put_string("MADT: CPUs ");
    put_decimal(cpus, 1);
    put_char('\n');
}

static void print_s5(const uint8_t *dsdt)
{
    uint32_t size = number(dsdt + TABLE_LENGTH, 4);

    /* Without an interpreter: the name, PackageOp, a length of one byte, the count, SLP_TYP as ZeroOp. */
    for (uint32_t i = HEADER; i + 8 < size; i++) {
        if (is(dsdt + i, "_S5_") && dsdt[i + 4] == 0x12) {
            put_string("DSDT: S5 has sleep type ");
            put_decimal(dsdt[i + 7], 1);
            put_char('\n');
            return;
        }
    }
    fail("DSDT: no S5");
}

/* DeviceOp, a length of one byte or two, a name of four characters. */
static void print_serial_ports(const uint8_t *dsdt)
{
    uint32_t size = number(dsdt + TABLE_LENGTH, 4);

    put_string("DSDT: serial ports");
    for (uint32_t i = HEADER; i + 8 < size; i++) {
        const uint8_t *name = dsdt + i + (dsdt[i + 2] < 64 ? 3 : 4);

        if (dsdt[i] == 0x5b && dsdt[i + 1] == 0x82 && is(name, "COM")) {
            put_char(' ');
            put_signature(name);
        }
    }
    put_char('\n');
}

static void print_fadt(const uint8_t *fadt)
{
    const uint8_t *facs = at(number(fadt + 36, 4));
    const uint8_t *dsdt = at(number(fadt + 40, 4));

    put_string("FADT: SCI is IRQ ");
    put_decimal(number(fadt + 46, 2), 1);
    put_register(", PM1 event 0x", fadt + 56, 3);
    put_register(", control 0x", fadt + 64, 3);
    put_register(", timer 0x", fadt + 76, 3);
    put_register(", reset 0x", fadt + 120, 3);
    put_string(" with ");
    put_decimal(fadt[128], 1);
    put_char('\n');
    if (!is(facs, "FACS") || (uintptr_t)facs % 64)
        fail("FACS: not there, or not aligned");
    if (!is(dsdt, "DSDT"))
        fail("DSDT: not there");
    check_sum(dsdt, number(dsdt + TABLE_LENGTH, 4), "DSDT: checksum");
    print_s5(dsdt);
    print_serial_ports(dsdt);
}

static void print_hpet(const uint8_t *hpet)
{
    put_register("HPET: block at 0x", hpet + 44, 8);
    put_string(", timers ");
    put_decimal((hpet[37] & 31) + 1u, 1);
    put_char('\n');
}

/* The addresses in the root table, whose entries have `width` bytes. */
static unsigned walk(const uint8_t *root, unsigned width, uint32_t *tables)
{
    uint32_t size = number(root + TABLE_LENGTH, 4);
    unsigned count = 0;

    check_sum(root, size, "RSDT or XSDT: checksum");
    for (uint32_t offset = HEADER; offset < size; offset += width) {
        if (count == MAX_TABLES)
            fail("RSDT or XSDT: too many tables");
        if (width == 8 && number(root + offset + 4, 4))
            fail("XSDT: a table above 4 GiB");
        tables[count++] = number(root + offset, 4);
    }
    return count;
}

static void print_acpi(void)
{
    const uint8_t *rsdp = find("RSD PTR ", "RSDP: not found");
    uint32_t by_rsdt[MAX_TABLES], by_xsdt[MAX_TABLES];
    unsigned count;

    check_sum(rsdp, 20, "RSDP: checksum of revision 1");
    check_sum(rsdp, number(rsdp + RSDP_LENGTH, 4), "RSDP: checksum");
    put_string("RSDP: at 0x");
    put_hex((uintptr_t)rsdp, 8);
    put_string(", revision ");
    put_decimal(rsdp[15], 1);
    put_char('\n');

    count = walk(at(number(rsdp + RSDP_RSDT, 4)), 4, by_rsdt);
    if (walk(at(number(rsdp + RSDP_XSDT, 4)), 8, by_xsdt) != count)
        fail("RSDT and XSDT: not as many tables");
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *table = at(by_rsdt[i]);

        if (by_rsdt[i] != by_xsdt[i])
            fail("RSDT and XSDT: different tables");
        check_sum(table, number(table + TABLE_LENGTH, 4), "ACPI table: checksum");
        put_string("RSDT and XSDT: ");
        put_signature(table);
        put_char('\n');
        if (is(table, "APIC"))
            print_madt(table);
        else if (is(table, "FACP"))
            print_fadt(table);
        else if (is(table, "HPET"))
            print_hpet(table);
    }
}

/* ---- MP ---- */

static void print_mp(void)
{
    const uint8_t *pointer = find("_MP_", "MP: no floating pointer");
    const uint8_t *table = at(number(pointer + MP_TABLE, 4));
    const uint8_t *entry = table + MP_ENTRIES;
    unsigned cpus = 0;

    check_sum(pointer, pointer[8] * 16u, "MP: checksum of the pointer");
    if (!is(table, "PCMP"))
        fail("MP: no configuration table");
    check_sum(table, number(table + 4, 2), "MP: checksum of the table");
    put_string("MP: version 1.");
    put_decimal(table[6], 1);
    put_char('\n');
    for (uint32_t left = number(table + 34, 2); left; left--) {
        if (entry[0] == 0 && entry[3] & 1)
            cpus++;
        if (entry[0] == 2)
            check_io_apic(entry[1], number(entry + 4, 4));
        if (entry[0] == 3 && entry[5] == 0) {
            put_string("MP: IRQ 0 is pin ");
            put_decimal(entry[7], 1);
            put_char('\n');
        }
        entry += entry[0] == 0 ? 20 : 8;
    }
    put_string("MP: CPUs ");
    put_decimal(cpus, 1);
    put_char('\n');
}

/* ---- SMBIOS ---- */

static void print_smbios(void)
{
    const uint8_t *entry = find("_SM_", "SMBIOS: no entry point");
    const uint8_t *structure = at(number(entry + 0x18, 4));
    const uint8_t *end = structure + number(entry + 0x16, 2);
    unsigned count = 0;

    check_sum(entry, entry[5], "SMBIOS: checksum");
    check_sum(entry + 16, 15, "SMBIOS: intermediate checksum");
    while (structure < end) {
        count++;
        structure += structure[1];
        while (structure[0] || structure[1])
            structure++;
        structure += 2;
    }
    if (structure != end || count != number(entry + 0x1c, 2))
        fail("SMBIOS: length and count differ");
    put_string("SMBIOS: version ");
    put_decimal(entry[6], 1);
    put_char('.');
    put_decimal(entry[7], 1);
    put_string(", structures ");
    put_decimal(count, 1);
    put_char('\n');
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic;
    if (decimal_argument(info, 0, 0))
        reset_with_another_id(IO_APIC);
    put_string("BDA: base memory ");
    put_decimal(number(at(BDA_BASE_MEMORY), 2), 1);
    put_string(" KiB, EBDA at 0x");
    put_hex(number(at(BDA_EBDA_SEGMENT), 2) << 4, 5);
    put_string(", COM1 at 0x");
    put_hex(number(at(BDA_COM1), 2), 3);
    put_char('\n');
    print_acpi();
    print_mp();
    print_smbios();
    put_string("acpi: all found\n");
    debug_exit(EXIT_ALL_FOUND);
}
