#include "boot.inc"
/* A20 in three ways, and the test that memory does not wrap at 1 MiB. */
BEGIN
    mov     $0x2401, %ax
    int     $0x15
    jc      1f
    in      $0x92, %al
    or      $2, %al
    and     $0xfe, %al
    out     %al, $0x92
    mov     $0xffff, %ax
    mov     %ax, %es
    movw    $0x1234, 0x7dfe
    movw    $0x4321, %es:0x7e0e
    cmpw    $0x1234, 0x7dfe
    jne     1f
    mov     $0x2402, %ax
    int     $0x15
    call    put_hex8
    TELL    " A20 is on\r\n"
    jmp     2f
1:  TELL    "A20 is off\r\n"
2:
END
