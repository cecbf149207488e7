/*
 * The way of an application processor from its start-up IPI, in real mode, to smp_entered() in long mode. The code up
 * to smp_trampoline_end is copied to TRAMPOLINE (smp.c), and smp_boot is filled in there. It is position-independent:
 * CS is TRAMPOLINE >> 4.
 */
#define CR0_PE     0x00000001
#define CR0_PG     0x80000000
#define CR4_PAE    0x00000020
#define MSR_EFER   0xc0000080
#define EFER_LME   0x00000100
#define AT(symbol) (symbol - smp_trampoline)

    .text
    .globl  smp_trampoline, smp_trampoline_end, smp_boot, smp_entry64, smp_ipi_stub
    .balign 16
    .code16
smp_trampoline:
    cli
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   AT(boot_gdt)
    mov     %cr4, %eax
    or      $CR4_PAE, %eax
    mov     %eax, %cr4
    mov     AT(boot_cr3), %eax
    mov     %eax, %cr3
    mov     $MSR_EFER, %ecx
    rdmsr
    or      $EFER_LME, %eax
    wrmsr
    mov     %cr0, %eax
    or      $CR0_PG | CR0_PE, %eax
    mov     %eax, %cr0
    ljmpl   *AT(boot_entry)         /* at once: long mode needs a 64-bit code segment */

    /* struct smp_boot of smp.c */
    .balign 8
smp_boot:
boot_cr3:
    .long   0
boot_entry:
    .long   0                       /* smp_entry64 */
    .word   0                       /* the code selector */
boot_gdt:
    .word   0
    .long   0
smp_trampoline_end:

    .code64
smp_entry64:
    mov     smp_data_selector(%rip), %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    mov     smp_stack(%rip), %rsp
    xor     %ebp, %ebp
    cld
    call    smp_entered
1:  cli
    hlt
    jmp     1b

/* The handler of the inter-processor interrupt: smp_ipi() with the registers of a call saved. */
smp_ipi_stub:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    mov     %rsp, %rdi
    and     $-16, %rsp
    sub     $16, %rsp
    mov     %rdi, (%rsp)
    cld
    call    smp_ipi
    mov     (%rsp), %rsp
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    iretq
