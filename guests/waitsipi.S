/*
 * waitsipi: the only processor makes itself an application processor and sends itself an INIT. Nobody is there
 * to send the start-up IPI that it then waits for. Proves that the run does end, with status 6.
 */
#include "common/macros.inc"
#include "common/multiboot.h"

#define IA32_APIC_BASE      0x1b
#define APIC_BASE_BSP       0x100
#define APIC_SVR            0xfee000f0 /* while the APIC is off, KVM finds no APIC 0 */
#define SVR_ENABLED         0x1ff
#define APIC_ICR_LOW        0xfee00300
#define APIC_ICR_HIGH       0xfee00310
#define PATIENCE            100000
#define ICR_INIT_ASSERT     0x4500 /* INIT, physical destination, assert, edge */

MULTIBOOT_HEADER

    .text
    .globl  _start
_start:
    PRINT   message
    mov     $IA32_APIC_BASE, %ecx
    rdmsr
    and     $~APIC_BASE_BSP, %eax
    wrmsr
    movl    $SVR_ENABLED, APIC_SVR
    movl    $0, APIC_ICR_HIGH       /* to APIC 0: ourselves */
    movl    $ICR_INIT_ASSERT, APIC_ICR_LOW
    mov     $PATIENCE, %ecx         /* some hosts execute a few more instructions */
1:  dec     %ecx
    jnz     1b
    DEBUG_EXIT_WITH EXIT_PROOF_FAILED

    .section .rodata
message:
    .asciz  "waitsipi: waiting for a start-up IPI\n"
