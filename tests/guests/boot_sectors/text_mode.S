#include "boot.inc"
/* AH=00h programs all registers, also if the data area has that mode already: a program may have changed them. */
BEGIN
    mov     $0x1000, %ax            /* palette register 1 */
    mov     $0x3f01, %bx
    int     $0x10
    mov     $0x1010, %ax            /* colour 1 of the DAC */
    mov     $0x01, %bx
    mov     $0x0100, %dx
    mov     $0x0203, %cx
    int     $0x10
    mov     $0x3d4, %dx             /* 50 bytes a line, from byte 0x200 on */
    mov     $0x1913, %ax
    out     %ax, %dx
    mov     $0x010c, %ax
    out     %ax, %dx
    mov     $0x3c4, %dx             /* all planes, unchained */
    mov     $0x0f02, %ax
    out     %ax, %dx
    mov     $0x3ce, %dx             /* write mode 1 */
    mov     $0x1105, %ax
    out     %ax, %dx

    mov     $0x0003, %ax
    int     $0x10

    mov     $0x1007, %ax
    mov     $0x01, %bl
    int     $0x10
    push    %bx
    mov     $0x1015, %ax
    mov     $0x01, %bx
    int     $0x10
    push    %cx
    push    %dx
    mov     $0x13, %al
    mov     $0x3d4, %dx
    call    read
    mov     $0x0c, %al
    call    read
    mov     $0x02, %al
    mov     $0x3c4, %dx
    call    read
    mov     $0x05, %al
    mov     $0x3ce, %dx
    call    read
    pop     %ax
    mov     %ah, %al                /* red; green and blue */
    call    put_hex8
    pop     %ax
    call    put_hex16
    pop     %ax
    mov     %ah, %al
    call    put_hex8
    jmp     end

/* Print register AL of the port DX. */
read:
    push    %dx
    out     %al, %dx
    inc     %dx
    in      %dx, %al
    call    put_hex8
    pop     %dx
    ret
END
