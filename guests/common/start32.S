/* Entry of 32-bit guests in C: a Multiboot image. Calls guest_main(magic, info), then shuts down. */
#include "macros.inc"
#include "multiboot.h"

MULTIBOOT_HEADER

    .text
    .globl  _start
_start:
    mov     $stack_top, %esp        /* Multiboot promises no stack */
    cld
    push    %ebx
    push    %eax
    call    guest_main
    SHUT_DOWN

    .bss
    .balign 16
    .skip   16384
stack_top:
