/* Counts the messages (MSI, MSI-X) that come, and ends each: EOI of the local APIC. */
#ifndef GUESTS_MESSAGES_H
#define GUESTS_MESSAGES_H

static volatile unsigned messages;

__asm__("message_stub:\n"
        "    push %rax\n"
        "    incl messages(%rip)\n"
        "    mov $0xfee000b0, %eax\n"
        "    movl $0, (%rax)\n"
        "    pop %rax\n"
        "    iretq\n");
extern const char message_stub[];

#endif
