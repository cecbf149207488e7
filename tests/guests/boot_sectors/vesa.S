#include "boot.inc"
/* VBE is asked for, and the text mode is good enough. */
BEGIN
    mov     $0x4f00, %ax
    mov     $0x8000, %di
    int     $0x10
    cmp     $0x004f, %ax
    je      1f
    TELL    "No VBE, using text mode\r\n"
    jmp     2f
1:  TELL    "VBE\r\n"
2:
END
