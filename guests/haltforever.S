/*
 * haltforever: HLT with interrupts off, which nothing can end. Proves that the run does end, with status 6.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

MULTIBOOT_HEADER

    .text
    .globl  _start
_start:
    PRINT   message
    HALT

    .section .rodata
message:
    .asciz  "haltforever: halting with interrupts off\n"
