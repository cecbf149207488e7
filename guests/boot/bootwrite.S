/* bootwrite: writes to the last hard disk by cylinder, head and sector, and by LBA, and reads what is there then. */
#include "boot.inc"
    .set    WRITTEN, 0x9000         /* two sectors of numbers */
    .set    FOUND, 0xa000
BEGIN
    mov     0x475, %al              /* how many there are */
    add     $0x7f, %al
    mov     %al, drive
    TELL    "drive "
    mov     drive, %al
    call    put_hex8
    mov     $WRITTEN, %di
    mov     $512, %cx
    mov     $1, %ax
1:  stosw
    inc     %ax
    loop    1b
    mov     $0x0302, %ax            /* LBA 3 and 4, and read by LBA */
    mov     $0x0004, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $WRITTEN, %bx
    int     $0x13
    jc      refused
    movw    $FOUND, packet + 4
    mov     $0x4200, %ax
    call    by_packet
    call    compare
    TELL    ": written by sector"
    notw    WRITTEN + 1022
    movw    $WRITTEN, packet + 4    /* the other way round */
    mov     $0x4300, %ax
    call    by_packet
    mov     $0x0202, %ax
    mov     $0x0004, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $FOUND, %bx
    int     $0x13
    jc      not_ok
    call    compare
    TELL    ", by LBA"
    movl    $0x10000000, packet + 8 /* 128 GiB */
    mov     $packet, %si
    mov     $0x4300, %ax
    mov     drive, %dl
    int     $0x13
    jnc     not_ok
    TELL    ", not beyond the end\r\n"
    jmp     end

refused:
    cmp     $3, %ah
    jne     not_ok
    TELL    " is write protected\r\n"
    jmp     end
not_ok:
    TELL    ": not ok\r\n"
    jmp     end

by_packet:
    mov     $packet, %si
    mov     drive, %dl
    int     $0x13
    jc      not_ok
    ret
compare:
    mov     $WRITTEN, %si
    mov     $FOUND, %di
    mov     $512, %cx
    repe cmpsw
    jne     not_ok
    ret

    .balign 4
packet:
    .byte   16, 0
    .word   2, 0, 0
    .quad   3
END
    .org    8 * 512
