/*
 * triplefault: a crash. Proves that a fault without any handler ends the run with status 6 and a report.
 */
#include "common/macros.inc"

    .text
    .globl  _start
_start:
    PRINT   message
    lidt    no_idt(%rip)
    ud2                             /* #UD, then #GP for want of a gate, then #DF for the same: shutdown */

    .section .rodata
message:
    .asciz  "triplefault: about to fault without an IDT\n"
no_idt:
    .word   0
    .quad   0
