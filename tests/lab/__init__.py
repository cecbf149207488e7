"""A machine with hardware virtualization, made of software: QEMU's TCG emulates a PC with AMD-V.

`make test-svm` boots Debian's kernel in it, with this host's file system shared read-only under an overlay in
memory, and runs this checkout's tests there: KVM has the backend svm, whatever this host's own /dev/kvm is.
docs/backends.md tells how to use it and what it has shown.

`packages` gets QEMU, a kernel and BusyBox from Debian; `modules` finds the kernel modules and their order;
`archive` packs them with the two shell scripts of `boot/` as an initramfs; `machine` runs QEMU; `variations`
names what can be different about the machine; `__main__` is the command. Nothing needs root, but installing
QEMU where it is absent.
"""
