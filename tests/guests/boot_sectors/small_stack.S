#include "boot.inc"
/* Services on a stack of 34 bytes, with more below it: a character, a sector, a wait. Each register is as it was, but for results. */
BEGIN
    mov     $0x2000, %ax
    mov     %ax, %ss
    mov     $0x22, %sp
    movl    $0x12345678, %ebp
    movl    $0x9abcdef0, %edi
    movl    $0x13579bdf, %esi
    mov     $0x0201, %ax
    mov     $0x0002, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0x9000, %bx
    int     $0x13
    jc      1f
    mov     $0x86, %ah              /* 60 ms, which a handler of the timer interrupts */
    mov     $0, %cx
    mov     $60000, %dx
    int     $0x15
    jc      1f
    cmp     $0x22, %sp
    jne     1f
    cmpl    $0x12345678, %ebp
    jne     1f
    cmpl    $0x9abcdef0, %edi
    jne     1f
    cmpl    $0x13579bdf, %esi
    jne     1f
    mov     0x9000, %al
    mov     $0x0e, %ah
    mov     $7, %bx
    int     $0x10
1:  xor     %ax, %ax
    mov     %ax, %ss
    mov     $0x7c00, %sp
    TELL    "\r\n"
END
    .fill   512, 1, 'S'
