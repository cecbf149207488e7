/* bootservices: what the built-in BIOS answers. Sector 0 loads the rest, which prints a line for each service. */
#include "boot.inc"
BEGIN
    mov     $0x0206, %ax
    mov     $0x0002, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0x7e00, %bx
    int     $0x13
    jc      1f
    jmp     second
1:  TELL    "not ok: the disk cannot be read\r\n"
END

/* AX, and then the carry. */
tell_ax_carry:
    pushf
    call    put_hex16
    TELL    " "
    pop     %ax
    and     $1, %al
    add     $0x30, %al
    call    put
    TELL    "\r\n"
    ret

second:
    TELL    "drive "
    mov     drive, %al
    call    put_hex8
    TELL    "\r\nint 11 "
    int     $0x11
    and     $0x0030, %ax            /* the screen; the rest depends on options */
    call    put_hex16
    TELL    "\r\nint 12 "
    int     $0x12
    call    put_hex16

    TELL    "\r\nint 13/00 "
    mov     $0x0000, %ax
    mov     drive, %dl
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/03 "
    mov     $0x0301, %ax
    mov     $0x0001, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0xa000, %bx
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/01 "
    mov     $0x0100, %ax
    mov     drive, %dl
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/04 "
    mov     $0x0402, %ax
    mov     $0x0001, %cx
    mov     $0, %dh
    mov     drive, %dl
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/02 of no sector "
    mov     $0x0201, %ax
    mov     $0x0000, %cx
    mov     $0, %dh
    mov     drive, %dl
    mov     $0xa000, %bx
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/42 beyond the end "
    mov     $packet, %si
    mov     $0x4200, %ax
    mov     drive, %dl
    int     $0x13
    mov     packet + 2, %al         /* so many were moved */
    call    tell_ax_carry
    TELL    "int 13/08 "
    mov     $0x08, %ah
    mov     drive, %dl
    int     $0x13
    push    %dx
    push    %cx
    call    tell_ax_carry
    TELL    "  cylinders and sectors "
    pop     %ax
    call    put_hex16
    TELL    ", heads and drives "
    pop     %ax
    call    put_hex16
    xor     %ax, %ax
    mov     %ax, %es
    TELL    "\r\nint 13/15 "
    mov     $0x1500, %ax
    mov     drive, %dl
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/41 "
    mov     $0x4100, %ax
    mov     $0x55aa, %bx
    mov     drive, %dl
    int     $0x13
    call    tell_ax_carry
    TELL    "int 13/48 "
    mov     $0x4800, %ax
    mov     $0xa000, %si
    movw    $26, (%si)
    mov     drive, %dl
    int     $0x13
    call    tell_ax_carry
    TELL    "  sectors "
    mov     0xa010, %ax
    call    put_hex16
    TELL    "; int 41 cylinders "
    les     4 * 0x41, %bx
    mov     %es:(%bx), %ax
    call    put_hex16
    TELL    ", heads and sectors "
    les     4 * 0x41, %bx
    mov     %es:2(%bx), %ah
    mov     %es:14(%bx), %al
    call    put_hex16
    xor     %ax, %ax
    mov     %ax, %es
    TELL    "\r\nint 13 of drive 7f "
    mov     $0x0201, %ax
    mov     $0x0001, %cx
    mov     $0x007f, %dx
    mov     $0xa000, %bx
    int     $0x13
    call    tell_ax_carry

    TELL    "int 15/24 "
    mov     $0x2402, %ax
    int     $0x15
    call    tell_ax_carry
    TELL    "int 15/4f "
    mov     $0x4f1e, %ax
    int     $0x15
    call    tell_ax_carry
    TELL    "int 15/86 "
    mov     $0x8600, %ax
    mov     $1, %cx
    mov     $0, %dx
    int     $0x15
    call    tell_ax_carry
    TELL    "int 15/87 "
    mov     $0x8700, %ax
    mov     $moves, %si
    mov     $3, %cx
    int     $0x15
    call    tell_ax_carry
    mov     $0x8700, %ax
    mov     $moves_back, %si
    mov     $3, %cx
    int     $0x15
    TELL    "  moved up and down: "
    mov     0xa100, %al
    call    put
    mov     0xa102, %ax
    call    put_hex16
    TELL    "\r\nint 15/c0 "
    mov     $0xc000, %ax
    int     $0x15
    mov     %es:2(%bx), %al
    call    put_hex8
    xor     %ax, %ax
    mov     %ax, %es

    TELL    "\r\nint 10/0f "
    mov     $0x0f00, %ax
    int     $0x10
    call    put_hex16
    TELL    "\r\nint 10/08 "
    mov     $0x0200, %ax
    mov     $0, %bh
    mov     $0, %dx
    int     $0x10
    mov     $0x0800, %ax
    int     $0x10
    push    %ax
    mov     $0x0200, %ax
    mov     $24, %dh
    int     $0x10
    pop     %ax
    call    put_hex16
    TELL    "\r\nint 14/03 "
    mov     $0x0300, %ax
    mov     $0, %dx
    int     $0x14
    mov     %ah, %al
    and     $0x60, %al
    call    put_hex8
    TELL    "\r\nint 16/01 "
    mov     $0x0100, %ax
    int     $0x16
    mov     $0x30, %al
    jz      1f
    inc     %ax
1:  call    put
    TELL    "\r\nint 1a/00 "
    mov     $0, %ax
    mov     %ax, %fs
    mov     %fs:0x46c, %di
2:  mov     $0, %ah
    int     $0x1a
    cmp     %di, %dx
    je      2b
    TELL    "ticks\r\nint 1a/02 "
    mov     $0x0200, %ax
    int     $0x1a
    jc      3f
    cmp     $0x24, %ch
    jae     3f
    cmp     $0x60, %cl
    jae     3f
    TELL    "a time\r\nint 1a/04 "
    mov     $0x0400, %ax
    int     $0x1a
    jc      3f
    mov     %cx, %ax
    call    put_hex16
3:  TELL    "\r\n"
    /* Off, by APM: END stands in sector 0. */
    jmp     end

    .balign 8
/* IBM PC AT: null, this table, source, target, code, stack. */
packet:                         /* 8 sectors, of which 5 are before the end of a diskette */
    .byte   16, 0
    .word   8, 0xa000, 0
    .quad   2875
moves:
    .quad   0, 0
    .word   0xffff, sample, 0x9300, 0
    .word   0xffff, 0, 0x9320, 0    /* 2 MiB */
    .quad   0, 0
moves_back:
    .quad   0, 0
    .word   0xffff, 0, 0x9320, 0
    .word   0xffff, 0xa100, 0x9300, 0
    .quad   0, 0
sample:
    .ascii  "*"
    .byte   0
    .word   0x4321
    .word   0
    .org    7 * 512
