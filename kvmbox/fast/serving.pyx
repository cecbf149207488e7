# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, embedsignature=False
# cython: auto_pickle=False, emit_code_comments=False
"""The serving loop of a device process, compiled; the only compiled code in the jail.

It does what `jail.loop`, the ports `jail.page_port` and `jail.stream_port`, and the short half of
`DeviceServer.answer` do. It makes the system calls read and write, as they do, and allocates nothing but what
the calls of a model allocate. The models, and the answers to everything but READ, WRITE and INDEXED_READ, are
in Python.

A device process has one thread, which holds the GIL while it waits: giving it up and taking it back costs a
tenth of a microsecond for each request. A thread of the VMM (`--sandbox thread`) gives it up.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from posix.unistd cimport read, write

from kvmbox.contract.model import HostOutput, IrqLine
from kvmbox.jail.server import error_answer
from kvmbox.wire import page_layout, protocol
from kvmbox.wire.effect_kinds import BY_CLASS, EFFECT
from kvmbox.wire.effects import HOST_OUTPUT, encode_effects_of

cdef extern from "volatile.h" nogil:
    uint64_t load(const uint64_t *place)
    void store(uint64_t *place, uint64_t value)
    void fence()
    void relax()

# From the modules that define them, so that there is one source; C variables, read once.
cdef uint64_t READ = protocol.READ
cdef uint64_t INDEXED_READ = protocol.INDEXED_READ
cdef uint64_t READ_WIDE = protocol.READ_WIDE
cdef uint64_t WRITE_WIDE = protocol.WRITE_WIDE
cdef uint64_t WRITE_LIST = protocol.WRITE_LIST
cdef uint64_t WRITE_RUN = protocol.WRITE_RUN
cdef uint64_t REPLY = protocol.REPLY
cdef uint64_t OUTPUT_TAG = HOST_OUTPUT
cdef uint64_t LINE_TAG = BY_CLASS[IrqLine].tag
cdef Py_ssize_t EFFECT_BYTES = EFFECT.size
cdef uint64_t ROUTE_MASK = protocol.ROUTE_MASK
cdef Py_ssize_t HEADER_BYTES = protocol.HEADER.size
cdef Py_ssize_t FRAME_BYTES = protocol.MAX_FRAME
cdef Py_ssize_t PAGE_BYTES = page_layout.SIZE
cdef size_t REQUEST_WORD = page_layout.REQUEST_WORD
cdef size_t REPLY_WORD = page_layout.REPLY_WORD
cdef size_t DEVICE_WAITS = page_layout.DEVICE_WAITS
cdef size_t VMM_WAITS = page_layout.VMM_WAITS
cdef size_t MAY_SPIN = page_layout.MAY_SPIN
cdef uint8_t BELL = page_layout.DOORBELL[0]

cdef int SPIN_LOOKS = 3000
"""How often to look for the next request before sleeping: some 100 µs, as `page_port.SPIN_LOOKS`."""

cdef enum:
    END = 0
    REQUEST = 1
    INTERRUPTED = 2
    ERROR = 3


cdef class Port:
    """The device process's end of a link."""

    cdef bint alone
    cdef uint64_t asked[4]
    cdef bint is_frame      # else the request is no frame: `asked` means nothing

    cdef int look(self) noexcept nogil:
        """Wait for a request."""
        return END

    cdef int put(self, const uint64_t *reply, const uint8_t *payload, Py_ssize_t length) noexcept nogil:
        """Send a reply: 0, or -1 and errno."""
        return 0

    cdef bytes frame(self):
        """All of the request."""
        return b""

    cdef int leave(self) except -1:
        """Nothing is sent any more."""
        return 0

    cdef bint next_request(self) except -1:
        cdef int found
        while True:
            if self.alone:
                found = self.look()
            else:
                with nogil:
                    found = self.look()
            if found == REQUEST:
                return True
            if found == END:
                return False
            if found == ERROR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()

    cdef int reply(
        self, uint64_t first, uint64_t deadline, uint64_t value, uint64_t steady, bytes payload
    ) except -1:
        if len(payload) > FRAME_BYTES - HEADER_BYTES:
            raise ValueError(f"a payload of {len(payload)} bytes")
        return self.send(first, deadline, value, steady, payload, len(payload))

    cdef int send(
        self, uint64_t first, uint64_t deadline, uint64_t value, uint64_t steady, const uint8_t *data,
        Py_ssize_t length
    ) except -1:
        cdef uint64_t words[4]
        words[0], words[1], words[2], words[3] = first, deadline, value, <uint64_t>length << 32 | steady
        while self.put(words, data, length) < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
        return 0


cdef class PagePort(Port):
    """Shared memory; see `jail.page_port`."""

    cdef Py_buffer buffer
    cdef uint64_t *words
    cdef int doorbell
    cdef int bell_of_vmm
    cdef uint64_t seen
    cdef bint rung

    def __init__(self, memory, int doorbell, int bell_of_vmm, bint alone=True):
        PyObject_GetBuffer(memory, &self.buffer, PyBUF_SIMPLE | PyBUF_WRITABLE)
        if self.buffer.len < PAGE_BYTES:
            raise ValueError(f"a page of {self.buffer.len} bytes, {PAGE_BYTES} are needed")
        self.words = <uint64_t *>self.buffer.buf
        self.doorbell, self.bell_of_vmm, self.alone = doorbell, bell_of_vmm, alone
        self.rung = True

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)  # does nothing where there is none

    cdef int look(self) noexcept nogil:
        cdef uint64_t *words = self.words
        cdef uint64_t seen = self.seen
        cdef uint64_t first
        cdef uint8_t bells[64]
        cdef Py_ssize_t got
        cdef int looks
        while True:
            first = load(words + REQUEST_WORD)
            if first == seen and load(words + MAY_SPIN):
                for looks in range(SPIN_LOOKS):
                    first = load(words + REQUEST_WORD)
                    if first != seen:
                        break
                    relax()
            if first != seen:
                self.seen = self.asked[0] = first
                self.asked[1] = load(words + REQUEST_WORD + 1)
                self.asked[2] = load(words + REQUEST_WORD + 2)
                self.asked[3] = load(words + REQUEST_WORD + 3)
                self.is_frame = True
                return REQUEST
            store(words + DEVICE_WAITS, 1)
            fence()
            if not self.rung and load(words + VMM_WAITS):
                if write(self.bell_of_vmm, &BELL, 1) < 0:
                    return INTERRUPTED if errno == EINTR else ERROR
                self.rung = True
            if load(words + REQUEST_WORD) == seen:
                got = read(self.doorbell, bells, sizeof(bells))
                if got == 0:
                    return END
                if got < 0:
                    return INTERRUPTED if errno == EINTR else ERROR
            store(words + DEVICE_WAITS, 0)

    cdef int put(self, const uint64_t *reply, const uint8_t *payload, Py_ssize_t length) noexcept nogil:
        cdef uint64_t *words = self.words + REPLY_WORD
        if length:
            memcpy(<uint8_t *>words + HEADER_BYTES, payload, length)
        store(words + 1, reply[1])
        store(words + 2, reply[2])
        store(words + 3, reply[3])
        store(words, reply[0])
        self.rung = load(self.words + VMM_WAITS) != 0
        if self.rung and write(self.bell_of_vmm, &BELL, 1) < 0:
            return -1
        return 0

    cdef bytes frame(self):
        cdef Py_ssize_t length = self.asked[3] >> 32
        if length > PAGE_BYTES - HEADER_BYTES:
            length = PAGE_BYTES - HEADER_BYTES
        return (<char *>(self.words + REQUEST_WORD))[: HEADER_BYTES + length]

    cdef int leave(self) except -1:
        if not self.rung and write(self.bell_of_vmm, &BELL, 1) < 0:
            PyErr_SetFromErrno(OSError)
        return 0


cdef class StreamPort(Port):
    """A socket or two pipes; see `jail.stream_port`."""

    cdef int requests
    cdef int replies
    cdef Py_ssize_t size
    cdef uint8_t request[4096]
    cdef uint8_t answer[4096]

    def __init__(self, int requests, int replies, bint alone=True):
        self.requests, self.replies, self.alone = requests, replies, alone

    cdef int look(self) noexcept nogil:
        cdef Py_ssize_t got = read(self.requests, self.request, sizeof(self.request))
        if got == 0:
            return END
        if got < 0:
            return INTERRUPTED if errno == EINTR else ERROR
        self.size = got
        self.is_frame = False
        if got >= HEADER_BYTES:
            memcpy(self.asked, self.request, HEADER_BYTES)
            # Not a header that announces nothing behind it, and something behind it.
            self.is_frame = got == HEADER_BYTES or self.asked[3] >> 32 != 0
        return REQUEST

    cdef int put(self, const uint64_t *reply, const uint8_t *payload, Py_ssize_t length) noexcept nogil:
        memcpy(self.answer, reply, HEADER_BYTES)
        if length:
            memcpy(self.answer + HEADER_BYTES, payload, length)
        return -1 if write(self.replies, self.answer, HEADER_BYTES + length) < 0 else 0

    cdef bytes frame(self):
        return (<char *>self.request)[: self.size]


include "answers.pxi"


def serve(Port port, server):
    """See `jail.serving_loop.serve`."""
    cdef Answers answers = Answers(server)
    cdef uint64_t reply[4]
    cdef uint8_t body[SHORT_BODY]
    cdef Py_ssize_t length

    def frame(_words):
        return port.frame()

    while server.running:
        if not port.next_request():
            return 0
        try:
            length = answers.answer(port.asked, port.is_frame, frame, reply, body)
        except Exception as error:
            sequence = port.asked[0] >> 32 if port.is_frame else 0
            answered, deadline, value, _, payload = error_answer(sequence, error)
            port.reply(answered, deadline, value, 0, payload)
            port.leave()
            return 1
        if length >= 0:
            port.send(reply[0], reply[1], reply[2], 0, body, length)
        else:
            port.reply(reply[0], reply[1], reply[2], reply[3], answers.payload)
    return 0
