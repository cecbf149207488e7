#include "boot.inc"
/* A program's own IRQ 1 handler, which reads the scan code and goes on with the BIOS's: both get each key. */
BEGIN
    xor     %ax, %ax
    mov     %ax, %ds
    cli
    mov     4 * 9, %eax
    mov     %eax, old
    movw    $hook, 4 * 9
    mov     %ds, 4 * 9 + 2
    sti
    mov     $codes, %si
1:  lodsb
    test    %al, %al
    jz      4f
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
4:  hlt                             /* by the next tick the last byte has come */
    mov     count, %al
    call    put_hex8
5:  mov     $1, %ah
    int     $0x16
    jz      end
    xor     %ah, %ah
    int     $0x16
    call    put_hex16
    jmp     5b

hook:
    push    %ax
    in      $0x60, %al
    pop     %ax
    incb    %cs:count
    ljmpw   *%cs:old

codes:
    .byte   0x1e, 0x9e, 0x30, 0xb0, 0
count:
    .byte   0
old:
    .long   0
END
