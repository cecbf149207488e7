#include "boot.inc"
/* Memory, in four ways. */
BEGIN
    clc
    int     $0x12
    call    put_hex16
    TELL    "\r\n"
    mov     $0x88, %ah
    int     $0x15
    jc      2f
    call    put_hex16
    TELL    "\r\n"
    xor     %ebx, %ebx
1:  mov     $0xe820, %eax
    mov     $24, %ecx
    mov     $0x534d4150, %edx
    mov     $0x8000, %di
    int     $0x15
    jc      2f
    cmp     $0x534d4150, %eax
    jne     2f
    cmpl    $1, 0x8010
    jne     3f
    push    %ebx
    mov     0x8002, %ax
    call    put_hex16
    mov     0x8000, %ax
    call    put_hex16
    TELL    "\r\n"
    pop     %ebx
3:  test    %ebx, %ebx
    jnz     1b
2:
END
