/* bootlong: a boot sector that goes from real mode to protected mode and on to long mode, and prints on its way. */
#include "../common/ports.h"
#include "boot.inc"
    .set    TABLES, 0x10000         /* PML4, PDPT, one page directory */
    .set    LARGE, 0x83             /* present, writable, 2 MiB */
BEGIN
    TELL    "16 bits\r\n"
    cli
    lgdtl   pointer
    mov     %cr0, %eax
    or      $1, %al
    mov     %eax, %cr0
    ljmp    $0x08, $protected

    .code32
protected:
    mov     $0x10, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    mov     $text32, %esi
    mov     $COM1, %edx
    mov     $9, %ecx
    rep outsb
    xor     %eax, %eax
    mov     $TABLES, %edi
    mov     $3 * 1024, %ecx
    rep stosl
    movl    $TABLES + 0x1007, TABLES
    movl    $TABLES + 0x2007, TABLES + 0x1000
    movl    $LARGE + 4, TABLES + 0x2000 /* the first 2 MiB to themselves, for user mode, too */
    mov     $TABLES, %eax
    mov     %eax, %cr3
    mov     %cr4, %eax
    or      $0x20, %al              /* PAE */
    mov     %eax, %cr4
    mov     $0xc0000080, %ecx       /* EFER.LME */
    rdmsr
    or      $0x100, %eax
    wrmsr
    mov     %cr0, %eax
    or      $0x80000000, %eax
    mov     %eax, %cr0
    ljmp    $0x18, $long_mode

    .code64
long_mode:
    mov     $text64, %esi
    mov     $COM1, %edx
    mov     $9, %ecx
    rep outsb
    mov     $SHUTDOWN, %edx
    mov     $way_out, %esi
    mov     $8, %ecx
    rep outsb
1:  hlt
    jmp     1b

text32:
    .ascii  "32 bits\r\n"
text64:
    .ascii  "64 bits\r\n"
way_out:
    .ascii  "Shutdown"
    .balign 8
table:
    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
pointer:
    .word   31
    .long   table
    .code16
END
