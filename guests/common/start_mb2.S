/* Entry of Multiboot 2 guests in C. Calls guest_main(magic, info), then shuts down. */
#include "macros.inc"
#include "multiboot2.h"

    .section .multiboot, "a"
    .balign 8
header:
    .long   MULTIBOOT2_HEADER_MAGIC
    .long   0                       /* i386 */
    .long   header_end - header
    .long   -(MULTIBOOT2_HEADER_MAGIC + (header_end - header))
    .balign 8
request:
    .word   1, 0                    /* information request, not optional */
    .long   request_end - request
    .long   MB2_BASIC_MEMORY, MB2_MEMORY_MAP, MB2_ELF_SECTIONS
request_end:
    .balign 8
    .word   4, 0                    /* flags: a console, and EGA text will do */
    .long   12, 3
    .balign 8
    .word   6, 0                    /* modules on page boundaries */
    .long   8
    .balign 8
    .word   7, 0                    /* EFI boot services: counts on EFI only */
    .long   8
    .balign 8
    .word   10, 1                   /* relocatable, optional: but only to where it is linked */
    .long   24, 0x100000, 0xffffffff, 0x100000, 1
    .balign 8
    .word   0, 0
    .long   8
header_end:

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
