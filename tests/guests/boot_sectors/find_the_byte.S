#include "boot.inc"
/* The loader's address, in three spellings: one of them is wrong without the base. */
BEGIN
    mov     secret, %al
    call    put
    mov     $secret, %bx
    mov     (%bx), %al
    call    put
    mov     0x7c00 + secret - _start, %al
    call    put
    mov     $0x07c0, %ax
    mov     %ax, %es
    mov     %es:(secret - _start), %al
    call    put
    TELL    "\r\n"
    jmp 2f
secret: .byte 0x58
2:
END
