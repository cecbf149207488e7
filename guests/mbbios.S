/*
 * mbbios: a Multiboot kernel that goes back to real mode and calls the BIOS, as Xen does. Proves that there is
 * one: int 0x12 and int 0x10. Status 0; 7 if int 0x12 answers something else than 639 KiB.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

MULTIBOOT_HEADER

#define CODE16 0x08
#define DATA16 0x10
#define LOW    0x8000

    .text
    .globl  _start
_start:
    cld
    mov     $low_start, %esi        /* real-mode code has to be below 1 MiB */
    mov     $LOW, %edi
    mov     $low_end - low_start, %ecx
    rep movsb
    lgdt    gdt_register
    ljmp    $CODE16, $LOW

    .code16
low_start:
    mov     $DATA16, %ax            /* limits of 64 KiB, which real mode keeps */
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    mov     %cr0, %eax
    and     $~1, %eax
    mov     %eax, %cr0
    ljmp    $0, $LOW + (real_start - low_start)
real_start:
    xor     %ax, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    mov     $LOW, %sp
    lidt    LOW + (vectors - low_start)
    int     $0x12
    cmp     $639, %ax
    jne     bad_boot
    mov     $LOW + (text - low_start), %si
next:
    lodsb
    test    %al, %al
    jz      done
    mov     $0x0e, %ah              /* teletype */
    int     $0x10
    jmp     next
done:
    SHUT_DOWN
bad_boot:
    DEBUG_EXIT_WITH EXIT_BAD_BOOT

    .balign 4
vectors:
    .word   0x3ff
    .long   0
text:
    .asciz  "639 KiB, says the BIOS\r\n"
low_end:

    .section .rodata
    .balign 8
gdt:
    .quad   0
    .quad   0x00009b000000ffff      /* 16-bit code and data, at 0, 64 KiB */
    .quad   0x000093000000ffff
gdt_register:
    .word   gdt_register - gdt - 1
    .long   gdt
