/*
 * elf32: a 32-bit ELF without a Multiboot header. Proves the ELF32 entry: the same state as Multiboot's, and a stack
 * that works. Status 0; 7 if the entry state is wrong.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

    .text
    .globl  _start
_start:
    cmp     $MULTIBOOT_MAGIC, %eax
    jne     bad_boot
    push    %ebx                    /* faults if ESP is not usable */
    pop     %ebx
    PRINT   greeting
    SHUT_DOWN
bad_boot:
    DEBUG_EXIT_WITH EXIT_BAD_BOOT

    .section .rodata
greeting:
    .asciz  "Hello from an ELF32 of its own!\n"
