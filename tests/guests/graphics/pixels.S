#include "graphics.inc"
/* A mode of the BIOS (-DMODE=…), lines of pixels in all colours, a window that is scrolled, one colour changed. */
    mov     $MODE, %ax
    int     $0x10
    xor     %si, %si
1:  mov     %si, %ax
    and     $0x7f, %al
    mov     %si, %dx
    shr     $1, %dx
    add     $20, %dx
    call    pixel
    mov     %si, %ax
    not     %al
    and     $0x7f, %al
    mov     %si, %dx
    shr     $2, %dx
    call    pixel
    inc     %si
    cmp     $300, %si
    jb      1b
    mov     $0x0605, %ax
    mov     $0x3300, %bx
    mov     $0x0105, %cx
    mov     $0x0810, %dx
    int     $0x10
    mov     $0x0c83, %ax /* exclusive or, where there are planes */
    mov     $7, %cx
    mov     $23, %dx
    xor     %bx, %bx
    int     $0x10
    jmp     done
pixel:
    mov     $0x0c, %ah
    mov     %si, %cx
    xor     %bx, %bx
    int     $0x10
    ret
done:
    DONE
