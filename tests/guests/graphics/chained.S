#include "graphics.inc"
/* Mode 13h by registers, colours of the guest's own, and 64000 pixels. */
    mov     $0x3c2, %dx
    mov     $0x63, %al
    out     %al, %dx
    SET     0x3d4, 0x11, 0x0e
    mov     $table, %si
1:  lodsw                   /* port; 0: the end */
    test    %ax, %ax
    jz      3f
    mov     %ax, %dx
    lodsb
    mov     %al, %cl        /* registers */
    xor     %bl, %bl
2:  mov     %bl, %al
    mov     (%si), %ah
    inc     %si
    out     %ax, %dx
    inc     %bl
    dec     %cl
    jnz     2b
    jmp     1b
3:  mov     $0x3da, %dx
    in      %dx, %al
    mov     $0x3c0, %dx
    xor     %bl, %bl
4:  mov     %bl, %al
    out     %al, %dx
    lodsb
    out     %al, %dx
    inc     %bl
    cmp     $21, %bl
    jb      4b
    mov     $0x20, %al
    out     %al, %dx
    mov     $0x3c8, %dx
    xor     %al, %al
    out     %al, %dx
    inc     %dx
    xor     %cl, %cl
5:  mov     %cl, %al
    shr     $2, %al
    out     %al, %dx
    mov     %cl, %al
    and     $63, %al
    out     %al, %dx
    mov     %cl, %al
    not     %al
    shr     $2, %al
    out     %al, %dx
    inc     %cl
    jnz     5b
    mov     $0xa000, %ax
    mov     %ax, %es
    xor     %di, %di
    mov     $64000, %cx
    HALFWAY
6:  mov     %di, %ax
    xor     %ah, %al
    stosb
    loop    6b
    jmp     done
table:
    .word   0x3c4
    .byte   5, 0x03, 0x01, 0x0f, 0x00, 0x0e
    .word   0x3d4
    .byte   25, 0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00
    .byte   0x9c, 0x0e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff
    .word   0x3ce
    .byte   9, 0, 0, 0, 0, 0, 0x40, 0x05, 0x0f, 0xff
    .word   0
    .byte   0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x41, 0, 0x0f, 0, 0
done:
    DONE
