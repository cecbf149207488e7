/*
 * The only program of the initramfs: says that it runs and on how many CPUs, and ends the machine as its first
 * argument wants: "poweroff" or "reboot". No library: the numbers are those of Linux's x86-64 system calls.
 */

enum { WRITE = 1, REBOOT = 169, SCHED_GETAFFINITY = 204 };
enum { MAGIC1 = (int)0xfee1dead, MAGIC2 = 672274793, RESTART = 0x01234567, POWER_OFF = 0x4321fedc };

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void say(const char *text)
{
    unsigned long length = 0;
    while (text[length])
        length++;
    call(WRITE, 1, (long)text, (long)length);
}

static unsigned int online_cpus(void)
{
    unsigned long mask[16] = {0};
    long bytes = call(SCHED_GETAFFINITY, 0, sizeof mask, (long)mask);
    unsigned int count = 0;
    for (long word = 0; word < bytes / 8; word++)
        for (unsigned long rest = mask[word]; rest; rest &= rest - 1)
            count++;
    return count;
}

__attribute__((used)) static void run(const long *stack)
{
    const char *how = stack[0] > 1 ? (const char *)stack[2] : "";
    unsigned int cpus = online_cpus();
    char number[3] = {(char)('0' + cpus / 10), (char)('0' + cpus % 10), 0};

    say("\nkvmbox-init: running on ");
    say(cpus < 10 ? number + 1 : number);
    say(" CPU(s)\n");
    call(REBOOT, MAGIC1, MAGIC2, how[0] == 'p' ? POWER_OFF : RESTART);
    say("kvmbox-init: the machine does not end\n");
    for (;;)
        ;
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n");
