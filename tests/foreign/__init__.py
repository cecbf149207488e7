"""Guests that others wrote, as they come: Debian's packages, and kvm-unit-tests from source.

What kvmbox boots is judged by guests that know nothing of kvmbox. None of them is part of this repository.

`images` finds or downloads a package, or says why not: what needs it is skipped with that reason.
`guests` is the table: how each guest is started under kvmbox and under QEMU, and the milestones by which its
output tells how far it got. `kvm_unit_tests` is the same for a built tree of kvm-unit-tests. `observe` runs a
command and watches its output. `survey` runs everything under both programs, and `page` makes the tables of
docs/guests-that-boot.md; `tools/guests_that_boot.py` is the command.
"""
