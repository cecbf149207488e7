/* A real-mode image that divides by zero: its vector table is empty. */
	.code16
	.globl	_start
_start:
	xor	%cx, %cx
	mov	$0x9000, %sp
divide:
	div	%cx
halt:
	hlt
	jmp	halt
