/* What net.c wants of a network interface: of a virtio device over MMIO, or of an e1000. Polled. */
#ifndef GUESTS_NET_H
#define GUESTS_NET_H

#include <stdbool.h>
#include <stdint.h>

#define BUFFERS  64 /* to send, and to receive */
#define BUFFER   2048
#define PATIENCE 20000000000ull /* TSC cycles */

/* A part of a received frame. Its number is BUFFERS if none has come in time. */
struct part {
    unsigned number;
    const uint8_t *data;
    uint32_t length;
    bool last;
};

struct interface {
    bool (*find)(void);
    void (*start)(uint32_t room, uint8_t *address);  /* bytes of a receive buffer; gives the interface's address */
    uint8_t *(*frame)(unsigned number);              /* where frame `number` is made, which is sent by: */
    void (*queue)(unsigned number, uint32_t length);
    void (*flush)(void);                             /* notify once, and wait until all have gone */
    struct part (*receive)(uint64_t patience);
    void (*give)(unsigned number);                   /* the buffer of a part may be used again, from now on: */
    void (*more)(void);
};

extern const struct interface net_virtio, net_e1000;

#endif
