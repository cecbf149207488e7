#include "boot.inc"
/* VBE is asked for, and the text mode is good enough. The list of modes is looked for at the address that its pointer
 * would be without segments, as kernels do that have given ES as 0. */
BEGIN
    mov     $0x4f00, %ax
    mov     $0x8000, %di
    int     $0x10
    cmp     $0x004f, %ax
    je      1f
    TELL    "No VBE, using text mode\r\n"
    jmp     2f
1:  TELL    "VBE\r\n"
    mov     0x800e, %si
    cmpw    $0x100, (%si)
    jne     2f
    TELL    "its first mode\r\n"
2:
END
