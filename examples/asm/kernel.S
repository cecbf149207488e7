/*
 * A kernel in assembler: a Multiboot header, a line on COM1, and a status by the debug-exit port.
 * The line contains what the boot loader passed (`append` in suite.toml), so a suite can tell it from a constant.
 */
        .text
        .long   0x1badb002, 0, -0x1badb002      # the Multiboot 1 header: magic, flags, checksum

        .globl  _start
_start: mov     $stack_top, %esp
        cmp     $0x2badb002, %eax               # what a Multiboot loader leaves in EAX
        jne     fail
        mov     $greeting, %esi
        call    print
        mov     16(%ebx), %esi                  # the command line: image name, blank, arguments
        call    print
        mov     $newline, %esi
        call    print
        mov     $16, %al                        # debug-exit: the status is (16 << 1) | 1 = 33
        jmp     leave
fail:   mov     $17, %al                        # 35
leave:  out     %al, $0xf4
halt:   hlt
        jmp     halt

# Print the text at ESI on COM1, which needs no set-up here.
print:  mov     $0x3f8, %dx
next:   lodsb
        test    %al, %al
        jz      printed
        out     %al, %dx
        jmp     next
printed:
        ret

greeting: .asciz  "Hello from assembler: "
newline:  .asciz  "\n"

        .bss
        .balign 16
        .skip   4096
stack_top:
