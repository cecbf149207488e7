/* See gdt32.h. */
#include "gdt32.h"

    .text
    .globl  flat_gdt_load
flat_gdt_load:
    lgdt    gdtr
    ljmp    $FLAT_CODE, $1f
1:  mov     $FLAT_DATA, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    ret

    .section .rodata
    .balign 8
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff      /* FLAT_CODE: 0 to 4 GiB */
    .quad   0x00cf93000000ffff      /* FLAT_DATA: 0 to 4 GiB */
gdtr:
    .word   gdtr - gdt - 1
    .long   gdt
