/*
 * hello32: the smallest Multiboot kernel. Proves the Multiboot 1 entry (flat 32-bit protected mode, magic in
 * EAX), output over COM1 and the clean way out. Status 0; 7 if EAX does not hold the magic.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

MULTIBOOT_HEADER

    .text
    .globl  _start
_start:
    cmp     $MULTIBOOT_MAGIC, %eax
    jne     bad_boot
    PRINT   greeting
    SHUT_DOWN
bad_boot:
    DEBUG_EXIT_WITH EXIT_BAD_BOOT

    .section .rodata
greeting:
    .asciz  "Hello from 32-bit protected mode!\n"
