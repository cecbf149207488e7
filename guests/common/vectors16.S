/* Real mode: one stub per vector, 16 bytes apart; each ends in interrupt_dispatch(vector). */
    .code16
    .text
    .globl  interrupt_stubs
    .balign 16
interrupt_stubs:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, \
                 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47
    pushl   $\vector
    jmp     common
    .balign 16
    .endr

/* The guest keeps every segment register at 0 and ESP below 64 KiB, so none is saved or loaded. */
common:
    pushal
    movl    32(%esp), %eax          /* the vector, above eight registers */
    pushl   %eax
    cld
    calll   interrupt_dispatch
    addl    $4, %esp
    popal
    addl    $4, %esp                /* the vector */
    iretw
