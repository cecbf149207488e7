"""Why a guest has come to a bad end: what the state of its CPUs and its memory tells. Pure.

`stopped_cpu` is a stopped CPU with its memory. `paging` walks page tables, `idt_and_gdt` reads the IDT and
the GDT, `undelivered_exception` finds out which exception could not be delivered, and why. `symbols` and
`lines` give addresses names, `backtrace` and `unwind` find the callers, `disassembly` shows instructions.
`explanation` puts all of that together, and `text` prints the explanation.

Nothing here trusts the guest: its memory, its tables and its image may be anything. Every loop is bounded,
and what cannot be read is left out. Nothing is imported before there is something to explain.
"""
