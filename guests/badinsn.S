/*
 * badinsn: an instruction that KVM's emulator does not know, in ring 0. Proves the report of a KVM internal error
 * (status 10, registers, code bytes) on hosts that emulate ring 0. On hosts with VMX or SVM the processor executes
 * it, and the guest leaves through debug-exit: status 11.
 */
#include "common/macros.inc"

#define EXIT_EXECUTED 5

    .text
    .globl  _start
_start:
    PRINT   message
    popcnt  %rax, %rax
    DEBUG_EXIT_WITH EXIT_EXECUTED

    .section .rodata
message:
    .asciz  "badinsn: about to execute POPCNT in ring 0\n"
