/* emulated: what a boot image finds on the drive that it was started from, what is left when emulation ends, and that it
 * begins again. Sector 1 of cylinder 0, head 1 has a word to print. */
#include "boot.inc"
    .set    PACKET, 0x9800
BEGIN
    TELL    "drive "
    mov     drive, %al
    call    put_hex8
    TELL    ", CX and DX "
    mov     $0x08, %ah
    mov     drive, %dl
    int     $0x13
    push    %dx
    mov     %cx, %ax
    call    put_hex16
    TELL    " "
    pop     %ax
    call    put_hex16
    call    read
    TELL    ", word "
    mov     0x9000, %ax
    call    put_hex16
    TELL    "\r\nextensions "
    mov     $0x4100, %ax
    mov     $0x55aa, %bx
    mov     drive, %dl
    int     $0x13
    call    put_status
    TELL    ", write "
    mov     $0x0301, %ax
    call    transfer
    call    put_status
    TELL    "\r\nend "
    mov     $0x4b00, %ax
    call    emulation
    TELL    ", of media "
    mov     PACKET + 1, %ax
    call    put_hex16
    TELL    ", then read "
    call    read
    call    put_status
    TELL    "\r\nagain "
    mov     $0x4a00, %ax
    call    emulation
    movw    $0, 0x9000
    call    read
    TELL    ", word "
    mov     0x9000, %ax
    call    put_hex16
    TELL    "\r\n"
    jmp     end

emulation:
    mov     $PACKET, %si
    mov     drive, %dl
    int     $0x13
put_status:                         /* AH */
    mov     %ah, %al
    jmp     put_hex8

read:
    mov     $0x0201, %ax
transfer:
    mov     $0x0001, %cx
    mov     $1, %dh
    mov     drive, %dl
    mov     $0x9000, %bx
    push    %ax
    xor     %ax, %ax
    mov     %ax, %es
    pop     %ax
    int     $0x13
    ret
END
