/*
 * bench64: bench as an ELF64, at privilege level 3. Where ring 0 is emulated, this is what runs natively there, so the
 * two together tell the cost of an exit from that of the emulator. Without the tests that need interrupts, and without
 * "hold": HLT is privileged. Only kvmbox boots it: QEMU takes a 64-bit ELF in another way.
 */
#include "bench.c"
