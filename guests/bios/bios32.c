/* The PCI BIOS for 32-bit code, as 32-bit code. */
#define BIOS32
#define pci_service pci_service32
#include "pci.c"
