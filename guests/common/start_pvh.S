/* Entry of PVH guests in C: an ELF note names it. Calls guest_main(start_info), then shuts down. */
#include "macros.inc"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

    .section .note.Xen, "a", @note
    .balign 4
    .long   4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz  "Xen"
    .long   pvh_start

    .text
    .globl  _start
_start:                             /* the ELF entry: nobody who reads the note comes here */
    DEBUG_EXIT_WITH EXIT_BAD_BOOT
pvh_start:
    mov     $stack_top, %esp        /* PVH promises no stack */
    cld
    mov     %cr0, %eax
    and     $~0x10, %eax            /* all but ET, which is always set */
    cmp     $1, %eax                /* PE, and nothing else */
    jne     bad_boot
    mov     %cr4, %eax
    and     $~0x40, %eax            /* MCE is the host's where the guest reads the processor's own register (AMD-V) */
    jnz     bad_boot
    push    %ebx
    call    guest_main
    SHUT_DOWN
bad_boot:
    DEBUG_EXIT_WITH EXIT_BAD_BOOT

    .bss
    .balign 16
    .skip   16384
stack_top:
