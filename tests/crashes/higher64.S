/*
 * A kernel in the higher half that crashes. Linked at 0xffffffff80000000 and above, loaded at 1 MiB. Its page
 * tables map themselves, too, as those of many kernels do.
 */
	.section .boot, "ax"
	.globl	_start
_start:
	mov	$pml4, %edi
	mov	%cr3, %rax
	mov	(%rax), %rax			/* the identity map that an ELF64 entry gets */
	mov	%rax, (%rdi)
	lea	3(%rdi), %rax
	mov	%rax, 510*8(%rdi)		/* the tables themselves */
	movq	$pdpt + 3, 511*8(%rdi)
	movq	$pd + 3, pdpt + 510*8
	movq	$0x83, pd			/* 2 MiB from 0 on */
	mov	%rdi, %cr3
	movabs	$main, %rax
	jmp	*%rax

	.balign	4096
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	4096

	.text
	.globl	main
	.type	main, @function
main:
	movabs	$stack_end, %rsp
	push	%rbp
	mov	%rsp, %rbp
	mov	$0x1122334455667788, %rbx
	call	panic
	.size	main, . - main

	.type	panic, @function
panic:
	push	%rbp
	mov	%rsp, %rbp
	ud2
	.size	panic, . - panic

	.section .rodata
	.globl	message
	.type	message, @object
message:
	.asciz	"out of memory"
	.size	message, . - message

	.bss
	.balign	16
stack:	.skip	4096
stack_end:
