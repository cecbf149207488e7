#include "graphics.inc"
/* Mode 12h: write modes 0 to 3, rotation, functions, masks, a wide virtual screen, panning. */
    mov     $0x0012, %ax
    int     $0x10
    mov     $0xa000, %ax
    mov     %ax, %es
    SET     0x3d4, 0x13, 0x30 /* 96 bytes a row */
    xor     %di, %di
    mov     $0x5000, %cx
1:  mov     %di, %ax
    xor     %ah, %al
    stosb
    loop    1b
    SET     0x3c4, 0x02, 0x05
    SET     0x3ce, 0x03, 0x0b /* rotated by 3, and AND */
    mov     $0x1000, %di
    mov     $0x0800, %cx
2:  mov     %es:(%di), %al
    stosb
    loop    2b
    SET     0x3c4, 0x02, 0x0f
    HALFWAY
    SET     0x3ce, 0x03, 0x18
    SET     0x3ce, 0x05, 0x02
    SET     0x3ce, 0x08, 0x3c
    mov     $0x2000, %di
    mov     $0x0800, %cx
3:  mov     %es:(%di), %al
    mov     %di, %ax
    stosb
    loop    3b
    SET     0x3ce, 0x05, 0x03
    SET     0x3ce, 0x00, 0x06
    SET     0x3ce, 0x03, 0x00
    mov     $0x3000, %di
    mov     $0x0800, %cx
4:  mov     %es:(%di), %al
    mov     %di, %ax
    stosb
    loop    4b
    SET     0x3ce, 0x05, 0x08 /* read mode 1: where colour 6 is */
    SET     0x3ce, 0x02, 0x06
    SET     0x3ce, 0x08, 0xff
    SET     0x3ce, 0x01, 0x03
    mov     $0x3000, %si
    mov     $0x4800, %di
    mov     $0x0400, %cx
5:  mov     %es:(%si), %al
    inc     %si
    stosb
    loop    5b
    mov     $0xffff, %ax
    mov     $0x3000, %di
    mov     %ax, %es:(%di)
    mov     %ax, %es:3(%di)
    mov     $0x3da, %dx
    in      %dx, %al
    mov     $0x3c0, %dx
    mov     $0x33, %al      /* panning, with the screen on */
    out     %al, %dx
    mov     $0x03, %al
    out     %al, %dx
    DONE
