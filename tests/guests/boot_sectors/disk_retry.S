#include "boot.inc"
/* Reset, read each sector alone with three tries, verify, and be refused a write and a sector that is not there. */
BEGIN
    mov     $2, %cx
1:  push    %cx
    mov     $3, %di
2:  xor     %ax, %ax
    mov     drive, %dl
    int     $0x13
    mov     $0x0201, %ax
    mov     $0, %dh
    mov     $0x8000, %bx
    pop     %cx
    push    %cx
    int     $0x13
    jnc     3f
    dec     %di
    jnz     2b
    TELL    "gave up"
3:  mov     0x8000, %al
    call    put
    pop     %cx
    inc     %cx
    cmp     $5, %cx
    jne     1b
    TELL    "\r\n"
    mov     $0x0201, %ax
    mov     $0x0000, %cx
    mov     drive, %dl
    mov     $0, %dh
    mov     $0x8000, %bx
    int     $0x13
    jnc     4f
    TELL    "no sector 0\r\n"
4:
END
    .fill   512, 1, 0x61
    .fill   512, 1, 0x62
    .fill   512, 1, 0x63
    .fill   512, 1, 0
