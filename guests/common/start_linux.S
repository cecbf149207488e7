/*
 * A Linux kernel image: boot sector and setup header, then the kernel proper with its two entries. Calls
 * guest_main(boot_params), then shuts down. Documentation/arch/x86/boot.rst describes the header.
 */
#include "macros.inc"

#define LOADED_HIGH   1
#define XLF_KERNEL_64 1
#define BOOT_CS       0x10
#define BOOT_DS       0x18

    .section .setup, "a"
    .org    0x1f1
    .byte   1                       /* setup_sects */
    .word   0
    .long   kernel_paragraphs       /* syssize */
    .word   0, 0xffff, 0            /* ram_size, vid_mode, root_dev */
    .word   0xaa55
    .byte   0xeb, header_end - magic /* a jump over the header, which also tells where it ends */
magic:
    .ascii  "HdrS"
    .word   0x20f                   /* version 2.15 */
    .long   0
    .word   0, 0                    /* start_sys_seg, kernel_version */
    .byte   0, LOADED_HIGH
    .word   0
    .long   kernel_start            /* code32_start */
    .long   0, 0, 0
    .word   0
    .byte   0, 0
    .long   0
    .long   0x7fffffff              /* initrd_addr_max */
    .long   0x1000                  /* kernel_alignment */
    .byte   0, 12                   /* not relocatable */
    .word   XLF_KERNEL_64
    .long   255                     /* cmdline_size */
    .long   0
    .quad   0
    .long   0, 0
    .quad   0
    .quad   kernel_start            /* pref_address */
    .long   kernel_size             /* init_size */
    .long   0, 0
header_end:
    .org    0x400

    .section .start, "ax"
    .code32
    DEBUG_EXIT_WITH EXIT_BAD_BOOT   /* the 32-bit entry: a loader that knows the other does not come here */
    .code64
    .org    0x200
    .globl  _start
_start:
    mov     %cs, %eax
    cmp     $BOOT_CS, %eax
    jne     bad_boot
    mov     $BOOT_DS, %eax          /* the GDT must hold what the selectors name */
    mov     %eax, %ss
    mov     %eax, %ds
    mov     %eax, %es
    pushf
    pop     %rax
    test    $0x200, %eax            /* interrupts must be off */
    jnz     bad_boot
    lea     stack_top(%rip), %rsp
    cld
    mov     %rsi, %rdi
    call    guest_main
    SHUT_DOWN
bad_boot:
    DEBUG_EXIT_WITH EXIT_BAD_BOOT

    .bss
    .balign 16
    .skip   16384
stack_top:
