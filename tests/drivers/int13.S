/* int13: what the BIOS says of each drive, to the debug console: AX, BX, CX, DX and the carry of each call; how many hard
 * disks there are, and the fixed disk parameter tables of the first two. */
#include "boot.inc"
    .set    BUFFER, 0xa000
    .set    DEBUGCON, 0xe9
BEGIN
    mov     $0x0201, %ax
    mov     $0x0002, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0x7e00, %bx
    int     $0x13
    jnc     second
    jmp     end
END

second:
    mov     $drives, %si
1:  lodsb
    cmp     $0xff, %al
    je      3f
    mov     %al, drive
    push    %si
    mov     $calls, %si
2:  lodsw
    test    %ax, %ax
    jz      4f
    push    %si
    call    one
    pop     %si
    jmp     2b
4:  pop     %si
    jmp     1b
3:  mov     0x475, %al              /* how many hard disks */
    call    show8
    les     4 * 0x41, %di
    call    table
    les     4 * 0x46, %di
    call    table
    jmp     end

table:
    mov     $'\n', %al
    out     %al, $DEBUGCON
    mov     $16, %cx
1:  mov     %es:(%di), %al
    call    show8
    inc     %di
    loop    1b
    ret

one:                                /* AX: the call */
    push    %ax
    mov     drive, %al
    call    show8
    pop     %ax
    push    %ax
    call    show16
    mov     $BUFFER, %di
    mov     $64, %cx
    mov     $0xee, %al
    rep stosb
    movw    $30, BUFFER
    pop     %ax
    push    %ax
    mov     $0x55aa, %bx
    mov     $0x0001, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $BUFFER, %si
    int     $0x13
    push    %ax
    mov     $0, %ax
    mov     %ax, %es
    sbb     %al, %al
    and     $1, %al
    mov     %al, carry
    pop     %ax
    call    show16
    mov     %bx, %ax
    call    show16
    mov     %cx, %ax
    call    show16
    mov     %dx, %ax
    call    show16
    mov     carry, %al
    call    show8
    pop     %ax
    cmp     $0x48, %ah
    jne     2f
    mov     $BUFFER, %si
    mov     $26, %cx                /* behind are parameters of a host adapter */
1:  lodsb
    call    show8
    loop    1b
2:  mov     $'\n', %al
    out     %al, $DEBUGCON
    ret

show16:
    push    %ax
    mov     %ah, %al
    call    show8
    pop     %ax
show8:
    push    %ax
    shr     $4, %al
    call    1f
    pop     %ax
1:  and     $15, %al
    cmp     $10, %al
    sbb     $0x69, %al
    das
    out     %al, $DEBUGCON
    ret

drives:
    .byte   0x80, 0x81, 0x82, 0x83, 0x84, 0xe0, 0xe1, 0xff
calls:
    .word   0x0800, 0x1500, 0x4100, 0x4800, 0
carry:
    .byte   0
    .org    1024
