#include "boot.inc"
/* A handler of the timer tick, which counts to three; the ticks of int 1Ah move on. */
BEGIN
    movb    $0, ticks
    cli
    movw    $handler, 0x1c * 4
    movw    $0, 0x1c * 4 + 2
    sti
1:  hlt
    cmpb    $3, ticks
    jb      1b
    mov     $0, %ah
    int     $0x1a
    mov     %dx, %di
2:  mov     $0, %ah
    int     $0x1a
    cmp     %dx, %di
    je      2b
    TELL    "three ticks\r\n"
    jmp     3f
handler:
    incb    %cs:ticks
    iretw
ticks:
    .byte   0
3:
END
