/*
 * A kernel that uses devices and crashes: the report shows the last accesses. Long mode, as an ELF64 entry gets it.
 */
static inline unsigned char inb(unsigned short port)
{
	unsigned char value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void outb(unsigned short port, unsigned char value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

__attribute__((noinline)) void use(void)
{
	for (int turn = 0; turn < 40; turn++)
		inb(0x3fd);
	outb(0x3fb, 0x03);
	(void)*(volatile unsigned char *)0xd0000005;
	inb(0x1234);
	__asm__ volatile("ud2");
}

__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"    mov $0x9000, %rsp\n"
	"    call use\n"
	".size _start, . - _start\n");
