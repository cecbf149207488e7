/*
 * hello64: the smallest ELF64 kernel. Proves the long-mode entry (64-bit code, a stack that works, the boot
 * information in RDI), output over COM1 and the clean way out. Status 0; 7 if the entry state is wrong.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

    .text
    .globl  _start
_start:
    cmp     $MULTIBOOT_MAGIC, %eax
    jne     bad_boot
    cmp     %rdi, %rbx
    jne     bad_boot
    push    %rdi                    /* faults if RSP is not usable */
    pop     %rdi
    PRINT   greeting
    SHUT_DOWN
bad_boot:
    DEBUG_EXIT_WITH EXIT_BAD_BOOT

    .section .rodata
greeting:
    .asciz  "Hello from 64-bit long mode!\n"
