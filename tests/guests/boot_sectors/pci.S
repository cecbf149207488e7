#include "boot.inc"
/* The PCI BIOS: is there a bus, where is the bridge to ISA, by its ids and by its class, and what is in it. */
BEGIN
    mov     $0xb101, %ax
    int     $0x1a
    jc      2f
    cmp     $0x20494350, %edx
    jne     2f
    push    %bx
    TELL    "PCI "
    pop     %ax
    call    put_hex16
    TELL    "\r\n"
    mov     $0xb102, %ax
    mov     $0x7000, %cx
    mov     $0x8086, %dx
    xor     %si, %si
    int     $0x1a
    jc      3f
    mov     %bx, %ax
    call    put_hex16
    mov     $0xb103, %ax
    mov     $0x060100, %ecx
    xor     %si, %si
    int     $0x1a
    jc      3f
    mov     %bx, %ax
    push    %bx
    call    put_hex16
    pop     %bx
    push    %bx
    mov     $0xb10a, %ax
    xor     %di, %di
    int     $0x1a
    mov     %cx, %ax
    call    put_hex16
    pop     %bx
    push    %bx
    mov     $0xb109, %ax
    mov     $2, %di
    int     $0x1a
    mov     %cx, %ax
    call    put_hex16
    TELL    "\r\n"
    pop     %bx
    mov     $0xb102, %ax
    mov     $0x1234, %cx
    mov     $0x4321, %dx
    xor     %si, %si
    int     $0x1a
    jnc     3f
    mov     %ah, %al
    call    put_hex16
    TELL    "\r\n"
3:  jmp     4f
2:  TELL    "no PCI\r\n"
4:
END
