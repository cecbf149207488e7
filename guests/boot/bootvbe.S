/* bootvbe: a boot sector that sets 640 x 480 with 256 colours by VBE, in lines of 704 dots, and fills it bank by bank. */
#include "../common/ports.h"
#include "boot.inc"
    .set    INFO, 0x8000
    .set    MODE_INFO, 0x8200
    .set    MODE, 0x101
    .set    BANKS, 6
BEGIN
    movl    $0x32454256, INFO       /* "VBE2" */
    mov     $0x4f00, %ax
    mov     $INFO, %di
    call    vbe
    cmpl    $0x41534556, INFO       /* "VESA" */
    jne     not_ok
    mov     $0x4f01, %ax
    mov     $MODE, %cx
    mov     $MODE_INFO, %di
    call    vbe
    cmpw    $640, MODE_INFO + 18
    jne     not_ok
    mov     $0x4f02, %ax
    mov     $MODE, %bx
    call    vbe
    mov     $0x4f03, %ax
    call    vbe
    and     $0x1ff, %bx
    cmp     $MODE, %bx
    jne     not_ok
    mov     $0x4f06, %ax
    xor     %bx, %bx
    mov     $704, %cx
    call    vbe
    cmp     $704, %bx
    jne     not_ok
    mov     $0x3c8, %dx             /* 256 colours: not by VBE, as not every BIOS has its function 09h */
    xor     %cx, %cx
    mov     %cl, %al
    out     %al, %dx
    inc     %dx
1:  mov     %cl, %al
    shr     $2, %al
    out     %al, %dx
    xor     $63, %al
    out     %al, %dx
    mov     %cl, %al
    and     $63, %al
    out     %al, %dx
    inc     %cl
    jnz     1b
    mov     $0xa000, %ax
    mov     %ax, %es
    xor     %dx, %dx
2:  mov     $0x4f05, %ax
    xor     %bx, %bx
    call    vbe
    mov     %dx, %ax
    xor     %di, %di
    mov     $0x8000, %cx
3:  stosw
    add     $0x0301, %ax
    loop    3b
    inc     %dx
    cmp     $BANKS, %dx
    jne     2b
    mov     $0x4f07, %ax
    xor     %bx, %bx
    mov     $16, %cx
    mov     $2, %dx
    call    vbe
    mov     $text, %si
    mov     $text_end - text, %cx
out:
    mov     $COM1, %dx
    rep outsb
    mov     $SHUTDOWN, %dx
    mov     $way_out, %si
    mov     $8, %cx
    rep outsb
4:  hlt
    jmp     4b

vbe:
    int     $0x10
    cmp     $0x004f, %ax
    jne     not_ok
    ret
not_ok:
    mov     $wrong, %si
    mov     $wrong_end - wrong, %cx
    jmp     out

text:
    .ascii  "bootvbe: the picture is there\r\n"
text_end:
wrong:
    .ascii  "bootvbe: not ok\r\n"
wrong_end:
way_out:
    .ascii  "Shutdown"
drive:
    .byte   0
    .org    510
    .word   0xaa55
