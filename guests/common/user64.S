/*
 * See user64.h. The page tables are those of the ELF64 entry, which are open to user mode. Ports are allowed by the
 * TSS's I/O map: IOPL would be shorter, but hosts that run user mode without VMX or SVM do not keep it.
 */
#define USER_DATA     (0x08 | 3)    /* selectors in the GDT below, with their RPL */
#define USER_CODE64   (0x10 | 3)
#define TSS           0x18
#define RFLAGS        0x0002        /* bit 1 reads as one; interrupts off */
#define TSS_IO_MAP_AT 102           /* where a TSS says how far into it the I/O map begins (SDM vol. 3, 8.7) */
#define TSS_SIZE      104
#define IO_MAP_SIZE   (65536 / 8 + 1) /* a bit per port, 0 to allow it, then a byte of ones */

    .text
    .globl  enter_user_mode
enter_user_mode:
    movw    $TSS_SIZE, tss + TSS_IO_MAP_AT(%rip)
    movb    $0xff, tss + TSS_SIZE + IO_MAP_SIZE - 1(%rip)
    lea     tss(%rip), %rax         /* the base in pieces, which a linker cannot make */
    mov     %ax, tss_descriptor + 2(%rip)
    shr     $16, %rax
    mov     %al, tss_descriptor + 4(%rip)
    mov     %ah, tss_descriptor + 7(%rip)
    lgdt    gdtr(%rip)
    mov     $TSS, %eax
    ltr     %ax
    mov     $USER_DATA, %eax
    mov     %eax, %ds
    mov     %eax, %es
    pop     %rcx                    /* where to go on */
    mov     %rsp, %rdx
    push    %rax
    push    %rdx
    push    $RFLAGS
    push    $USER_CODE64
    push    %rcx
    iretq

/* Writable: LTR also marks the TSS busy. */
    .data
    .balign 8
gdt:
    .quad   0
    .quad   0x00cff3000000ffff      /* user data */
    .quad   0x00affb000000ffff      /* user code, 64-bit */
tss_descriptor:                     /* its base is filled in above, below 4 GiB */
    .quad   0x0000890000000000 | (TSS_SIZE + IO_MAP_SIZE - 1) /* present, available */
    .quad   0
gdtr:
    .word   gdtr - gdt - 1
    .quad   gdt

    .bss
    .balign 16
tss:
    .skip   TSS_SIZE + IO_MAP_SIZE
