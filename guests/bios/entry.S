/* Where the guest comes in: the reset vector, a stub for each interrupt, the timer; and the way out to the guest. */
#define SEGMENT 0xf000
#define NO_HANDLER 0xffff
#define TICKS_A_DAY 0x1800b0 /* 24 hours at 1193182 / 65536 Hz */
#define BDA 0x40
#define BDA_TICKS 0x6c
#define BDA_MIDNIGHT 0x70
#define WAIT 1                  /* and LOOK_AGAIN is 2: enum action of bios.h */
#define STACK_SIZE 2048

    .code16

/* kvmbox/firmware/builtin_bios.py reads this: a name, a version, the stubs, their size, where parameters go, and the
 * vectors that lead elsewhere than to their stub. */
    .section .header, "a"
    .ascii  "kvmbox BIOS\0"
    .word   3, vector_stubs, 6, parameters, handlers
    .globl  handlers
handlers:
    .word   0x05, return_stub       /* print screen */
    .word   0x08, timer_interrupt
    .word   0x09, keyboard_irq
    .word   0x74, mouse_irq
    .word   0x1b, return_stub       /* Ctrl-Break, timer tick, RTC alarm: for the guest to take */
    .word   0x1c, return_stub
    .word   0x4a, return_stub
    .word   0x1e, diskette_parameters /* no code */
    .word   NO_HANDLER

    .section .reset, "ax"
    ljmp    $SEGMENT, $reset
    .ascii  "11/26/26"              /* the ROM's date, at 0xffff5 */
    .byte   0
    .byte   0xfc                    /* the model: a PC AT */
    .byte   0

/* Intel 82078 data sheet and IBM PC AT Technical Reference: step rate, DMA, motor off, 512 bytes, sectors in a track,
 * gap, data length, gap to format with, fill byte, head settling, motor start. */
    .section .diskette, "a"
    .globl  diskette_parameters
diskette_parameters:
    .byte   0xaf, 0x02, 0x25, 0x02, 18, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08

    .text
    .globl  reset
reset:
    cli
    cld
    mov     $SEGMENT, %ax
    mov     %ax, %ds
    mov     %ax, %es
    mov     %ax, %ss
    mov     $stack_top, %esp
    calll   start

/* --- A stub for each vector ---------------------------------------------------------------------------- */
    .globl  vector_stubs
vector_stubs:
    .set    vector, 0
    .rept   256
    .byte   0x68, vector, 0, 0xe9   /* pushw $vector; jmp service */
    .word   service - (. + 2)
    .set    vector, vector + 1
    .endr

/* All services. The caller's registers are moved to `frame`, and back when the service is done: its stack may be
 * anywhere, and C code wants SS = DS. It may be small, too: beyond those of the interrupt itself, 10 bytes of it are
 * used, as words, which wrap where SP does. A service that waits leaves nothing behind on this side. */
    .macro  restore_registers
    mov     frame + 0, %gs
    mov     frame + 2, %fs
    mov     frame + 4, %es
    movl    frame + 8, %edi
    movl    frame + 12, %esi
    movl    frame + 16, %ebp
    movl    frame + 24, %ebx
    movl    frame + 28, %edx
    movl    frame + 32, %ecx
    movl    frame + 36, %eax
    mov     frame + 6, %ds
    .endm

service:
    pushw   $0                      /* scratch */
    pushw   $0
again:
    pushw   %ds
    pushw   $SEGMENT
    popw    %ds
    popw    frame + 6
    cld
    mov     %gs, frame + 0
    mov     %fs, frame + 2
    mov     %es, frame + 4
    movl    %edi, frame + 8
    movl    %esi, frame + 12
    movl    %ebp, frame + 16
    movl    %ebx, frame + 24
    movl    %edx, frame + 28
    movl    %ecx, frame + 32
    movl    %eax, frame + 36
    popw    frame + 40
    popw    frame + 42
    popw    frame + 44              /* vector */
    popw    frame + 46              /* IP, CS, flags */
    popw    frame + 48
    popw    frame + 50
    movl    %esp, caller
    mov     %ss, caller + 4
    mov     %ds, %ax
    mov     %ax, %es
    mov     %ax, %ss
    mov     $stack_top, %esp
    pushl   $frame
    calll   dispatch
    lssl    caller, %esp
    pushw   frame + 50
    pushw   frame + 48
    pushw   frame + 46
    cmp     $WAIT, %al
    jae     wait
    restore_registers
    iretw
wait:
    pushw   frame + 44
    pushw   frame + 42
    pushw   frame + 40
    restore_registers               /* which leaves the flags of the comparison */
    ja      1f
    sti                             /* right before HLT: an interrupt that came meanwhile has to end it */
    hlt
    jmp     2f
1:  sti
    pushw   %ax
    inb     $0x61, %al              /* an exit: KVM's instruction emulator lets interrupts in behind one */
    popw    %ax
2:  cli
    jmp     again

/* --- Interrupts that need no C ------------------------------------------------------------------------- */
    .globl  timer_interrupt
timer_interrupt:                    /* IRQ 0, 18.2 times a second: IBM PC AT Technical Reference, TIMER_INT */
    pushw   %ax
    pushw   %ds
    mov     $BDA, %ax
    mov     %ax, %ds
    incl    BDA_TICKS
    cmpl    $TICKS_A_DAY, BDA_TICKS
    jb      1f
    movl    $0, BDA_TICKS
    movb    $1, BDA_MIDNIGHT
1:  int     $0x1c
    mov     $0x20, %al              /* end of interrupt */
    outb    %al, $0x20
    popw    %ds
    popw    %ax
    iretw

keyboard_irq:                       /* IRQ 1: int 15h AH=4Fh sees the scan code in AL first, and clears CF to take it */
    pushw   %ax
    inb     $0x64, %al
    test    $0x20, %al              /* the mouse's byte */
    jnz     1f
    and     $1, %al
    cmp     %cs:key_taken, %al
    movb    $0, %cs:key_taken
    jb      1f                      /* no byte: mouse.c has taken it */
    inb     $0x60, %al              /* which keeps a byte that a guest's own handler has read before */
    mov     $0x4f, %ah
    stc
    int     $0x15
    jnc     1f
    pushfw                          /* as an interrupt: C code, which also ends it */
    pushw   %cs
    callw   vector_stubs + 6 * 9
    popw    %ax
    iretw
1:  mov     $0x20, %al
    outb    %al, $0x20
    popw    %ax
    iretw

/* IRQ 12: a byte of a packet in the EBDA, as mouse.c has it; a whole one goes to the guest's handler, as four words. */
#define EBDA_AT 0x0e
#define HANDLER 0x22
#define BYTES 0x26
#define FLAGS 0x27
#define PACKET 0x28
mouse_irq:
    pushal
    push    %ds
    push    %es
    inb     $0x64, %al
    and     $0x21, %al
    cmp     $0x21, %al
    jne     2f
    inb     $0x60, %al
    mov     $BDA, %bx
    mov     %bx, %ds
    mov     EBDA_AT, %ds
    movzbw  BYTES, %bx
    and     $7, %bx
    mov     %al, PACKET(%bx)
    mov     FLAGS, %al
    mov     %al, %ah
    and     $7, %al
    cmp     %al, %bl
    jae     1f
    incb    BYTES
    jmp     2f
1:  movb    $0, BYTES
    test    %ah, %ah                /* bit 7: there is a handler */
    jns     2f
    movzbw  PACKET, %ax
    pushw   %ax
    movzbw  PACKET + 1, %ax
    pushw   %ax
    movzbw  PACKET + 2, %ax
    pushw   %ax
    pushw   $0
    lcallw  *HANDLER
    add     $8, %sp
2:  mov     $0x20, %al
    outb    %al, $0xa0
    outb    %al, $0x20
    pop     %es
    pop     %ds
    popal
    iretw

    .globl  return_stub
return_stub:
    iretw

/* --- enter_guest(CS:IP, SS:SP, DS and ES, DL) ------------------------------------------------------------ */
    .globl  enter_guest
enter_guest:
    movl    4(%esp), %ebx
    movl    8(%esp), %ecx
    movl    12(%esp), %edi
    movl    16(%esp), %edx
    movl    %ecx, %eax
    shrl    $16, %eax
    movzwl  %cx, %ecx
    mov     %ax, %ss
    movl    %ecx, %esp
    pushw   $0x0202                 /* interrupts on */
    pushl   %ebx
    mov     %di, %ds
    mov     %di, %es
    mov     %di, %fs
    mov     %di, %gs
    movl    $0xaa55, %eax
    xorl    %ebx, %ebx
    xorl    %ecx, %ecx
    xorl    %esi, %esi
    xorl    %edi, %edi
    xorl    %ebp, %ebp
    iretw

/* --- far_fill16(segment, offset, value, count), far_move16(segment, to, from, count) ---------------------- */
    .globl  far_fill16, far_move16
far_fill16:
    pushl   %edi
    mov     8(%esp), %ax
    mov     %ax, %es
    movzwl  12(%esp), %edi
    mov     16(%esp), %ax
    mov     20(%esp), %cx
    rep stosw
    mov     %ds, %ax
    mov     %ax, %es
    popl    %edi
    retl

far_move16:
    pushl   %esi
    pushl   %edi
    mov     12(%esp), %ax
    movzwl  16(%esp), %edi
    movzwl  20(%esp), %esi
    mov     24(%esp), %cx
    mov     %ax, %es
    mov     %ax, %ds
    cmp     %di, %si
    jae     1f
    std                             /* up in memory: from the end */
    mov     %cx, %ax
    dec     %ax
    add     %ax, %ax
    add     %ax, %si
    add     %ax, %di
1:  rep movsw
    cld
    mov     %ss, %ax
    mov     %ax, %ds
    mov     %ax, %es
    popl    %edi
    popl    %esi
    retl

/* --- copy_above(to, from, words): linear addresses, through protected mode -------------------------------- */
    .globl  copy_above
copy_above:
    pushl   %esi
    pushl   %edi
    movl    12(%esp), %edi
    movl    16(%esp), %esi
    movl    20(%esp), %ecx
    sgdtl   callers_gdt
    lgdtl   own_gdt
    movl    %cr0, %eax
    or      $1, %al
    movl    %eax, %cr0
    ljmp    $8, $1f
1:  mov     $16, %dx
    mov     %dx, %ds
    mov     %dx, %es
    addr32 rep movsw
    mov     $24, %dx                /* limits as real mode has them */
    mov     %dx, %ds
    mov     %dx, %es
    and     $0xfe, %al
    movl    %eax, %cr0
    ljmp    $SEGMENT, $2f
2:  mov     %ss, %ax
    mov     %ax, %ds
    mov     %ax, %es
    lgdtl   callers_gdt
    popl    %edi
    popl    %esi
    retl

/* --- BIOS32: 32-bit code, called far, by any addresses --------------------------------------------------- */
    .code32
    .globl  bios32_directory
bios32_directory:                   /* EAX: a service; EBX, ECX, EDX: where it is, its size, its entry */
    test    %bl, %bl
    jnz     2f
    cmp     $0x49435024, %eax       /* "$PCI" */
    jne     1f
    mov     $0xcf8, %edx
    mov     $0x80000000, %eax
    outl    %eax, %dx
    inl     %dx, %eax
    cmp     $0x80000000, %eax
    jne     1f
    xor     %eax, %eax
    mov     $SEGMENT << 4, %ebx
    mov     $0x10000, %ecx
    mov     $bios32_pci, %edx
    lretl
1:  mov     $0x80, %al              /* no such service */
    lretl
2:  mov     $0x81, %al              /* no such function */
    lretl

bios32_pci:                         /* struct frame on the caller's stack, whose flags say whether it failed */
    cld
    push    %ds
    push    %ss
    pop     %ds
    pushl   $0
    pushl   $0
    pushl   $0
    pushal
    sub     $8, %esp
    push    %esp
    call    pci_service32
    add     $12, %esp
    popal
    btl     $16, 8(%esp)
    lea     12(%esp), %esp
    pop     %ds
    lretl
    .code16

    .section .rodata
    .balign 8
gdt:
    .quad   0
    .quad   0x00009b0f0000ffff      /* 08: 16-bit code at 0xf0000 */
    .quad   0x00cf93000000ffff      /* 10: all of 4 GiB */
    .quad   0x0000930f0000ffff      /* 18: data at 0xf0000 */
own_gdt:
    .word   4 * 8 - 1
    .long   0xf0000 + gdt

    .globl  parameters
    .data
    .balign 8
parameters:                         /* struct parameters of bios.h */
    .space  680 + 16 * 24

    .bss
    .balign 4
frame:                              /* struct frame of bios.h */
    .space  52
caller:
    .space  6                       /* SP, SS */
callers_gdt:
    .space  6
    .balign 16
    .space  STACK_SIZE
stack_top:
