/* bootcd: a CD whose boot image prints what it reads from the drive that it was started from. */
#include "boot.inc"
    .set    CATALOG, 19             /* sectors of the CD */
    .set    IMAGE, 20
    .set    SECTORS, 24
BEGIN
    TELL    "drive "
    mov     drive, %al
    call    put_hex8
    TELL    ", sectors of "
    movw    $30, buffer
    mov     $0x4800, %ax
    call    ask
    mov     buffer + 24, %ax
    call    put_hex16
    TELL    ": "
    mov     buffer + 16, %ax
    call    put_hex16
    TELL    "\r\nvolume "
    mov     $0x4200, %ax
    mov     $packet, %si
    call    ask_of
    mov     $buffer + 40, %si
1:  lodsb
    cmp     $0x20, %al
    je      2f
    call    put
    jmp     1b
2:  TELL    "\r\nbooted from sector "
    mov     $0x4b01, %ax
    call    ask
    mov     buffer + 4, %ax
    call    put_hex16
    TELL    ", emulation "
    mov     buffer + 1, %al
    call    put_hex8
    TELL    ", of drive "
    mov     buffer + 2, %al
    call    put_hex8
    TELL    "\r\n"
    jmp     end

ask:
    mov     $buffer, %si
ask_of:
    mov     drive, %dl
    int     $0x13
    jc      1f
    ret
1:  TELL    "not ok\r\n"
    jmp     end

    .balign 4
packet:
    .byte   16, 0
    .word   1, buffer, 0
    .quad   16
    .set    buffer, 0x9000
END
    .org    (SECTORS - IMAGE) * 2048

/* From sector 16 on: ECMA-119, 8.2 to 8.4; El Torito Bootable CD-ROM Format Specification 1.0, 2.0 to 2.2. */
    .section .volume, "a"
volume:
    .byte   1
    .ascii  "CD001"
    .byte   1, 0
    .fill   32, 1, 0x20
    .ascii  "KVMBOX_CD                       "
    .org    80
    .long   SECTORS
    .byte   0, 0, 0, SECTORS
    .org    2048
    .byte   0
    .ascii  "CD001"
    .byte   1
    .ascii  "EL TORITO SPECIFICATION"
    .org    2048 + 0x47
    .long   CATALOG
    .org    2 * 2048
    .byte   255
    .ascii  "CD001"
    .byte   1
    .org    3 * 2048
    .byte   1, 0, 0, 0              /* it is valid, for x86 PCs; the words of these 32 bytes have the sum 0 */
    .org    3 * 2048 + 28
    .word   0x55aa, 0xaa55
    .byte   0x88, 0                 /* bootable, without emulation, at the usual segment */
    .word   0, 0, 4
    .long   IMAGE
    .org    4 * 2048
