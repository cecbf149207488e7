#include "boot.inc"
/* A key that waits while int 15h AH=C2h talks to the mouse comes once, and is no answer of the controller. */
BEGIN
    cli
    mov     $0xc202, %ax            /* 40 a second, which is also the code of a key */
    mov     $2, %bh
    call    ask
    mov     $0x1e, %bl
    call    key
    mov     $0xc206, %ax            /* the status ends with the rate */
    mov     $0, %bh
    call    ask
    sti
    hlt                             /* for the timer, which goes before the keyboard */
    hlt
    cli
    mov     $0xee, %al              /* the keyboard echoes it */
    out     %al, $0x60
    mov     $0xc205, %ax
    mov     $3, %bh
    call    ask
    sti
    hlt
    mov     $0x30, %bl              /* keys go on coming */
    call    key
    hlt
2:  mov     $1, %ah
    int     $0x16
    jz      end
    xor     %ah, %ah
    int     $0x16
    call    put_hex16
    jmp     2b

ask:
    int     $0x15
    mov     $'!', %al
    jc      1f
    mov     $'.', %al
1:  jmp     put

key:
    mov     $0xd2, %al              /* write the keyboard's output buffer */
    out     %al, $0x64
    mov     %bl, %al
    out     %al, $0x60
    ret
END
