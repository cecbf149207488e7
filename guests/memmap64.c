/* memmap64: memmap as an ELF64. Proves that the long-mode entry gets the same information, in RDI. */
#include "memmap.c"
