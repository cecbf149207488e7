/* A kernel of which a profile is taken: it computes in `spin`, polls COM1 in `poll`, and is entered by `_start`. */

static inline void outb(unsigned short port, unsigned char value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline unsigned char inb(unsigned short port)
{
    unsigned char value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

volatile int sink;

__attribute__((noinline)) void spin(int turns)
{
    for (volatile int turn = 0; turn < turns; turn++)
        sink++;
}

__attribute__((noinline)) void poll(void)
{
    for (int turn = 0; turn < 400; turn++)
        inb(0x3fd);
}

__attribute__((noinline)) void work(void)
{
    spin(2000);
    poll();
}

/* ROUNDS is how often it works; 0: for ever. */
__attribute__((noinline)) void kernel(void)
{
    for (int round = 0; ROUNDS == 0 || round < ROUNDS; round++) {
        work();
        outb(0x3f8, '.');
    }
    outb(0xf4, 0);
}

#ifdef __x86_64__
#define REGISTER(name) "%r" name
#else
#define REGISTER(name) "%e" name
#endif

__asm__(".globl _start\n"
        ".type _start, @function\n"
        "_start:\n"
        "    mov $0x9000, " REGISTER("sp") "\n"
        "    xor " REGISTER("bp") ", " REGISTER("bp") "\n"
        "    call kernel\n"
        "1:  jmp 1b\n"
        ".size _start, . - _start\n");
