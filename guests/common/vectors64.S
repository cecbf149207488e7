/* Long mode: one stub per vector, 16 bytes apart; each ends in interrupt_dispatch(vector). */
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

/* An exception's error code is left on the stack: interrupt_dispatch does not return from one. */
common:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    mov     72(%rsp), %edi          /* the vector, above nine registers */
    sub     $8, %rsp                /* align the stack for the call */
    cld
    call    interrupt_dispatch
    add     $8, %rsp
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $8, %rsp
    iretq
