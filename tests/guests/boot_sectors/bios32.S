#include "boot.inc"
/* The PCI BIOS for 32-bit code: its directory is found by its signature, and then what the example "pci" finds. */
BEGIN
    PROTECTED 0x7c00
    mov     $0xe0000 - 16, %esi
1:  add     $16, %esi
    cmp     $0x100000, %esi
    jae     back
    cmpl    $0x5f32335f, (%esi)
    jne     1b
    xor     %eax, %eax
    mov     $15, %ecx
2:  add     (%esi,%ecx), %al
    dec     %ecx
    jns     2b
    test    %al, %al                /* the checksum */
    jnz     1b
    mov     4(%esi), %eax
    mov     %eax, entry
    mov     $0x43415024, %eax       /* a service that there is not */
    xor     %ebx, %ebx
    lcall   *entry
    mov     %al, found + 1
    mov     $0x49435024, %eax       /* "$PCI" */
    xor     %ebx, %ebx
    lcall   *entry
    mov     %al, found
    add     %ebx, %edx
    mov     %edx, entry
    mov     $0xb101, %eax
    lcall   *entry
    jc      back
    mov     %bx, found + 2
    mov     $0xb102, %eax
    mov     $0x7000, %ecx
    mov     $0x8086, %edx
    xor     %esi, %esi
    lcall   *entry
    jc      back
    mov     %bx, found + 4
    mov     $0xb10a, %eax
    xor     %edi, %edi
    lcall   *entry
    mov     %ecx, found + 6
    mov     $0xb102, %eax
    mov     $0x4321, %edx
    lcall   *entry
    jnc     back
    mov     %ah, found + 10
back:
    ljmp    $24, $back16
    .code16
back16:
    mov     $32, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    mov     %cr0, %eax
    and     $0xfe, %al
    mov     %eax, %cr0
    ljmp    $0, $real
real:
    xor     %ax, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    sti
    mov     $found, %bp
3:  mov     (%bp), %ax
    call    put_hex16
    add     $2, %bp
    cmp     $found + 12, %bp
    jne     3b
    TELL    "\r\n"
    jmp     end
entry:
    .long   0
    .word   8
found:
    .space  12
    .balign 8
table:
    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00009a000000ffff, 0x000092000000ffff
pointer:
    .word   39
    .long   table
END
