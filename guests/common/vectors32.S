/* 32-bit protected mode: one stub per vector, 16 bytes apart; each ends in interrupt_dispatch(vector). */
    .text
    .globl  interrupt_stubs
    .balign 16
interrupt_stubs:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, \
                 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47
    push    $\vector
    jmp     common
    .balign 16
    .endr

/*
 * All segments are flat and at privilege level 0, so none is saved or loaded. An exception's error code is left on
 * the stack: interrupt_dispatch does not return from one.
 */
common:
    pushal
    push    32(%esp)                /* the vector, above eight registers */
    cld
    call    interrupt_dispatch
    add     $4, %esp
    popal
    add     $4, %esp                /* the vector */
    iret
