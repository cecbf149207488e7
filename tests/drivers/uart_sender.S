/*
 * A driver that sends a text on COM1 by THRE interrupts, one byte for each. Real mode, at 0x7c00.
 *
 * An interrupt may be lost. So the driver looks for progress: if POLLS reads of LSR bring none, it disables and enables
 * the interrupt, which asks for it anew (PC16550D, 8.6 and table II). No clock decides anything here: with the same
 * faults, each run makes the same accesses.
 *
 *   NAIVE   the driver gives up where it would ask again: status 255
 *   SCRATCH the driver writes 0x5a to the scratch register in the middle of the text
 *
 * The status tells how often the driver has asked again: 2 * n + 1.
 */
#define COM1_THR 0x3f8
#define COM1_IER 0x3f9
#define COM1_IIR 0x3fa
#define COM1_MCR 0x3fc
#define COM1_LSR 0x3fd
#define COM1_SCR 0x3ff
#define POLLS 100
#define FIRST_VECTOR 0x20
#define VECTOR 0x24 /* IRQ 4 */

.macro write port, value
    mov $\port, %dx
    mov $\value, %al
    out %al, %dx
.endm

    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7000, %sp
    movw $interrupt, 4 * VECTOR
    mov %ax, 4 * VECTOR + 2
    write 0x20, 0x11
    write 0x21, FIRST_VECTOR
    write 0x21, 4
    write 0x21, 1
    write 0x21, 0xef
    write COM1_MCR, 0x0b
    write COM1_IER, 2
    sti
look:
    mov $POLLS, %cx
    mov $COM1_LSR, %dx
poll:
    in %dx, %al
    loop poll
    cmpb $0, done
    jne end
    mov next, %ax
    cmp last, %ax
    mov %ax, last
    jne look
#ifdef NAIVE
    write 0xf4, 127
#endif
    incb asked
    cli
    write COM1_IER, 0
    write COM1_IER, 2
    sti
    jmp look
end:
    mov $0xf4, %dx
    mov asked, %al
    out %al, %dx

interrupt:
    push %ax
    push %dx
    push %si
    mov $COM1_IIR, %dx
    in %dx, %al
    and $0x0f, %al
    cmp $2, %al
    jne over
    mov next, %si
#ifdef SCRATCH
    cmp $middle, %si
    jne send
    write COM1_SCR, 0x5a
send:
#endif
    lodsb
    test %al, %al
    jz finished
    mov %si, next
    mov $COM1_THR, %dx
    out %al, %dx
    jmp over
finished:
    write COM1_IER, 0
    movb $1, done
over:
    write 0x20, 0x20
    pop %si
    pop %dx
    pop %ax
    iret

next:   .word text
last:   .word 0
asked:  .byte 0
done:   .byte 0
text:   .ascii "A driver must survive an interrupt that never comes.\n"
middle: .asciz "This one asks again, and so each byte arrives.\n"
