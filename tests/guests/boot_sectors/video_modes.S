#include "boot.inc"
/* A colour as gray, and what the BIOS says of a mode that was set without clearing. */
BEGIN
    mov     $0x1010, %ax
    mov     $5, %bx
    mov     $0x3000, %dx        /* red */
    mov     $0x1020, %cx        /* green, blue */
    int     $0x10
    mov     $0x101b, %ax
    mov     $1, %cx
    int     $0x10
    mov     $0x1015, %ax
    int     $0x10
    mov     %cl, %dl
    mov     %dx, %ax
    call    put_hex16
    mov     $0x0083, %ax
    int     $0x10
    mov     $0x0f00, %ax
    int     $0x10
    call    put_hex16
    mov     $0x4f03, %ax
    int     $0x10
    mov     %bx, %ax
    call    put_hex16
    mov     $0x0003, %ax
    int     $0x10
    mov     $0x0f00, %ax
    int     $0x10
    call    put_hex16
END
