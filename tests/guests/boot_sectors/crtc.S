#include "boot.inc"
/* What a kernel finds in the CRT controller after the BIOS: the cursor, its shape, the page, columns and rows. */
BEGIN
    mov     $0x0003, %ax
    int     $0x10
    TELL    "ab\r\nc"
    sti
    mov     0x46c, %al
    add     $2, %al                 /* SeaBIOS' serial terminal shows the last letter at a tick, not at a mode */
1:  hlt
    cmp     %al, 0x46c
    jne     1b
    mov     $0x0e, %bl              /* the cursor: 80 + 1 */
    call    read
    mov     $0x2000, %cx
    mov     $0x01, %ah
    int     $0x10
    mov     $0x0a, %bl              /* its shape: off */
    call    read
    mov     $0x0501, %ax
    int     $0x10
    mov     $0x0508, %ax            /* there is no page 8 */
    int     $0x10
    mov     $0x0c, %bl              /* the page: 0x1000 bytes on */
    call    read
    mov     $0x0001, %ax
    int     $0x10
    mov     $0x00, %bl              /* 40 columns */
    call    read
    mov     $0x0003, %ax
    int     $0x10
    mov     $0x00, %bl              /* 80 columns */
    call    read
    mov     $0x1112, %ax
    xor     %bl, %bl
    int     $0x10
    mov     $0x09, %bl              /* 8 lines a character */
    call    read
    mov     0x484, %al              /* 50 rows */
    mov     %al, (%di)
    mov     $0x0003, %ax
    int     $0x10
    mov     $values, %si
2:  lodsw
    push    %si
    call    put_hex16
    pop     %si
    cmp     $values + 12, %si
    jbe     2b
    jmp     end

/* The registers BL and BL + 1, to where DI points. */
read:
    cmpw    $0, found
    jne     2f
    movw    $values, found
2:  mov     found, %di
    mov     $0x3d4, %dx
    mov     %bl, %al
    out     %al, %dx
    inc     %dx
    in      %dx, %al
    mov     %al, 1(%di)
    dec     %dx
    lea     1(%bx), %ax
    out     %al, %dx
    inc     %dx
    in      %dx, %al
    mov     %al, (%di)
    add     $2, %di
    mov     %di, found
    ret

found:
    .word   0
values:
    .fill   7, 2, 0
END
