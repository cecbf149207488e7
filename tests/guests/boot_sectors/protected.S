#include "boot.inc"
/* From 16 bits to 32, where there is no BIOS: the text goes to video memory, and from there over COM1. */
BEGIN
    TELL    "Started in 16-bit Real Mode\r\n"
    PROTECTED 0x90000
    mov     $text, %esi
    mov     $0xb8000 + 160 * 4, %edi
    mov     $0x0f, %ah
1:  lodsb
    stosw
    test    %al, %al
    jnz     1b
    mov     $0xb8000 + 160 * 4, %esi
    mov     $0x3f8, %edx
2:  lodsw
    test    %al, %al
    jz      3f
    out     %al, %dx
    jmp     2b
3:  mov     $0x8900, %edx /* Bochs' way out, and QEMU's debug-exit: no APM here */
    mov     $way_out, %esi
    mov     $8, %ecx
    rep outsb
    mov     $0x10, %al
    out     %al, $0xf4
4:  hlt
    jmp     4b
text:
    .asciz  "Successfully landed in 32-bit Protected Mode\r\n"
way_out:
    .ascii  "Shutdown"
    .balign 8
table:
    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff
pointer:
    .word   23
    .long   table
    .code16
END
