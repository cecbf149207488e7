/*
 * A Multiboot kernel that goes back to real mode, reads the first sector of drive 0x80 with int 0x13, and prints
 * its first five bytes. Status: what int 0x13 says, 0 for success.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

MULTIBOOT_HEADER

#define CODE16 0x08
#define DATA16 0x10
#define LOW    0x8000
#define BUFFER 0x9000

    .text
    .globl  _start
_start:
    cld
    mov     $low_start, %esi
    mov     $LOW, %edi
    mov     $low_end - low_start, %ecx
    rep movsb
    lgdt    gdt_register
    ljmp    $CODE16, $LOW

    .code16
low_start:
    mov     $DATA16, %ax
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
    mov     $0x0201, %ax            /* read one sector: cylinder 0, head 0, sector 1 */
    mov     $0x0001, %cx
    mov     $0x0080, %dx
    mov     $BUFFER, %bx
    int     $0x13
    jc      failed
    mov     $BUFFER, %si
    mov     $5, %cx
    mov     $0xe9, %dx              /* the debug console */
    rep outsb
    SHUT_DOWN
failed:
    mov     %ah, %al
    out     %al, $0xf4
    hlt

    .balign 4
vectors:
    .word   0x3ff
    .long   0
low_end:

    .balign 8
gdt:
    .quad   0
    .quad   0x00009b000000ffff      /* 16-bit code and data, at 0, 64 KiB */
    .quad   0x000093000000ffff
gdt_register:
    .word   gdt_register - gdt - 1
    .long   gdt
