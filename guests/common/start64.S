/* Entry of 64-bit guests in C: a plain ELF64. Calls guest_main(magic, info), then shuts down. */
#include "macros.inc"

    .text
    .globl  _start
_start:
    lea     stack_top(%rip), %rsp
    cld
    mov     %rdi, %rsi
    mov     %eax, %edi
    call    guest_main
    SHUT_DOWN

    .bss
    .balign 16
    .skip   16384
stack_top:
