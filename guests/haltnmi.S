/*
 * haltnmi: HLT with interrupts off, ended by the RTC, whose line the I/O APIC delivers as NMI. Proves that
 * kvmbox does not take it for halted for ever: the periodic interrupt comes half a second after the halt.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

/* 82093AA: an index and a data register; two 32-bit registers per redirection entry. */
#define IOREGSEL            0xfec00000
#define IOWIN               0xfec00010
#define IOREDTBL            0x10
#define DELIVER_NMI         0x400 /* edge, high, physical destination, not masked */

/* Of the local APIC (Intel SDM volume 3, "Spurious Interrupt"): while it is off, KVM finds no APIC 0. */
#define APIC_SVR            0xfee000f0
#define SVR_ENABLED         0x1ff

#define RTC_A_TWICE_A_SECOND (RTC_A_DIVIDER | 0x0f)

MULTIBOOT_HEADER

.macro RTC_WRITE register, value
    mov     $\register, %al
    out     %al, $RTC_INDEX
    mov     $(\value), %al
    out     %al, $RTC_DATA
.endm

    .text
    .globl  _start
_start:
    mov     $stack, %esp
    lgdt    gdtr
    ljmp    $0x08, $1f
1:  mov     $0x10, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    mov     $nmi, %eax              /* gate 2: an interrupt gate to `nmi` */
    mov     %ax, gate
    shr     $16, %eax
    mov     %ax, gate + 6
    lidt    idtr

    movl    $SVR_ENABLED, APIC_SVR
    movl    $(IOREDTBL + 2 * RTC_IRQ + 1), IOREGSEL
    movl    $0, IOWIN               /* to APIC 0 */
    movl    $(IOREDTBL + 2 * RTC_IRQ), IOREGSEL
    movl    $DELIVER_NMI, IOWIN

    PRINT   message
    RTC_WRITE RTC_A, RTC_A_TWICE_A_SECOND
    RTC_WRITE RTC_B, RTC_B_PIE | RTC_B_24H
    mov     $RTC_C, %al             /* whatever is pending is taken: the line can rise */
    out     %al, $RTC_INDEX
    in      $RTC_DATA, %al
    HALT

nmi:
    PRINT   woken
    SHUT_DOWN

    .section .rodata
message:
    .asciz  "haltnmi: halting with interrupts off\n"
woken:
    .asciz  "haltnmi: woken by an NMI\n"

    .data
    .balign 8
gdt:
    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff /* null, code, data: flat */
gdtr:
    .word   gdtr - gdt - 1
    .long   gdt
    .balign 8
idt:
    .quad   0, 0
gate:
    .word   0, 0x08, 0x8e00, 0
idtr:
    .word   idtr - idt - 1
    .long   idt

    .bss
    .skip   256
stack:
