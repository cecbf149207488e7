#include "boot.inc"
/* Keys to the screen, until Enter. */
BEGIN
    TELL    "Type: "
1:  mov     $0x00, %ah
    int     $0x16
    cmp     $0x0d, %al
    je      2f
    call    put
    jmp     1b
2:  TELL    "\r\nthank you\r\n"
END
