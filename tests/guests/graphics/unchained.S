#include "graphics.inc"
/* Mode X: planes, two pages that are flipped, copies by latches, a split screen. */
    mov     $0x0013, %ax
    int     $0x10
    SET     0x3c4, 0x04, 0x06
    SET     0x3d4, 0x14, 0x00
    SET     0x3d4, 0x17, 0xe3
    mov     $0xa000, %ax
    mov     %ax, %es
    SET     0x3c4, 0x02, 0x0f
    xor     %di, %di
    mov     $0x8000, %cx
    xor     %ax, %ax
    rep     stosw
    mov     $0x01, %bl      /* each plane of the page at 0x4000 has colours of its own */
1:  mov     $0x3c4, %dx
    mov     $0x02, %al
    mov     %bl, %ah
    out     %ax, %dx
    mov     $0x4000, %di
    mov     $16000, %cx
2:  mov     %di, %ax
    add     %ah, %al
    add     %bl, %al
    stosb
    loop    2b
    shl     $1, %bl
    cmp     $0x10, %bl
    jb      1b
    HALFWAY
    SET     0x3c4, 0x02, 0x0f
    SET     0x3ce, 0x05, 0x41 /* write mode 1 */
    mov     $0x4000, %si
    mov     $0x0500, %di
    mov     $800, %cx
3:  mov     %es:(%si), %al
    mov     %al, %es:(%di)
    add     $3, %si
    inc     %di
    loop    3b
    SET     0x3ce, 0x05, 0x40
    SET     0x3d4, 0x0c, 0x40 /* the other page */
    SET     0x3d4, 0x0d, 0x02
    SET     0x3d4, 0x09, 0x01 /* line compare: 300 */
    SET     0x3d4, 0x07, 0x1f
    SET     0x3d4, 0x18, 0x2b
    DONE
