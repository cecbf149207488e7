/*
 * The timed loops: see bench_loops.h. "n + 2" is n instructions of the body, then DEC and JNZ. For 32-bit code, and
 * for 64-bit code, where they are those of the same names: only how a function gets its arguments differs.
 */
#include "bench_loops.h"
#include "common/ports.h"

#define DOT       0x2e
#define LINE_FEED 0x0a

    .text

#ifdef __x86_64__

/* Arguments to ECX, and to RDI where a pointer follows. EBX may be used between ENTER_LOOP and LEAVE_LOOP. */
.macro ENTER_LOOP
    push    %rbx
    mov     %edi, %ecx
    mov     %rsi, %rdi
.endm
.macro LEAVE_LOOP
    pop     %rbx
    ret
.endm

/* The TSC to the stack. */
.macro START
    rdtsc
    push    %rdx
    push    %rax
.endm

/* The cycles since START to RAX, the TSC off the stack. */
.macro STOP
    rdtsc
    shl     $32, %rdx
    mov     %eax, %eax
    or      %rdx, %rax
    pop     %rcx
    pop     %rdx
    shl     $32, %rdx
    or      %rdx, %rcx
    sub     %rcx, %rax
.endm

/* RDI to room for a string instruction, below the stack. */
.macro BEGIN_STRING
    push    %rcx
    push    %rdi
    lea     -2 * STRING_LENGTH(%rsp), %rdi
.endm
.macro END_STRING
    pop     %rdi
    pop     %rcx
.endm

/* RAX can address all of memory, an operand of 32 bits cannot: it is sign-extended. */
#define MOV_FAR movabsb

#else

/* Arguments to ECX, and to EDI where a pointer follows. EBX may be used between ENTER_LOOP and LEAVE_LOOP. */
.macro ENTER_LOOP
    push    %ebx
    push    %edi
    mov     12(%esp), %ecx
    mov     16(%esp), %edi
.endm
.macro LEAVE_LOOP
    pop     %edi
    pop     %ebx
    ret
.endm

/* The TSC to the stack. */
.macro START
    rdtsc
    push    %edx
    push    %eax
.endm

/* The cycles since START to EDX:EAX, the TSC off the stack. */
.macro STOP
    rdtsc
    sub     (%esp), %eax
    sbb     4(%esp), %edx
    lea     8(%esp), %esp
.endm

/* EDI to room for a string instruction, below the stack. */
.macro BEGIN_STRING
    push    %ecx
    push    %edi
    lea     -2 * STRING_LENGTH(%esp), %edi
.endm
.macro END_STRING
    pop     %edi
    pop     %ecx
.endm

#define MOV_FAR movb

#endif

/* LOOP name, port, value: both functions around the macro body_NAME, which finds them in DX and EAX. */
.macro LOOP name, port, value
    .globl  bench_\name
    .balign 16
bench_\name:
    ENTER_LOOP
    START
    mov     $\port, %edx
    mov     $\value, %eax
    .balign 16
8:  body_\name
    dec     %ecx
    jnz     8b
    STOP
    LEAVE_LOOP
    SAMPLES \name, \port, \value
.endm

/* A sample is the body and four instructions: three MOV and the second RDTSC. */
.macro SAMPLES name, port, value
    .globl  bench_\name\()_samples
    .balign 16
bench_\name\()_samples:
    ENTER_LOOP
    cld
8:  rdtsc
    mov     %eax, %ebx
    mov     $\port, %edx
    mov     $\value, %eax
    body_\name
    rdtsc
    sub     %ebx, %eax
    stosl
    dec     %ecx
    jnz     8b
    LEAVE_LOOP
.endm

/*
 * TEXT_LOOP name, port: the same for output, by lines. The byte is in AL and in AH. A line feed and the next line
 * cost the body and 5 instructions more, once in 64 bytes. `finish` is the last instruction that is timed.
 */
.macro TEXT_LOOP name, port, finish=
    .globl  bench_\name
    .balign 16
bench_\name:
    ENTER_LOOP
    mov     %ecx, %ebx
    START
    mov     $\port, %edx
7:  mov     $(LINE_LENGTH - 1), %ecx
    mov     $(DOT | DOT << 8), %eax
    .balign 16
8:  body_\name
    dec     %ecx
    jnz     8b
    mov     $(LINE_FEED | LINE_FEED << 8), %eax
    body_\name
    dec     %ebx
    jnz     7b
    \finish
    STOP
    LEAVE_LOOP
    SAMPLES \name, \port, (DOT | DOT << 8)
.endm

/* --- What the host does without a device: what to subtract ---------------------------------------------- */

.macro body_bare                    /* 0 + 2 */
.endm
LOOP bare, 0, 0

.macro body_rdtsc_pair              /* 2 + 2 */
    rdtsc
    rdtsc
.endm
LOOP rdtsc_pair, 0, 0

/* --- Ports ---------------------------------------------------------------------------------------------- */

.macro body_inb_from_device         /* 1 + 2 */
    in      %dx, %al
.endm
LOOP inb_from_device, (COM1 + UART_LSR), 0

.macro body_outb_to_device          /* 1 + 2 */
    out     %al, %dx
.endm
LOOP outb_to_device, (COM1 + UART_SCR), 0x5a

.macro body_inl_from_device         /* 1 + 2 */
    in      %dx, %eax
.endm
LOOP inl_from_device, PORT_LONG, 0

.macro body_outl_to_device          /* 1 + 2 */
    out     %eax, %dx
.endm
LOOP outl_to_device, PORT_LONG, VALUE_LONG

.macro body_insb_from_device        /* 7 + 2 */
    BEGIN_STRING
    mov     $STRING_LENGTH, %ecx
    rep insb
    END_STRING
.endm
LOOP insb_from_device, (COM1 + UART_LSR), 0

.macro body_inb_unclaimed           /* 1 + 2 */
    in      %dx, %al
.endm
LOOP inb_unclaimed, PORT_UNCLAIMED, 0

.macro body_outb_unclaimed          /* 1 + 2 */
    out     %al, %dx
.endm
LOOP outb_unclaimed, PORT_UNCLAIMED, 0x5a

.macro body_rtc_read                /* 3 + 2 */
    mov     $RTC_REGISTER, %al
    out     %al, $RTC_INDEX
    in      $RTC_DATA, %al
.endm
LOOP rtc_read, 0, 0

.macro body_rtc_two_reads           /* 3 + 2: as many as rtc_read, but both accesses need an answer */
    mov     $RTC_REGISTER, %al
    in      $RTC_DATA, %al
    in      $RTC_DATA, %al
.endm
LOOP rtc_two_reads, 0, 0

.macro body_pit_read                /* 1 + 2 */
    in      $PIT_COUNTER0, %al
.endm
LOOP pit_read, 0, 0

.macro body_post                    /* 1 + 2 */
    out     %al, $POST
.endm
LOOP post, 0, 0x5a

/* --- Memory-mapped -------------------------------------------------------------------------------------- */

.macro body_mov_from_device         /* 1 + 2 */
    MOV_FAR MMIO_UART + UART_LSR, %al
.endm
LOOP mov_from_device, 0, 0

.macro body_mov_to_device           /* 1 + 2 */
    MOV_FAR %al, MMIO_UART + UART_SCR
.endm
LOOP mov_to_device, 0, 0x5a

/* --- Console output ------------------------------------------------------------------------------------- */

.macro body_thr_polled              /* 7 + 2, and 3 more for each time that THR is found full */
    mov     $(COM1 + UART_LSR), %edx
1:  in      %dx, %al
    test    $LSR_THRE, %al
    jz      1b
    mov     $(COM1 + UART_THR), %edx
    mov     %ah, %al
    out     %al, %dx
.endm
TEXT_LOOP thr_polled, (COM1 + UART_THR)

.macro body_thr_only                /* 1 + 2 */
    out     %al, %dx
.endm
TEXT_LOOP thr_only, (COM1 + UART_THR)

/*
 * 1 + 2. A host may collect writes and hand them over in batches, so the loop ends with one read: only then has the
 * device got them all, and what COM1 sends next cannot overtake them.
 */
.macro body_debugcon
    out     %al, %dx
.endm
.macro read_debugcon
    in      %dx, %al
.endm
TEXT_LOOP debugcon, DEBUGCON, read_debugcon

#ifdef __i386__

/*
 * Interrupt-driven: per byte 2 + 2 instructions (LODSB, OUT); per FIFO of 16 bytes 20 more, of them 7 to wait and
 * to arrive (CALL to RET in irq_wait32.S) and 9 to find out that the transmitter asks; per line 4 more.
 */
    .globl  bench_thr_irq
    .balign 16
bench_thr_irq:
    push    %ebx
    push    %esi
    push    %edi
    mov     16(%esp), %edi
    cld
    START
    mov     $(COM1 + UART_IER), %edx
    mov     $IER_THRE, %al
    out     %al, %dx                /* THR is empty: the first interrupt is asked for at once */
7:  mov     $line, %esi
    mov     $(LINE_LENGTH / 16), %ebx
6:  call    irq_wait
    cmpl    $COM1_IRQ, irq_that_came
    jne     6b                      /* spurious: the 8259A wants no end of it */
    mov     $(COM1 + UART_IIR), %edx
    in      %dx, %al                /* this acknowledges it to the UART */
    and     $IIR_MASK, %al
    cmp     $IIR_THRE, %al
    jne     5f
    mov     $(COM1 + UART_THR), %edx
    mov     $16, %ecx
8:  lodsb
    out     %al, %dx
    dec     %ecx
    jnz     8b
    mov     $PIC_EOI, %al
    out     %al, $PIC1_COMMAND
    dec     %ebx
    jnz     6b
    dec     %edi
    jnz     7b
    mov     $(COM1 + UART_IER), %edx
    xor     %eax, %eax
    out     %al, %dx
    STOP
    pop     %edi
    pop     %esi
    pop     %ebx
    ret
5:  mov     $PIC_EOI, %al           /* a request that the 8259A remembered and the UART no longer makes */
    out     %al, $PIC1_COMMAND
    jmp     6b

    .section .rodata
line:
    .fill   LINE_LENGTH - 1, 1, DOT
    .byte   LINE_FEED

#endif
