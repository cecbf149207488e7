#include "boot.inc"
/* Clear the screen, and write at places of it, in colour. */
BEGIN
    mov     $0x0003, %ax
    int     $0x10
    mov     $0x0600, %ax
    mov     $0x1f, %bh
    xor     %cx, %cx
    mov     $0x184f, %dx
    int     $0x10
    mov     $0x02, %ah
    mov     $0, %bh
    mov     $0x0200, %dx
    int     $0x10
    mov     $text, %si
1:  lodsb
    test    %al, %al
    jz      2f
    mov     $0x09, %ah
    mov     $0x001e, %bx
    mov     $1, %cx
    int     $0x10
    mov     $0x03, %ah
    int     $0x10
    inc     %dl
    mov     $0x02, %ah
    int     $0x10
    jmp     1b
text:
    .asciz  "one by one"
2:  mov     $0x1301, %ax
    mov     $0x001f, %bx
    mov     $5, %cx
    mov     $0x0400, %dx
    mov     $whole, %bp
    int     $0x10
    mov     $0x03, %ah
    mov     $0, %bh
    int     $0x10
    mov     %dx, %ax
    call    put_hex16
    mov     $0x08, %ah
    mov     $0, %bh
    int     $0x10
    TELL    "\r\n"
    jmp     3f
whole:
    .ascii  "whole"
3:
END
