/* Ports, registers and bits that the guests use, by their datasheet names. For C and for assembly. */
#ifndef GUESTS_PORTS_H
#define GUESTS_PORTS_H

/* 16550A UART (PC16550D, table II): offsets from the first port, or bytes from the first address. */
#define COM1          0x3f8
#define COM1_IRQ      4
#define MMIO_UART     0xd0000000
#define MMIO_UART_IRQ 5
#define UART_RBR      0 /* read */
#define UART_THR      0 /* write */
#define UART_DLL      0 /* with LCR_DLAB */
#define UART_IER      1
#define UART_DLM      1 /* with LCR_DLAB */
#define UART_IIR      2 /* read */
#define UART_FCR      2 /* write */
#define UART_LCR      3
#define UART_MCR      4
#define UART_LSR      5
#define UART_MSR      6
#define UART_SCR      7

#define IER_RDA       0x01 /* received data available, and character time-out */
#define IER_THRE      0x02
#define IIR_MASK      0x0f
#define IIR_NONE      0x01
#define IIR_THRE      0x02
#define IIR_RDA       0x04
#define IIR_TIMEOUT   0x0c
#define FCR_ENABLE    0x01
#define FCR_CLEAR     0x06 /* both FIFOs */
#define FCR_TRIGGER_4 0x40
#define LCR_8N1       0x03
#define LCR_DLAB      0x80
#define MCR_DTR       0x01
#define MCR_RTS       0x02
#define MCR_OUT2      0x08 /* the PC gates the interrupt line with it */
#define MCR_LOOP      0x10
#define LSR_DR        0x01
#define LSR_THRE      0x20

/* 8254 timer. */
#define PIT_COUNTER0  0x40
#define PIT_CONTROL   0x43
#define PIT_IRQ       0
#define PIT_HZ        1193182
#define PIT_MODE0     0x30 /* counter 0, low byte then high byte, interrupt on terminal count, binary */
#define PIT_MODE2     0x34 /* the same, rate generator */

/* MC146818A real-time clock. */
#define RTC_INDEX         0x70
#define RTC_DATA          0x71
#define RTC_IRQ           8
#define RTC_SECONDS       0x00
#define RTC_SECONDS_ALARM 0x01
#define RTC_MINUTES       0x02
#define RTC_MINUTES_ALARM 0x03
#define RTC_HOURS         0x04
#define RTC_HOURS_ALARM   0x05
#define RTC_DAY           0x07
#define RTC_MONTH         0x08
#define RTC_YEAR          0x09
#define RTC_A             0x0a
#define RTC_B             0x0b
#define RTC_C             0x0c
#define RTC_CENTURY       0x32
#define RTC_DONT_CARE     0xff /* in an alarm register */
#define RTC_A_UIP         0x80
#define RTC_A_DIVIDER     0x20 /* 32.768 kHz; the low nibble is the periodic rate */
#define RTC_B_PIE         0x40
#define RTC_B_AIE         0x20
#define RTC_B_UIE         0x10
#define RTC_B_BINARY      0x04
#define RTC_B_24H         0x02
#define RTC_B_DSE         0x01
#define RTC_C_IRQF        0x80
#define RTC_C_PF          0x40
#define RTC_C_AF          0x20
#define RTC_C_UF          0x10
#define RTC_HOURS_PM      0x80

/* 8259A interrupt controllers. */
#define PIC1_COMMAND  0x20
#define PIC1_DATA     0x21
#define PIC2_COMMAND  0xa0
#define PIC2_DATA     0xa1
#define PIC_ICW1      0x11 /* edge triggered, cascaded, ICW4 follows */
#define PIC_ICW4_8086 0x01
#define PIC_EOI       0x20
#define PIC_READ_ISR  0x0b
#define PIC_CASCADE   2
#define IRQ_VECTOR    0x20 /* where the guests put IRQ 0 */

/* The power management timer (ACPI 6.5, 4.8.2.1), where QEMU's Q35 has it. It counts 24 bits. */
#define PM_TIMER       0x608
#define PM_TIMER_HERTZ 3579545
#define PM_TIMER_BITS  0xffffff

/* Output without a device behind it that could be busy. */
#define POST     0x80
#define DEBUGCON 0xe9

/* What the built-in BIOS has behind it, in kvmbox alone. */
#define BIOS_REPORT_AT   0x9200 /* CS << 16 | IP */
#define BIOS_REPORT      0x9204 /* kind << 24 | vector << 16 | AX */
#define BIOS_TEXT        0x9208 /* a byte for the console */
#define BOOT_DISK_LBA     0x9210
#define BOOT_DISK_COUNT   0x9214
#define BOOT_DISK_ADDRESS 0x9218
#define BOOT_DISK_COMMAND 0x921c
#define BOOT_DISK_STATUS  0x9220
#define BOOT_DISK_LBA_HIGH 0x9228
#define BOOT_DISK_DRIVE   0x9230
#define BOOT_DISK_READ    1 /* a command */
#define BOOT_DISK_WRITE   2
#define BOOT_DISK_BUSY    1 /* a status; 2 and up: done, with its result */
#define BOOT_DISK_DONE    2
#define BOOT_DISK_PROTECTED 16

/* The first ATA channel (ATA/ATAPI-6). */
#define ATA_DATA     0x1f0
#define ATA_COUNT    0x1f2
#define ATA_LBA_LOW  0x1f3
#define ATA_LBA_MID  0x1f4
#define ATA_LBA_HIGH 0x1f5
#define ATA_DEVICE   0x1f6
#define ATA_STATUS   0x1f7 /* read */
#define ATA_COMMAND  0x1f7 /* write */
#define ATA_BSY      0x80
#define ATA_DRQ      0x08
#define ATA_ERR      0x01
#define ATA_READ          0x20
#define ATA_WRITE         0x30
#define ATA_READ_MULTIPLE 0xc4
#define ATA_SET_MULTIPLE  0xc6
#define ATA_FLUSH         0xe7
#define ATA_IDENTIFY      0xec

/* Keyboard controller. */
#define KEYBOARD_IRQ 1
#define MOUSE_IRQ    12
#define I8042_DATA   0x60
#define I8042_STATUS 0x64 /* read */
#define ST_OBF       0x01

/* Ways out. */
#define DEBUG_EXIT     0xf4   /* write V: the run ends with status ((V << 1) | 1) & 0xff */
#define SHUTDOWN       0x8900 /* write the bytes "Shutdown": the run ends with status 0 */
#define I8042_COMMAND  0x64
#define I8042_RESET    0xfe
#define SYSTEM_CONTROL 0x92
#define FAST_RESET     0x01

/* What the guests write to DEBUG_EXIT when something is wrong (README.md has the statuses). */
#define EXIT_PROOF_FAILED 1
#define EXIT_EXCEPTION    2
#define EXIT_BAD_BOOT     3

#endif
