#include "boot.inc"
/* Keys that the controller passes on as the keyboard's: what int 16h makes of them, and a program that changes one. */
BEGIN
    mov     $codes, %si
1:  lodsb
    cmp     $0xfe, %al
    jae     4f
    mov     %al, %bl
2:  in      $0x64, %al              /* until the interrupt has taken the byte before */
    test    $3, %al
    jnz     2b
    mov     $0xd2, %al              /* write the keyboard's output buffer */
    out     %al, $0x64
3:  in      $0x64, %al
    test    $2, %al
    jnz     3b
    mov     %bl, %al
    out     %al, $0x60
    jmp     1b
4:  sub     $0xfe, %al              /* FE: by AH=00h, FF: by AH=10h */
    mov     $4, %cl
    shl     %cl, %al
    mov     %al, function
5:  hlt                             /* by the next tick the last byte has come */
6:  mov     function, %ah
    inc     %ah
    int     $0x16
    jz      7f
    mov     function, %ah
    int     $0x16
    call    put_hex16
    mov     $' ', %al
    call    put
    jmp     6b
7:  push    %si
    TELL    "\r\n"
    pop     %si
    xor     %ax, %ax
    mov     %ax, %ds
    cmp     $last, %si
    je      8f
    cmp     $changed, %si
    jne     1b
    cli
    mov     4 * 0x15, %eax
    mov     %eax, old
    movw    $intercept, 4 * 0x15
    mov     %ds, 4 * 0x15 + 2
    sti
    jmp     1b
8:  mov     $0x12, %ah
    int     $0x16
    call    put_hex16
    jmp     end

intercept:
    cmp     $0x4f, %ah
    jne     1f
    push    %bp
    mov     %sp, %bp
    orb     $1, 6(%bp)              /* CF: the key counts */
    cmp     $0x0e, %al
    jne     2f
    andb    $0xfe, 6(%bp)           /* Backspace is nobody's */
2:  cmp     $0x1e, %al
    jne     3f
    mov     $0x30, %al              /* A is B */
3:  pop     %bp
    iretw
1:  ljmpw   *%cs:old

codes:
    .byte   0x1e, 0x9e, 0x57, 0xd7, 0xe0, 0x48, 0xe0, 0xc8, 0xe0, 0x1c, 0xe0, 0x9c, 0xff
    .byte   0x3a, 0xba, 0x1e, 0x9e, 0x3a, 0xba, 0x45, 0xc5, 0x47, 0xc7, 0x45, 0xc5, 0x47, 0xc7, 0xff
    .byte   0x1d, 0x3b, 0xbb, 0x02, 0x82, 0x0e, 0x8e, 0x9d, 0x38, 0x02, 0x82, 0xb8, 0x2a, 0x0f, 0x8f, 0xaa, 0xff
    .byte   0xe0, 0x48, 0xe0, 0xc8, 0xe0, 0x1c, 0xe0, 0x9c, 0xfe
changed:
    .byte   0x1e, 0x9e, 0x0e, 0x8e, 0xe0, 0x1d, 0xff
last:
function:
    .byte   0
old:
    .long   0
END
