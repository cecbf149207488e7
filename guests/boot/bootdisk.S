/* bootdisk: sectors by cylinder, head and sector, across a head, and by the extensions. Each sector has its number. */
#include "boot.inc"
    .set    WANTED, 70              /* behind the first track of 63 sectors */
BEGIN
    mov     $0x0201, %ax            /* the same sector in two ways: LBA 1 */
    mov     $0x0002, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0x9000, %bx
    int     $0x13
    jc      1f
    cmpw    $1, 0x9000
    jne     1f
    TELL    "ok by cylinder, head and sector\r\n"
    mov     $0x0201, %ax            /* cylinder 0, head 1 of a hard disk */
    mov     $WANTED - 63 + 1, %cx
    mov     $1, %dh
    mov     drive, %dl
    mov     $0x9000, %bx
    int     $0x13
    jc      1f
    cmpw    $WANTED, 0x9000
    jne     1f
    TELL    "ok on the other head\r\n"
    mov     $packet, %si
    mov     $0x4200, %ax
    mov     drive, %dl
    int     $0x13
    jc      1f
    cmpw    $WANTED - 1, 0x9000
    jne     1f
    cmpw    $WANTED, 0x9200
    jne     1f
    TELL    "ok by the extensions\r\n"
    jmp     end
1:  TELL    "not ok\r\n"
    jmp     end
    .balign 4
packet:
    .byte   16, 0
    .word   2, 0x9000, 0
    .quad   WANTED - 1
END
    .set    number, 1
    .rept   WANTED
    .fill   256, 2, number
    .set    number, number + 1
    .endr
