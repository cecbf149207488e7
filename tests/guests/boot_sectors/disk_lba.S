#include "boot.inc"
/* The extensions of int 13h: check, and read by a packet. */
BEGIN
    mov     $0x41, %ah
    mov     $0x55aa, %bx
    mov     drive, %dl
    int     $0x13
    jc      1f
    cmp     $0xaa55, %bx
    jne     1f
    test    $1, %cl
    jz      1f
    mov     $packet, %si
    mov     $0x42, %ah
    mov     drive, %dl
    int     $0x13
    jc      2f
    mov     $0x1000, %ax
    mov     %ax, %fs
    mov     %fs:0x200, %ax
    call    put_hex16
    TELL    " by LBA\r\n"
    jmp     3f
1:  TELL    "no extensions\r\n"
    jmp     3f
2:  TELL    "error\r\n"
    jmp     3f
    .balign 4
packet:
    .byte   16, 0
    .word   3, 0, 0x1000
    .quad   1
3:
END
    .fill   256, 2, 0x1111
    .fill   256, 2, 0x2222
    .fill   256, 2, 0x3333
