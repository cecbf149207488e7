#include "boot.inc"
/* Load more sectors by cylinder, head and sector, and look at the first words of two of them. */
BEGIN
    mov     $0x02, %ah
    mov     $4, %al
    mov     $0x0002, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0x9000, %bx
    int     $0x13
    jc      1f
    cmp     $4, %al
    jne     1f
    mov     0x9000, %ax
    call    put_hex16
    TELL    " "
    mov     0x9000 + 512, %ax
    call    put_hex16
    TELL    "\r\n"
    jmp     2f
1:  TELL    "Disk read error!\r\n"
2:
END
    .fill   256, 2, 0xdada
    .fill   256, 2, 0xface
    .fill   1024, 1, 0
