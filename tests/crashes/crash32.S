/* Kernels in 32-bit protected mode that crash: long mode without page tables, and a jump out of the segment. */
	.code32
	.text
	.long	0x1badb002, 0, -0x1badb002	/* Multiboot */
	.globl	_start
_start:
	mov	$stack_end, %esp
	call	cause
halt:
	hlt
	jmp	halt

	.type	cause, @function
cause:
	push	%ebp
	mov	%esp, %ebp
#if CAUSE == 1	/* long mode without page tables */
	mov	$empty, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	nop
#elif CAUSE == 2	/* a null selector in SS */
	xor	%eax, %eax
	mov	%ax, %ss
#elif CAUSE == 3	/* a far jump to a selector that is none */
	ljmp	$0x1238, $halt
#elif CAUSE == 4	/* a trap without an IDT */
	int	$0x30
#endif
	pop	%ebp
	ret
	.size	cause, . - cause

	.bss
	.balign	4096
empty:	.skip	4096
stack:	.skip	4096
stack_end:
