#include "boot.inc"
/* The mouse by int 15h AH=C2h: its interface, and a handler that is told of a packet which the controller passes on. */
BEGIN
    mov     $0xc205, %ax
    mov     $3, %bh
    call    ask
    mov     $0xc203, %ax            /* 8 counts a millimetre */
    mov     $3, %bh
    call    ask
    mov     $0xc202, %ax            /* 40 a second */
    mov     $2, %bh
    call    ask
    mov     $0xc204, %ax            /* what it is: 0 */
    call    ask
    mov     %bh, %al
    call    put_hex8
    mov     $0xc207, %ax
    mov     $handler, %bx
    int     $0x15
    mov     $0xc200, %ax
    mov     $1, %bh
    call    ask
    mov     $0xc206, %ax            /* enabled, 8 a millimetre, 40 a second */
    mov     $0, %bh
    call    ask
    mov     %bl, %al
    call    put_hex8
    mov     %cl, %al
    call    put_hex8
    mov     %dl, %al
    call    put_hex8
    TELL    "\r\n"
    mov     $packet, %si
1:  mov     $0xd3, %al              /* write the mouse's output buffer */
    out     %al, $0x64
2:  in      $0x64, %al
    test    $3, %al
    jnz     2b
    lodsb
    out     %al, $0x60
3:  in      $0x64, %al
    test    $3, %al
    jnz     3b
    cmp     $packet + 6, %si
    jb      1b
    hlt
    mov     $0xc207, %ax            /* without a handler, no packet comes */
    xor     %bx, %bx
    int     $0x15
    call    print_packet
    jmp     end

ask:
    push    %es
    int     $0x15
    pop     %es
    jnc     4f
    mov     %ah, %al
    call    put_hex8
    mov     $'!', %al
    jmp     5f
4:  mov     $'.', %al
5:  push    %bx
    call    put
    pop     %bx
    ret

/* Status, X, Y, Z on the stack; all that is seen, one packet after the other. */
handler:
    push    %bp
    mov     %sp, %bp
    push    %ax
    push    %di
    mov     %cs:seen, %di
    mov     12(%bp), %ax
    mov     %ax, %cs:(%di)
    mov     10(%bp), %al
    mov     8(%bp), %ah
    mov     %ax, %cs:2(%di)
    addw    $4, %cs:seen
    pop     %di
    pop     %ax
    pop     %bp
    lret

print_packet:
    mov     $places, %si
6:  lodsw
    push    %si
    call    put_hex16
    pop     %si
    cmp     seen, %si
    jb      6b
    ret

packet:
    .byte   0x08, 0x05, 0x02, 0x1a, 0xf6, 0x00
seen:
    .word   places
places:
    .fill   4, 2, 0
END
