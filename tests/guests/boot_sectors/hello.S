#include "boot.inc"
BEGIN
    mov     $text, %si
1:  lodsb
    or      %al, %al
    jz      2f
    mov     $0x0e, %ah
    int     $0x10
    jmp     1b
text:
    .asciz  "Hello, World!\r\n"
2:
END
