/* See irq_wait.h: the wait, the stubs that end it, and the loading of the tables. */
#include "ports.h"

    .text

/* uint64_t irq_wait(void): the stub of the interrupt returns to our caller. */
    .globl  irq_wait
irq_wait:
    sti                             /* holds interrupts off until HLT has begun: no wake-up is missed */
    hlt
    cli                             /* woken by something that was no interrupt of ours */
    jmp     irq_wait

/* One stub per vector, 32 bytes apart. Only those of IRQ 0-15 are ever entered in a run that is right. */
    .globl  irq_wait_stubs
    .balign 32
irq_wait_stubs:
    .irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, \
                 24, 25, 26, 27, 28, 29, 30, 31
    push    $\vector
    call    irq_wait_exception      /* does not return */
    .balign 32
    .endr
    .irp irq, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    rdtsc                           /* first of all: the return value is the time of arrival */
    movl    $\irq, irq_that_came
    add     $12, %esp               /* EIP, CS and EFLAGS of irq_wait, the only place with interrupts on */
    ret
    .balign 32
    .endr

/* void irq_wait_load_tables(const void *idt, uint32_t size) */
    .globl  irq_wait_load_tables
irq_wait_load_tables:
    mov     4(%esp), %eax
    mov     8(%esp), %ecx
    dec     %ecx
    sub     $8, %esp
    mov     %cx, (%esp)
    mov     %eax, 2(%esp)
    lidt    (%esp)
    add     $8, %esp
    jmp     flat_gdt_load

    .bss
    .globl  irq_that_came
    .balign 4
irq_that_came:
    .skip   4
