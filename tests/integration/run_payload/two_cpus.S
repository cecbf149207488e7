/*
 * Two CPUs: the first one starts the second one, and both read COM1's line status register COUNT times at once.
 * END says what comes then. 0: the second CPU halts for ever, the first one shuts down. 1: both halt for ever.
 * 2: the first CPU halts for ever at once, the second one shuts down after its reads.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

#ifndef COUNT
#define COUNT 5000
#endif
#define TRAMPOLINE  0x8000      /* where the second CPU starts, in real mode: vector 8 of the start-up IPI */
#define DONE        0x7000      /* set by the second CPU behind its last read */
#define APIC        0xfee00000
#define APIC_SVR    (APIC + 0xf0)
#define APIC_ICR    (APIC + 0x300)
#define OTHERS_INIT 0x000c4500  /* to all but oneself: INIT, level assert (Intel SDM volume 3, "ICR") */
#define OTHERS_SIPI 0x000c4608  /* the same: start-up, vector 8 */

MULTIBOOT_HEADER

    .text
    .globl  _start
_start:
    mov     $second, %esi
    mov     $TRAMPOLINE, %edi
    mov     $second_end - second, %ecx
    cld
    rep movsb
    movb    $0, DONE
    movl    $0x1ff, APIC_SVR
    movl    $OTHERS_INIT, APIC_ICR
    movl    $OTHERS_SIPI, APIC_ICR
#if END == 2
    HALT
#endif
    mov     $COM1 + UART_LSR, %dx
    mov     $COUNT, %ecx
1:  in      %dx, %al
    dec     %ecx
    jnz     1b
2:  cmpb    $1, DONE
    jne     2b
#if END == 1
    HALT
#endif
    SHUT_DOWN

    .code16
second:
    cli
    xor     %ax, %ax
    mov     %ax, %ds
    mov     $COM1 + UART_LSR, %dx
    mov     $COUNT, %ecx
1:  in      %dx, %al
    dec     %ecx
    jnz     1b
    movb    $1, DONE
#if END == 2
    SHUT_DOWN
#endif
2:  hlt
    jmp     2b
second_end:
