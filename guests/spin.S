/*
 * spin: an endless loop that never exits to the host. Proves that --timeout ends it all the same, with status 124.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

MULTIBOOT_HEADER

    .text
    .globl  _start
_start:
    PRINT   message
forever:
    jmp     forever

    .section .rodata
message:
    .asciz  "spin: looping for ever\n"
