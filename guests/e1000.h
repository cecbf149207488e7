/* An Intel 82540EM, and PCI as far as it takes to find one. */
#ifndef GUESTS_E1000_H
#define GUESTS_E1000_H

#include "net.h"
#include "common/io.h"

#define PCI_ADDRESS 0xcf8
#define PCI_DATA    0xcfc
#define PCI_ENABLE  0x80000000u

#define CTRL   0x0000
#define STATUS 0x0008
#define EECD   0x0010
#define EERD   0x0014
#define MDIC   0x0020
#define ICR    0x00c0
#define ICS    0x00c8
#define IMS    0x00d0
#define IMC    0x00d8
#define RCTL   0x0100
#define TCTL   0x0400
#define TIPG   0x0410
#define RDBAL  0x2800 /* and so on; TDBAL is the same for sending */
#define TDBAL  0x3800
#define BAH    0x04
#define LEN    0x08
#define HEAD   0x10
#define TAIL   0x18
#define GPRC   0x4074
#define GPTC   0x4080
#define MTA    0x5200
#define RAL    0x5400
#define RAH    0x5404

#define CTRL_ASDE   0x20
#define CTRL_SLU    0x40
#define CTRL_RST    (1u << 26)
#define EN          2
#define TCTL_PSP    8
#define RCTL_UPE    0x08
#define RCTL_LPE    0x20
#define RCTL_MPE    0x10
#define RCTL_BAM    0x8000
#define RCTL_2048   0
#define RCTL_256    (3u << 16)
#define RCTL_8192   (2u << 16 | 1u << 25)
#define RCTL_LBM    (3u << 6)
#define PHY_LOOPBACK 0x4140
#define RCTL_SECRC  (1u << 26)
#define CMD_EOP     (1u << 24)
#define CMD_IFCS    (1u << 25)
#define CMD_IC      (1u << 26) /* of a data descriptor: TSE */
#define CMD_RS      (1u << 27)
#define CMD_DEXT    (1u << 29)
#define DATA_TYPE   (1u << 20)
#define DD          1
#define EOP         2
#define TXDW        0x01
#define RXT0        0x80

#define E1000_RING 128

struct e1000_descriptor {
    uint32_t address, high, length, status; /* the length has the command in its high byte */
};

extern uint32_t e1000_registers;
extern unsigned e1000_function, e1000_send_tail;
extern struct e1000_descriptor e1000_received[E1000_RING], e1000_sent[E1000_RING];

static inline volatile uint32_t *e1000(unsigned offset)
{
    return (volatile uint32_t *)(uintptr_t)(e1000_registers + offset);
}

static inline uint32_t pci_read(unsigned function, unsigned offset)
{
    outl(PCI_ADDRESS, PCI_ENABLE | function << 8 | offset);
    return inl(PCI_DATA);
}

static inline void pci_write(unsigned function, unsigned offset, uint32_t value)
{
    outl(PCI_ADDRESS, PCI_ENABLE | function << 8 | offset);
    outl(PCI_DATA, value);
}

#endif
