/*
 * Entry of real-mode guests in C: a flat image at 0x7c00. Calls guest_main(0, NULL), then shuts down.
 *
 * The compiler's -m16 code is 32-bit code with prefixes: it wants all segments at 0, the upper half of
 * ESP clear, and near calls and returns of four bytes (calll, retl).
 */
#include "macros.inc"

    .code16
    .section .start, "ax"
    .globl  _start
_start:
    cli
    cld
    xor     %ax, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    mov     $0x7c00, %esp           /* the stack grows down from below the image */
    ljmp    $0, $1f                 /* firmware may come as 0x07c0:0 */
1:  pushl   $0
    pushl   $0
    calll   guest_main
    SHUT_DOWN

    .data
    .long   0                       /* contents, or the linker would leave the bss beside it out of the image */
