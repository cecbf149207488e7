# cython: language_level=3, boundscheck=False, wraparound=False, binding=False, embedsignature=False
# cython: auto_pickle=False, emit_code_comments=False
"""The VMM's hot path, compiled: from KVM_RUN to the reply of a device process and back, without the GIL.

Each class here is the compiled half of a class in pure Python, and comes before it among the bases of a
`Compiled…` class. The fields that both halves use are C fields; Python reaches them as attributes. The
compiled half handles what happens all the time: a routed exit, and a reply that changes nothing but the value
which the guest reads. Whatever else happens, Python handles it, with the code that it has without this module.

Three rules hold everywhere:

- What a device process can change is loaded once, into a variable, by one atomic load; see `volatile.h`. The
  variable is checked and used.
- Integers of C wrap. So every value is unsigned and of 64 bits, is compared and never added to another one,
  but for the sequence number, which wraps on purpose, and for the time, which is a difference.
- A thread without the GIL holds no reference of its own. The objects that it uses belong to its loop or to the
  channel whose lock it holds, and neither drops them before.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport PyObject
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport read, write

import ctypes
import time

from kvmbox.contract.model import MOVED, PULSES, HostOutput, IrqLine
from kvmbox.wire import page_layout, protocol
from kvmbox.wire.effect_kinds import BY_CLASS, EFFECT
from kvmbox.wire.effects import HOST_OUTPUT, encode_effects_of

cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock)
    int PyThread_acquire_lock(PyThread_type_lock, int)
    void PyThread_release_lock(PyThread_type_lock)
    unsigned long PyThread_get_thread_ident()
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long microseconds, int interruptible)

cdef extern from "Python.h" nogil:
    Py_ssize_t PyList_GET_SIZE(PyObject *)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int descriptor, unsigned long request, unsigned long argument)

cdef extern from "<sys/timerfd.h>" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int TFD_TIMER_ABSTIME
    int timerfd_settime(int descriptor, int flags, const itimerspec *new, itimerspec *old)

cdef extern from "<sched.h>" nogil:
    ctypedef struct cpu_set_t:
        pass
    int CPU_SETSIZE
    int CPU_COUNT(const cpu_set_t *mask)
    bint CPU_ISSET(size_t cpu, const cpu_set_t *mask)
    void CPU_CLR(size_t cpu, cpu_set_t *mask)
    int sched_getaffinity(int thread, size_t size, cpu_set_t *mask)
    int sched_setaffinity(int thread, size_t size, const cpu_set_t *mask)

cdef extern from "volatile.h" nogil:
    uint64_t load(const uint64_t *place)
    void store(uint64_t *place, uint64_t value)
    void store_half(uint32_t *place, uint32_t value)
    uint16_t load_short(const uint16_t *place)
    void store_short(uint16_t *place, uint16_t value)
    void copy_once(void *target, const void *source, size_t size)
    void fence()
    void relax()

# From the modules that define them, so that there is one source; C variables, read once.
cdef uint64_t REPLY = protocol.REPLY
cdef uint64_t ROUTE_MASK = protocol.ROUTE_MASK
cdef uint64_t READ = protocol.READ
cdef uint64_t WRITE = protocol.WRITE
cdef uint64_t INDEXED_READ = protocol.INDEXED_READ
cdef uint64_t READ_WIDE = protocol.READ_WIDE
cdef uint64_t COMPLETE = protocol.COMPLETE
cdef uint64_t COMPLETED_READ = protocol.COMPLETED_READ
cdef uint64_t WRITE_WIDE = protocol.WRITE_WIDE
cdef uint64_t WRITE_LIST = protocol.WRITE_LIST
cdef uint64_t WRITE_RUN = protocol.WRITE_RUN
cdef uint64_t MAX_STEADY = protocol.MAX_STEADY
cdef uint64_t OVER_LATE_WRITES = protocol.OVER_LATE_WRITES
cdef uint64_t BEHIND_LATE_WRITES = protocol.BEHIND_LATE_WRITES
cdef uint64_t STEADY_SHIFT = protocol.STEADY_SHIFT
cdef uint64_t READ_TO_INDEXED = protocol.READ ^ protocol.INDEXED_READ
cdef size_t REQUEST_WORD = page_layout.REQUEST_WORD
cdef size_t REPLY_WORD = page_layout.REPLY_WORD
cdef size_t DEVICE_WAITS = page_layout.DEVICE_WAITS
cdef size_t VMM_WAITS = page_layout.VMM_WAITS
cdef Py_ssize_t PAGE_BYTES = page_layout.SIZE
cdef uint8_t BELL = page_layout.DOORBELL[0]
cdef size_t HEADER_BYTES = protocol.HEADER.size
cdef size_t FRAME_BYTES = protocol.MAX_FRAME

# The effects that a guest without a driver for anything else causes: output and interrupt lines.
cdef int MAY_PULSE = PULSES
cdef uint64_t OUTPUT_TAG = HOST_OUTPUT
cdef uint64_t LINE_TAG = BY_CLASS[IrqLine].tag
cdef uint64_t WINDOW_TAG = 14  # of wire.bulk_effect_table, which not every run loads
cdef uint64_t WINDOW_BYTES = 16
cdef uint64_t RISES = 8  # as contract.bulk_data
cdef uint64_t MOST_TO_GUEST = 15
cdef uint64_t EFFECT_BYTES = EFFECT.size
cdef uint64_t EFFECTS_FIELD = <uint64_t>0xFF << 24  # of a reply's first word: their number
cdef tuple CHARACTERS = tuple(bytes((character,)) for character in range(256))

cdef enum:
    BODY_WORDS = 508    # a payload of up to so many words is copied from a page: all of them

cdef int SPIN_LOOKS = 1500
"""How often to look for a reply before sleeping: some 50 µs, as `shared_page.LOOKS`."""

cdef uint64_t ASK_EVERY = 64
"""After how many requests without spinning to ask for the right, as `shared_page.ASK_EVERY`."""

# How an exchange ended.
cdef enum:
    ANSWERED = 0    # `reply` has the four words of the reply's header
    UNFINISHED = 1  # the request is on its way; `End.rest_of_exchange` has to wait for its reply, or to fail
    UNUSED = 2      # nothing has been sent
    UNLIKE = 3      # `reply` has the words of a reply that is not plain
    RAISED = 4      # the clock has raised an exception, or a signal's handler while a model of this process worked
    EFFECTS = 5     # `reply` is good and changes nothing, but for its effects, which `End` has


cdef class Lock:
    """A lock that code without the GIL can take as well; used like `threading.Lock`."""

    cdef PyThread_type_lock lock

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    def acquire(self, blocking=True, timeout=-1):
        """Whether it was taken, within `timeout` seconds; -1 for as long as it takes."""
        cdef long long patience
        cdef PyLockStatus status
        if PyThread_acquire_lock(self.lock, 0):
            return True
        if not blocking:
            return False
        end = time.monotonic() + timeout
        while True:
            patience = -1 if timeout < 0 else <long long>(max(0.0, end - time.monotonic()) * 1e6)
            with nogil:
                status = PyThread_acquire_lock_timed(self.lock, patience, 1)
            if status != PY_LOCK_INTR:
                return status == PY_LOCK_ACQUIRED
            PyErr_CheckSignals()

    def release(self):
        """Give it back. RuntimeError if nobody has it."""
        if PyThread_acquire_lock(self.lock, 0):
            PyThread_release_lock(self.lock)
            raise RuntimeError("release unlocked lock")
        PyThread_release_lock(self.lock)

    def locked(self):
        """Whether somebody has it."""
        if PyThread_acquire_lock(self.lock, 0):
            PyThread_release_lock(self.lock)
            return False
        return True

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()


cdef inline int64_t host_time() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef class Clock:
    """The compiled half of `host.time.guest_clock.GuestClock`."""

    cdef public int64_t _base
    cdef public int64_t _limit
    cdef public object _held_at

    cdef bint is_running(self) noexcept nogil:
        return <void *>self._held_at == <void *>None

    cdef uint64_t time(self) noexcept nogil:
        """Guest time of a clock that runs. (One that is being held now gave a time that is as good.)"""
        cdef int64_t base, limit, time
        while True:
            limit = <int64_t>load(<uint64_t *>&self._limit)  # before the base: see GuestClock
            base = <int64_t>load(<uint64_t *>&self._base)
            time = host_time() - base
            if <int64_t>load(<uint64_t *>&self._base) == base:
                return <uint64_t>min(time, limit)

    cdef bint is_past(self, int64_t host) noexcept nogil:
        """Whether that time of the host has come."""
        return host_time() >= host


# --- The transports --------------------------------------------------------------------------------------


cdef class End:
    """The compiled half of a transport: the VMM's end. Used under the lock of the channel."""

    cdef uint64_t body[BODY_WORDS]  # the payload of the last reply, if it is short
    cdef size_t body_bytes                  # 0: it is not here
    cdef const uint8_t *more                # the payload of the request that is sent next
    cdef size_t more_bytes
    cdef object error                       # what the exchange that was RAISED has raised

    cdef int exchange(self, const uint64_t *asked, uint64_t *reply) noexcept nogil:
        """Send a request of four words, and give the four words of its reply."""
        return UNUSED

    def taken_payload(self):
        """The payload of the last reply, once, if the compiled half has copied it; else None."""
        cdef size_t length = self.body_bytes
        if not length:
            return None
        self.body_bytes = 0
        return (<char *>self.body)[:length]


LATE, NOT_RUNG, ASLEEP, CAME, WOKEN = range(5)
"""Where an exchange over a page was left: the reply did not come while spinning; the bell could not be rung; it
was rung; the reply has come, and it is time to ask for the right to spin; it has come from a spinner that had to
be woken."""

cdef int _LATE = LATE, _NOT_RUNG = NOT_RUNG, _ASLEEP = ASLEEP, _CAME = CAME, _WOKEN = WOKEN

cdef int IDLE_RINGS = 64
"""How often a doorbell is read here without a reply being there, before Python counts on."""


cdef class PageEnd(End):
    """The compiled half of `remote.transport.shared_page.PageTransport`."""

    cdef public uint64_t _seen
    cdef public bint _may_spin
    cdef public int bell_of_device
    cdef public int doorbell
    cdef public uint64_t _slow
    cdef readonly int left
    cdef readonly bint slept
    """Whether the device process had slept when it was asked last."""
    cdef Py_buffer buffer
    cdef uint64_t *words
    cdef uint64_t busy      # whether a thread without the GIL looks at the page
    cdef uint64_t closed

    def map(self, page):
        """Look at `page` from now on."""
        # SAFETY: the mapping cannot go away while the buffer is held. Whatever a hostile peer stores there is
        # read as words, once each.
        PyObject_GetBuffer(page, &self.buffer, PyBUF_SIMPLE | PyBUF_WRITABLE)
        if self.buffer.len < PAGE_BYTES:
            raise ValueError(f"a page of {self.buffer.len} bytes, {PAGE_BYTES} are needed")
        self.words = <uint64_t *>self.buffer.buf

    def unmap(self):
        """Do not look at the page any more, so that it can be unmapped. If another thread looks just now, the
        page stays mapped until this object is gone.
        """
        # SAFETY: either that thread sees `closed`, or this one sees `busy`: each stores before it looks.
        store(&self.closed, 1)
        fence()
        if not load(&self.busy):
            PyBuffer_Release(&self.buffer)

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)  # does nothing where there is none

    cdef int exchange(self, const uint64_t *asked, uint64_t *reply) noexcept nogil:
        cdef int status = UNUSED
        self.body_bytes = 0
        store(&self.busy, 1)
        fence()
        if not load(&self.closed):
            status = self.spin(asked, reply) if self._may_spin else self.sleep(asked, reply)
        store(&self.busy, 0)
        return status

    def exchanged(self, bytes sent):
        """The four words of the reply to a whole request. None: `rest_of_exchange` has to follow. False:
        nothing has been sent.
        """
        cdef uint64_t asked[4]
        cdef uint64_t reply[4]
        cdef int status
        if not HEADER_BYTES <= <size_t>len(sent) <= FRAME_BYTES:
            raise ValueError(f"a request of {len(sent)} bytes")
        memcpy(asked, <const uint8_t *>sent, HEADER_BYTES)
        self.more, self.more_bytes = <const uint8_t *>sent + HEADER_BYTES, len(sent) - HEADER_BYTES
        with nogil:
            status = self.exchange(asked, reply)
        self.more_bytes = 0
        if status == ANSWERED:
            return reply[0], reply[1], reply[2], reply[3]
        return False if status == UNUSED else None

    cdef int spin(self, const uint64_t *asked, uint64_t *reply) noexcept nogil:
        cdef int looks
        self.lay_down(asked)
        self.left = _LATE
        self.slept = load(self.words + DEVICE_WAITS) != 0
        if self.slept and write(self.bell_of_device, &BELL, 1) != 1:
            return UNFINISHED
        for looks in range(SPIN_LOOKS):
            if load(self.words + REPLY_WORD) != self._seen:
                if self.slept:
                    self.left = _WOKEN
                    return UNFINISHED
                if self.take(reply):
                    return ANSWERED
            relax()
        return UNFINISHED

    cdef int sleep(self, const uint64_t *asked, uint64_t *reply) noexcept nogil:
        cdef uint8_t bells[64]
        cdef int rings = 0
        store(self.words + VMM_WAITS, 1)
        self.lay_down(asked)
        self.left = _NOT_RUNG
        if write(self.bell_of_device, &BELL, 1) != 1:
            return UNFINISHED
        self.left = _ASLEEP
        fence()
        while load(self.words + REPLY_WORD) == self._seen:
            rings += 1
            if rings > IDLE_RINGS or read(self.doorbell, bells, sizeof(bells)) <= 0:
                return UNFINISHED
        store(self.words + VMM_WAITS, 0)
        self._slow += 1
        if self._slow % ASK_EVERY == 0:
            self.left = _CAME
            return UNFINISHED
        return ANSWERED if self.take(reply) else UNFINISHED

    cdef void lay_down(self, const uint64_t *asked) noexcept nogil:
        cdef uint64_t *request = self.words + REQUEST_WORD
        if self.more_bytes:
            memcpy(request + 4, self.more, self.more_bytes)
        store(request + 1, asked[1])
        store(request + 2, asked[2])
        store(request + 3, asked[3])
        store(request, asked[0])

    cdef bint take(self, uint64_t *reply) noexcept nogil:
        """Copy the header of the reply, and a short payload, if one has come."""
        cdef uint64_t length
        cdef size_t number
        cdef uint64_t *words = self.words + REPLY_WORD
        reply[0] = load(words)
        if reply[0] == self._seen:
            return False
        # The first word once more would be a second load: this is the one that is checked.
        reply[1] = load(words + 1)
        reply[2] = load(words + 2)
        reply[3] = load(words + 3)
        length = reply[3] >> 32
        if 0 < length <= 8 * BODY_WORDS:
            for number in range((length + 7) // 8):
                self.body[number] = load(words + 4 + number)
            self.body_bytes = length
        self._seen = reply[0]
        return True


cdef class StreamEnd(End):
    """The compiled half of `remote.transport.stream.StreamTransport`."""

    cdef public int requests
    cdef public int replies
    cdef int failed_with
    cdef Py_ssize_t size
    cdef uint8_t frame[4097]  # one more than a frame may have, so that a longer one shows

    cdef int exchange(self, const uint64_t *asked, uint64_t *reply) noexcept nogil:
        cdef Py_ssize_t done
        if self.requests < 0:
            return UNUSED
        cdef const void *sent = asked
        self.failed_with = 0
        self.size = 0
        self.body_bytes = 0
        if self.more_bytes:
            memcpy(self.frame, asked, HEADER_BYTES)
            memcpy(self.frame + HEADER_BYTES, self.more, self.more_bytes)
            sent = self.frame
        while True:
            done = write(self.requests, sent, HEADER_BYTES + self.more_bytes)
            if done >= 0:
                break
            if errno != EINTR:  # the signal of a kick, or one that only the main thread handles
                self.failed_with = errno
                return UNFINISHED
        while True:
            done = read(self.replies, self.frame, sizeof(self.frame))
            if done >= 0:
                break
            if errno != EINTR:
                self.failed_with = errno
                return UNFINISHED
        self.size = done
        if <size_t>done < HEADER_BYTES:
            return UNFINISHED
        memcpy(reply, self.frame, HEADER_BYTES)
        if <size_t>done == HEADER_BYTES:
            return UNFINISHED if reply[3] >> 32 else ANSWERED
        if reply[3] >> 32 != <uint64_t>done - HEADER_BYTES or reply[3] >> 32 > 8 * BODY_WORDS:
            return UNFINISHED
        self.body_bytes = <size_t>done - HEADER_BYTES
        memcpy(self.body, self.frame + HEADER_BYTES, self.body_bytes)
        return ANSWERED

    def received(self):
        """The frame that the last exchange has read. Raises OSError if it could not send or read."""
        if self.failed_with:
            raise OSError(self.failed_with, _text_of(self.failed_with))
        return (<char *>self.frame)[: self.size]


include "answers.pxi"


cdef class DirectEnd(End):
    """The compiled half of `remote.transport.direct.DirectTransport`: what it calls is Python's, with the GIL."""

    cdef public object server
    cdef public object _payload
    cdef Answers answers

    cdef int exchange(self, const uint64_t *asked, uint64_t *reply) noexcept with gil:
        self.body_bytes = 0
        try:
            self.call(asked, reply)
        except BaseException as error:  # of a signal's handler: what a model raises is an answer
            self.error = error
            return RAISED
        return ANSWERED

    cdef int call(self, const uint64_t *asked, uint64_t *reply) except -1:
        cdef Py_ssize_t length
        if self.answers is None:
            self.answers = Answers(self.server)
        self.answers.earliest = self.server.deadline  # another request may have changed it
        try:
            length = self.answers.answer(asked, True, self.frame, reply, <uint8_t *>self.body)
            payload = self.answers.payload
        except Exception as error:
            length = -1
            reply[0], reply[1], reply[2], reply[3], payload = self.failed(asked[0] >> 32, error)
        if length < 0:
            self._payload, length = payload, len(payload)
            if <size_t>length <= sizeof(self.body):
                memcpy(self.body, <const uint8_t *><bytes>payload, length)
        reply[3] |= <uint64_t>length << 32
        if <size_t>length <= sizeof(self.body):
            self.body_bytes = length
        return 0

    def frame(self, words):
        """The request that is being answered."""
        return protocol.WORDS.pack(*words) + (<char *>self.more)[: self.more_bytes]

    def payload(self, words):
        """See Transport."""
        if self.body_bytes:
            self._payload = self.taken_payload()
        return self._payload


def _text_of(number):
    import os

    return os.strerror(number)


include "journal.pxi"
include "lines.pxi"


# --- The channel -----------------------------------------------------------------------------------------


cdef object FollowUp
cdef object Posted
cdef int MAX_FOLLOW_UPS
cdef int REPLY_SLICES
cdef object frame_of
cdef tuple FAILURES


def learn_follow_ups(follow_up, posted, most, slices, frame, failures):
    """`remote.channel.effect_calls.FollowUp` and `Posted`, how many of them one request may cause, how many slices a reply
    may take, `remote.transport.frame_of`, and the exceptions of a process that fails.
    """
    global FollowUp, Posted, MAX_FOLLOW_UPS, REPLY_SLICES, frame_of, FAILURES
    FollowUp, Posted, MAX_FOLLOW_UPS, REPLY_SLICES = follow_up, posted, most, slices
    frame_of, FAILURES = frame, failures


cdef class SteadyCore:
    """The compiled half of `remote.channel.steady_reads.SteadyReads`: the counts."""

    cdef public uint64_t changes
    cdef public uint64_t moves

    cdef void changed(self) noexcept nogil:
        store(&self.changes, self.changes + 1)
        store(&self.moves, self.moves + 1)


cdef enum:
    PINS = 8        # so many output pins of a device are looked up here
    MOST_LINES = 8  # so many effects of a reply, if all are lines


cdef struct Open:
    # A request on its way through `ChannelCore`.
    uint64_t asked[4]
    uint64_t reply[4]
    uint64_t limit
    uint64_t count      # that a steady value is tied to
    int status


cdef class ChannelCore:
    """The compiled half of `remote.channel.connection.Channel`."""

    cdef public uint64_t deadline
    cdef public uint64_t waiting
    cdef public uint64_t waiter
    cdef public uint64_t _sequence
    cdef uint64_t posted        # the word of a COMPLETE that is told with the next request, or 0
    cdef uint64_t posted_value
    cdef public object _failure
    cdef public object _record
    cdef public object _journal
    cdef JournalCore kept
    cdef public list _outputs
    cdef list lines
    cdef PyObject **pins    # by device and pin: the SourceCore, or NULL where somebody else hears
    cdef uint64_t devices
    cdef public list _media
    cdef public object _wait_for_output
    cdef Lock mutex
    cdef Clock clock
    cdef object now
    cdef object error   # what the clock has raised
    cdef End end
    cdef SteadyCore counts

    def __dealloc__(self):
        PyMem_Free(self.pins)

    @property
    def _lines(self):
        """By device, what hears of its pins."""
        return self.lines

    @_lines.setter
    def _lines(self, list lines):
        self.pins = <PyObject **>PyMem_Realloc(self.pins, (len(lines) * PINS + 1) * sizeof(PyObject *))
        if self.pins == NULL:
            raise MemoryError
        memset(self.pins, 0, len(lines) * PINS * sizeof(PyObject *))
        self.devices = len(lines)
        self.lines = [tuple(pins) for pins in lines]  # which own what is looked up
        for device, pins in enumerate(self.lines):
            for pin, line in enumerate(pins[:PINS]):
                if isinstance(line, SourceCore):
                    self.pins[device * PINS + pin] = <PyObject *>line

    def set_up(self, Lock lock, now, SteadyCore counts):
        """`lock` is the lock of the channel, `now` the clock's, `counts` are of its steady reads."""
        self.mutex, self.counts = lock, counts
        clock = getattr(now, "__self__", None)
        self.clock = clock if isinstance(clock, Clock) else None
        self.now = now

    def keeps(self, JournalCore kept):
        """`kept` is that of the journal, if there is one and it has one."""
        self.kept = kept

    def leads_to(self, transport):
        """The transport has changed. Under the lock."""
        self.end = transport if isinstance(transport, End) else None

    cdef bint begin(self, Open *it, uint64_t word, uint64_t offset, uint64_t value) noexcept nogil:
        """Take the lock and exchange, if this is possible here. False: nothing has happened.

        If the reply changes nothing, all is done, and the lock is given back: `it.status` is ANSWERED, and
        the value of the reply is in `it.reply[2]`. Otherwise `end_access` has to follow.
        """
        cdef bint is_begun
        PyThread_acquire_lock(self.mutex.lock, 1)
        is_begun = self.begin_under_lock(it, word, offset, value)
        if not is_begun or it.status == ANSWERED or it.status == RAISED:
            PyThread_release_lock(self.mutex.lock)
        return is_begun

    cdef bint begin_under_lock(self, Open *it, uint64_t word, uint64_t offset, uint64_t value) noexcept nogil:
        """The same, but for the lock."""
        cdef uint64_t sequence
        cdef uint64_t kind = word & 0xFF
        cdef bint is_kept
        cdef bint is_read = kind == READ or kind == INDEXED_READ or kind == READ_WIDE
        if (
            <void *>self._failure != <void *>None
            or <void *>self._record != <void *>None
            or <void *>self.end == <void *>None
        ):
            return False
        if self.posted:
            if word & 0xFFFF == self.posted ^ COMPLETE ^ READ:
                word, kind, value = word ^ READ ^ COMPLETED_READ, COMPLETED_READ, self.posted_value
                self.posted = 0
            elif not self.tell_posted(it):
                return it.status == RAISED
            elif <void *>self._failure != <void *>None or <void *>self.end == <void *>None:
                return False  # it was lost while it was told: there is nothing here to ask any more
        sequence = (self._sequence + 1) & 0xFFFFFFFFULL
        if sequence == 0:
            sequence = 1
        it.asked[0] = word | sequence << 32
        if <void *>self.clock != <void *>None and self.clock.is_running():
            it.asked[1] = self.clock.time()
        elif not self.ask_now(&it.asked[1]):
            it.status = RAISED
            return True
        it.asked[2] = value
        it.asked[3] = offset
        self.waiter = PyThread_get_thread_ident()
        self.waiting = sequence
        # Before it is sent: see remote.channel.steady_reads.
        if kind == INDEXED_READ:
            store(&self.counts.moves, self.counts.moves + 1)
        elif not is_read:
            self.counts.changed()
        it.status = self.end.exchange(it.asked, it.reply)
        if it.status != UNFINISHED:
            self.waiting = 0
        if it.status == UNUSED:
            return False
        self._sequence = sequence
        if it.status == ANSWERED:
            is_kept = <void *>self._journal != <void *>None
            if it.reply[1] != self.deadline or it.reply[2] > it.limit:
                it.status = UNLIKE
            elif (
                it.reply[0] == it.asked[0] | REPLY
                and it.reply[3] <= (MAX_STEADY if is_read else 0)
                and (not is_kept or <void *>self.kept != <void *>None and self.kept.keep(it.asked, it.reply))
            ):
                if is_read and it.reply[3] == 0:
                    self.counts.changed()
                it.count = self.counts.changes if kind == INDEXED_READ else self.counts.moves
            elif is_kept:
                it.status = UNLIKE
            elif (
                it.reply[0] & ~EFFECTS_FIELD == it.asked[0] | REPLY
                and it.reply[0] & EFFECTS_FIELD
                and self.end.body_bytes == it.reply[3] >> 32
                and it.reply[3] & 0xFFFFFFFFULL == 0
                and (is_read or kind == WRITE or kind == WRITE_LIST or kind == WRITE_RUN or kind == COMPLETE)
                and kind != READ_WIDE
            ):
                # Which device may have them, and what they do, Python's objects tell.
                it.status = EFFECTS
                if is_read:
                    self.counts.changed()
                self.apply_lines(it)
            else:
                it.status = UNLIKE
        return True

    cdef bint begin_run(
        self, Open *it, uint64_t device, uint64_t offset, const uint8_t *data, uint64_t length
    ) noexcept nogil:
        """As `begin`, of a WRITE_RUN. Not where a journal wants its bytes."""
        cdef bint is_begun = False
        PyThread_acquire_lock(self.mutex.lock, 1)
        if <void *>self._journal == <void *>None and <void *>self.end != <void *>None and not self.posted:
            self.end.more, self.end.more_bytes = data, length
            is_begun = self.begin_under_lock(it, WRITE_RUN | device << 8, offset | length << 32, 0)
            self.end.more_bytes = 0
        if not is_begun or it.status == ANSWERED or it.status == RAISED:
            PyThread_release_lock(self.mutex.lock)
        return is_begun

    cdef bint is_quiet(self) noexcept nogil:
        """Whether the process is there, is not recorded, and has no deadline that has come. Under the lock."""
        return (
            <void *>self._failure == <void *>None
            and <void *>self._record == <void *>None
            and <void *>self.end != <void *>None
            and <void *>self.clock != <void *>None
            and self.clock.is_running()
            and self.clock.time() < self.deadline
        )

    cdef bint tell_posted(self, Open *it) noexcept nogil:
        """Send the request that is posted. False: it has raised, or `it` is UNUSED and nothing has happened."""
        cdef Open told
        cdef uint64_t word = self.posted
        told.limit = self.posted = 0
        it.status = UNUSED
        if not self.begin_under_lock(&told, word, 0, self.posted_value):
            self.posted = word
            return False
        if told.status != ANSWERED and not self.end_posted(&told):
            it.status = RAISED
            return False
        return True

    cdef bint end_posted(self, Open *it) noexcept with gil:
        try:
            if it.status == RAISED:
                raise self.raised()
            asked = (it.asked[0], it.asked[1], it.asked[2], it.asked[3])
            reply = None if it.status == UNFINISHED else (it.reply[0], it.reply[1], it.reply[2], it.reply[3])
            self.end_told(asked, reply)
            return True
        except BaseException as error:
            self.error = error
            return False

    cdef int end_told(self, asked, reply) except -1:
        """The rest of a request that follows from another one: of a reply that changes something, if there is
        one, and of what follows from that.
        """
        if asked is not None:
            try:
                self.finish_told(asked, b"", reply)
            finally:
                self.waiting = 0
        if self._follow_ups:
            self.go_on([], len(self._follow_ups) + 1)
        return 0

    cdef PyObject *line_of(self, uint64_t effect) noexcept nogil:
        """The SourceCore that an effect is for, if it is a good one of a line that compiled code may change; or NULL.
        """
        cdef uint64_t device = effect >> 8 & 0xFF, pin = effect >> 16 & 0xFF, level = effect >> 24 & 0xFF
        if effect & 0xFF != LINE_TAG or level > 1 or (effect >> 32 and not level):
            return NULL
        return self.pins[device * PINS + pin] if device < self.devices and pin < PINS else NULL

    cdef void apply_lines(self, Open *it) noexcept nogil:
        """Apply the effects of the last reply, if all are levels of lines: `it` is ANSWERED then. Otherwise nothing
        has happened. See `Channel.check_effect`.
        """
        cdef PyObject *lines[MOST_LINES]
        cdef uint64_t number, count = it.reply[0] >> 24 & 0xFF
        cdef int found
        if count > MOST_LINES or self.end.body_bytes != count * EFFECT_BYTES:
            return
        for number in range(count):
            lines[number] = self.line_of(self.end.body[number])
            if (
                lines[number] == NULL
                or <void *>(<SourceCore>lines[number])._router != <void *>(<SourceCore>lines[0])._router
            ):
                return
        # SAFETY: `lines` of the channel holds the sources.
        found = (<SourceCore>lines[0])._router.report_all(lines, self.end.body, count)
        if found != ANNOUNCED:
            it.status, it.reply[3], self.end.body_bytes = ANSWERED, 0, 0
        if found == REFUSED:
            it.status = RAISED
            self.fail((<SourceCore>lines[0])._router)

    cdef void fail(self, RouterCore router) noexcept with gil:
        self.error = router.refusal()

    cdef bint apply_output(self, uint64_t count) except -1:
        """Apply the effects of the last reply, if all are levels of lines and output. Otherwise nothing has happened.
        """
        cdef uint8_t body[8 * BODY_WORDS]
        cdef size_t end = self.end.body_bytes
        cdef size_t position = 0
        cdef uint64_t number, effect, length
        cdef PyObject *line
        memcpy(body, self.end.body, end)  # what is called may ask the process
        for number in range(count):
            if position + EFFECT_BYTES > end:
                return False
            memcpy(&effect, body + position, EFFECT_BYTES)
            position += EFFECT_BYTES
            length = effect >> 32
            if effect & 0xFF == OUTPUT_TAG and not effect >> 16 & 0xFFFF and 0 < length <= end - position:
                if (effect >> 8 & 0xFF) >= self.devices or self._outputs[effect >> 8 & 0xFF] is None:
                    return False
                position += length
            elif self.line_of(effect) == NULL:
                return False
        if position != end:
            return False
        # The reply is good as a whole: only now is any of it used.
        self.end.body_bytes = position = 0
        for number in range(count):
            memcpy(&effect, body + position, EFFECT_BYTES)
            position += EFFECT_BYTES
            length = effect >> 32
            line = self.line_of(effect)
            if line != NULL:
                (<SourceCore>line)._router.report(<SourceCore>line, effect >> 24 & 1, length)
                continue
            text = CHARACTERS[body[position]] if length == 1 else (<char *>body)[position : position + length]
            self._outputs[effect >> 8 & 0xFF](text)
            position += length
        return True

    cdef list calls_of_effects(self, uint64_t count):
        """What the effects of the last reply call, if all are lines, output and one window, which the devices may
        have; None otherwise. See `Channel.check_effect`.
        """
        cdef const uint8_t *body = <const uint8_t *>self.end.body
        cdef size_t end = self.end.body_bytes
        cdef size_t position = 0
        cdef uint64_t effect, length
        cdef uint64_t number
        cdef uint64_t words[2]
        cdef bint is_open = False
        calls = []
        for number in range(count):
            if position + EFFECT_BYTES > end:
                return None
            memcpy(&effect, body + position, EFFECT_BYTES)
            position += EFFECT_BYTES
            length = effect >> 32
            device, pin, level = effect >> 8 & 0xFF, effect >> 16 & 0xFF, effect >> 24 & 0xFF
            if device >= len(self._outputs):
                return None
            if effect & 0xFF == LINE_TAG:
                lines = self._lines[device]
                if pin >= len(lines) or level > 1 or (length and not level):
                    return None
                calls.append((lines[pin], level, length))
            elif effect & 0xFF == OUTPUT_TAG:
                output = self._outputs[device]
                if output is None or pin or level or not length or length > end - position:
                    return None
                text = CHARACTERS[body[position]] if length == 1 else (<char *>body)[position : position + length]
                calls.append((output, text))
                position += length
            elif effect & 0xFF == WINDOW_TAG and not is_open and not self._follow_ups and level <= MOST_TO_GUEST:
                media = self._media[device]
                if media is None or media.window is None or WINDOW_BYTES > end - position:
                    return None
                if self._asked_for >= MAX_FOLLOW_UPS:
                    return None
                memcpy(words, body + position, WINDOW_BYTES)
                position += WINDOW_BYTES
                medium = media.by_number.get(pin)
                if medium is None or not medium.allows(words[1], to_guest=bool(level)):
                    return None
                if level & RISES and media.window.line is None:
                    return None
                is_open = True
                calls.append((media.window.open, (device, pin, medium, length, words[0], words[1], level), 0, 0))
            else:
                return None
        if position != end:
            return None
        return calls

    cdef bint apply_effects(self, uint64_t count) except -1:
        """Apply the effects of the last reply, and give the lock back, if they are such. Otherwise nothing has
        happened.
        """
        cdef list calls
        cdef bint are_applied = True
        try:
            if not self.apply_output(count):
                calls = self.calls_of_effects(count)
                are_applied = calls is not None
                if are_applied:
                    self.follow(self.make(calls))
        finally:
            if are_applied:
                PyThread_release_lock(self.mutex.lock)
        if are_applied:
            self._wait_for_output()
        return are_applied

    cdef bint post(self, follow_up) except -1:
        """Tell it with the next request, if it can be. Under the lock."""
        if type(follow_up) is not Posted or self._record is not None or self.posted:
            return False
        self.posted, self.posted_value = follow_up.kind | follow_up.device << 8, follow_up.value
        self.counts.changed()
        return True

    cdef int settle(self) except -1:
        """Tell what is posted now. Under the lock."""
        word, self.posted = self.posted, 0
        self.pure_tell(FollowUp(COMPLETE, word >> 8, self.posted_value), REPLY_SLICES)
        return 0

    def finish_told(self, asked, bytes payload, words):
        """The end of a request that follows from another one, where the compiled half cannot go on: as
        `finish_access`, but for the lock.
        """
        sent = protocol.WORDS.pack(*asked) + payload
        try:
            if words is None:
                words = self.transport.rest_of_exchange()
            self._accept(sent, frame_of(words, self.transport.payload(words)), 0)
        except FAILURES as error:
            self._survive(error, sent, 0)

    def _next(self, *request):
        """See Channel."""
        if self.posted:
            self.settle()
        return self.pure_next(*request)

    def _tell(self, follow_up, slices):
        """See Channel."""
        if self.post(follow_up):
            return
        found = None if slices is not None else self.told(follow_up)
        if found is None:
            self.pure_tell(follow_up, slices)
        elif found is not True:
            self.finish_told(found[0], b"", found[1])

    cdef int go_on(self, list follow_ups, int asked_for) except -1:
        """Send what follows, `asked_for` requests having been sent already. Under the lock."""
        self._follow_ups += follow_ups
        self._asked_for = asked_for
        self._follow_up(None)
        return 0

    cdef int follow(self, list follow_ups) except -1:
        """Send what follows from something, under the lock."""
        if len(follow_ups) == 1:
            if self.post(follow_ups[0]):
                return 0
            found = self.told(follow_ups[0])
            if found is not None:
                asked, reply = (None, None) if found is True else found
                return self.end_told(asked, reply)
        if follow_ups:
            self.go_on(follow_ups, len(follow_ups))
        return 0

    cdef list make(self, list calls):
        """Make the calls; what follows from a window."""
        cdef list follow_ups = []
        # The reply is good as a whole: only now is any of it used.
        self.end.body_bytes = 0
        for call in calls:
            if len(call) == 2:
                call[0](call[1])
            elif len(call) == 3:
                call[0](call[1], call[2])
            else:
                follow_ups += call[0](*call[1])
        return follow_ups

    cdef object told(self, follow_up):
        """As `tell`, of a request that has no payload; None for another one."""
        kind, device, value, offset, payload, size = follow_up
        return None if payload else self.tell(kind | device << 8 | size << 16, offset, value)

    cdef object tell(self, uint64_t word, uint64_t offset, uint64_t value):
        """A request that follows from another one, under the lock: True if it is done. None: nothing has
        happened. Otherwise the four words that were sent, and those of the reply or None, as `finish_access`.
        """
        cdef Open it
        cdef bint begun
        cdef list calls
        it.limit = 0
        with nogil:
            begun = self.begin_under_lock(&it, word, offset, value)
        if not begun:
            return None
        if it.status == ANSWERED:
            return True
        if it.status == RAISED:
            raise self.raised()
        if it.status == EFFECTS:
            calls = self.calls_of_effects(it.reply[0] >> 24 & 0xFF)
            if calls is not None:
                more = self.make(calls)
                self._follow_ups += more
                self._asked_for += len(more)
                return True
        asked = (it.asked[0], it.asked[1], it.asked[2], it.asked[3])
        if it.status == UNFINISHED:
            return asked, None
        return asked, (it.reply[0], it.reply[1], it.reply[2], it.reply[3])

    cdef bint ask_now(self, uint64_t *now) noexcept with gil:
        """The time of another clock, or of one that is held."""
        try:
            now[0] = self.now()
            return True
        except BaseException as error:
            self.error = error
            return False

    cdef object raised(self):
        """What an access that was RAISED is to raise."""
        error, self.error = self.error, None
        if error is None:
            error, self.end.error = self.end.error, None
        return error

    cdef object end_access(self, Open *it):
        """The rest of an access that was begun: with the GIL, and with the lock, which is given back."""
        if it.status == RAISED:
            raise self.raised()
        if it.status == EFFECTS and self.apply_effects(it.reply[0] >> 24 & 0xFF):
            return it.reply[2]
        asked = (it.asked[0], it.asked[1], it.asked[2], it.asked[3])
        if it.status == UNFINISHED:
            return self.finish_access(asked, None, it.limit)
        return self.finish_access(asked, (it.reply[0], it.reply[1], it.reply[2], it.reply[3]), it.limit)

    def access(self, uint64_t word, uint64_t offset, uint64_t value, uint64_t limit):
        """See Channel."""
        cdef Open it
        cdef bint begun
        it.limit = limit
        with nogil:
            begun = self.begin(&it, word, offset, value)
        if not begun:
            if self.posted:
                with self._lock:
                    self.settle()
            return self.pure_access(word, offset, value, limit)
        if it.status == ANSWERED:
            return it.reply[2]
        return self.end_access(&it)


include "window.pxi"
include "queues.pxi"
include "ring.pxi"


# --- The loop --------------------------------------------------------------------------------------------


cdef enum:
    # Slots of values that were read with an index, by its lowest bits; then one without; then one of the first read
    # behind each late write.
    INDICES = 16
    BEHIND = 17
    SLOTS = 18


cdef struct Steady:
    # A value that a read gives, until a time, or a request that counts; see remote.channel.steady_reads.
    uint64_t count
    uint64_t until
    uint64_t value
    uint64_t index
    bint over_late_writes


cdef struct Route:
    uint64_t key      # of a port exit: the packed word; of a memory-mapped one: the address
    uint64_t kind     # of a port exit: PORT; of a memory-mapped one: length and direction
    uint64_t count
    uint64_t more     # accesses beyond one for each exit
    uint64_t steady_exits  # of `count`, those whose value was known
    uint64_t word
    uint64_t offset
    uint64_t limit
    uint32_t size
    bint is_read
    bint guarded
    bint unclaimed    # nobody answers: a read gives all ones
    PyObject *device
    PyObject *core    # the ChannelCore, or NULL
    PyObject *window  # the WindowCore, or NULL; then there is no `core`
    PyObject *access  # the function for everything else
    PyObject *arguments[4]  # word, offset, 0 and limit, for calls of Python
    PyObject *what    # what is accessed, as the report of a crash shows it
    Steady *steady    # SLOTS of them, or NULL where none was ever steady
    bint changes      # the last read of a string of them was not steady


cdef uint64_t PORT = <uint64_t>-1
"""No kind of a memory-mapped access."""

cdef enum:
    # Where kvm_run has what, as in run.vcpu.run_loop: indices of 32-bit words, then of 64-bit words.
    EXIT_REASON = 2
    IO_WORD = 4
    IO_DATA_OFFSET = 5
    MMIO_ADDRESS = 4
    MMIO_KIND = 6

cdef uint64_t ONE_ACCESS = <uint64_t>1 << 32
"""The count of a port exit, as the packed word has it."""

cdef uint64_t KIND_MASK = (<uint64_t>1 << 40) - 1
cdef uint64_t COALESCED = <uint64_t>1 << 63
cdef enum:
    PAGE_OF_DATA = 4096  # where a replayed exit has its data, as KVM has it on this architecture

cdef enum:
    # What `go` found.
    NOT_OURS = 0    # an exit that Python handles
    FAILED = 1      # KVM_RUN failed: `error`
    NOTICED = 2     # exits were handled, and there is something that wants attention
    ASK = 3         # the exit of `current` is by a function of Python's
    CONTINUE = 4    # the exit of `current` is begun, and Python has to end it
    REST = 5        # of a string of reads by `current`, Python has to make the others


cdef enum:
    RECENT = 32     # run.vcpu.run_loop.MOST_RECENT; a power of two


cdef struct Made:
    # An access that was made.
    PyObject *what
    uint64_t value
    bint is_known   # whether `value` is one


cdef class AttentionCore:
    """The compiled half of `run.vcpu.run_state.Attention`."""

    cdef public int bits


cdef class LoopCore:
    """The compiled half of `run.vcpu.run_loop.VcpuLoop`."""

    cdef AttentionCore attention
    cdef public uint64_t stale      # whether a bus has changed: no route counts any more
    cdef int descriptor
    cdef unsigned long run_request
    cdef object fake_enter
    cdef object nobody
    cdef object page
    cdef RingCore ring  # None where Python empties the ring
    cdef Py_ssize_t ring_word
    cdef Py_ssize_t mmio_data
    cdef uint32_t io_exit
    cdef uint32_t mmio_exit
    cdef Route *table
    cdef size_t room    # a power of two
    cdef size_t used
    cdef list owned     # what the routes point to
    cdef Py_buffer buffer
    cdef int error
    cdef Route *current
    cdef Py_ssize_t position
    cdef bint in_string     # whether the access of `current` is the last one of a string instruction
    cdef uint64_t rest      # how many reads of a string instruction come behind that of `current`
    cdef uint64_t carried   # of the present access: what its word is changed by, and its value
    cdef uint64_t value
    cdef Open open
    cdef Py_ssize_t sync_rip
    cdef public uint64_t last_rip
    cdef Made made[RECENT]
    cdef size_t made_count
    cdef list described     # what those entries of `made` point to that have no route

    def __cinit__(self, *_, **__):
        self.described = [None] * RECENT
        self.room = 64
        self.table = <Route *>PyMem_Malloc(self.room * sizeof(Route))
        if self.table == NULL:
            raise MemoryError
        memset(self.table, 0, self.room * sizeof(Route))
        self.owned = []

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.room):
            free(self.table[index].steady)
        PyMem_Free(self.table)

    def set_up(self, page, int descriptor, unsigned long run_request, fake_enter, *,
               AttentionCore attention, Py_ssize_t ring_word, ring, Py_ssize_t mmio_data, int io_exit,
               int mmio_exit, nobody, int most_recent, Py_ssize_t sync_rip):
        """`page` is the mapping of the vCPU, `run_request` KVM_RUN. Without a `descriptor`, `fake_enter` is
        called. `ring_word` is where the indices of `ring` are, if that is not None. `nobody` is the access of
        ports that no device claims.
        """
        if most_recent != RECENT:
            raise ValueError(f"{RECENT} accesses are remembered, not {most_recent}")
        self.page = page
        self.descriptor = descriptor
        self.run_request = run_request
        self.fake_enter = fake_enter
        self.attention = attention
        self.nobody = nobody
        self.ring_word = ring_word
        self.ring = ring if isinstance(ring, RingCore) else None
        self.mmio_data = mmio_data
        self.io_exit = io_exit
        self.mmio_exit = mmio_exit
        self.sync_rip = sync_rip // 8

    def learn(self, uint64_t key, kind, list route):
        """A new route: `key` is the packed word of a port exit whose `kind` is None, otherwise an address."""
        cdef Route *one
        cdef uint64_t c_kind = PORT if kind is None else kind
        if 2 * (self.used + 1) > self.room:
            self.grow()
        _, access, word, offset, limit, size, is_read, guarded, device, what, _, _ = route
        one = self.place(key, c_kind)
        if one.access == NULL:
            self.used += 1
            one.count = one.more = one.steady_exits = 0
        one.key, one.kind = key, c_kind
        one.word, one.offset, one.limit = word, offset, limit
        one.size, one.is_read, one.guarded = size, is_read, guarded
        one.unclaimed = access is self.nobody
        core = getattr(access, "__self__", None)
        noted = getattr(core, "noted", None)  # the writes that `register_watch` has to see
        if noted is not None and offset not in noted:
            core = core.channel
            access = core.access
        # A channel's own access; anything else, such as that of a model in this process, is called.
        is_core = isinstance(core, ChannelCore) and core.access == access
        arguments = (word, offset, 0, limit)
        window = getattr(core, "window", None)
        is_window = isinstance(window, WindowCore) and window.register == offset
        self.owned.append((access, core, window, arguments, device, what))
        one.device = <PyObject *>device
        one.what = <PyObject *>what
        one.access = <PyObject *>access
        one.core = <PyObject *>core if is_core else NULL
        one.window = <PyObject *>window if is_window else NULL
        for index, argument in enumerate(arguments):
            one.arguments[index] = <PyObject *>argument

    def forget_all(self):
        """Forget all routes. By the vCPU's own thread, when no access is under way."""
        cdef size_t index
        for index in range(RECENT):
            if self.made[index].what != NULL:
                self.described[index] = <object>self.made[index].what
        for index in range(self.room):
            free(self.table[index].steady)
        memset(self.table, 0, self.room * sizeof(Route))
        self.used = 0
        self.current = NULL
        self.owned = []

    def count_of(self, uint64_t key, kind):
        """How many exits of this route were handled here. Thread-safe."""
        cdef Route *one = self.place(key, PORT if kind is None else <uint64_t>kind)
        return one.count if one.access != NULL else 0

    def more_of(self, uint64_t key, kind):
        """How many accesses were made here beyond one for each exit. Thread-safe."""
        cdef Route *one = self.place(key, PORT if kind is None else <uint64_t>kind)
        return one.more if one.access != NULL else 0

    def steady_of(self, uint64_t key, kind):
        """How many of the exits of this route were answered with a known value. Thread-safe."""
        cdef Route *one = self.place(key, PORT if kind is None else <uint64_t>kind)
        return one.steady_exits if one.access != NULL else 0

    cdef Route *place(self, uint64_t key, uint64_t kind) noexcept nogil:
        """Where the route is, or the free place where it would be."""
        cdef uint64_t mixed = (key ^ key >> 13 ^ kind << 7) * 0x9E3779B97F4A7C15ULL
        cdef size_t place = (mixed >> 32) & (self.room - 1)
        while self.table[place].access != NULL:
            if self.table[place].key == key and self.table[place].kind == kind:
                break
            place = (place + 1) & (self.room - 1)
        return self.table + place

    cdef int grow(self) except -1:
        cdef Route *old = self.table
        cdef size_t room = self.room
        cdef size_t index
        cdef Route *table = <Route *>PyMem_Malloc(2 * room * sizeof(Route))
        if table == NULL:
            raise MemoryError
        memset(table, 0, 2 * room * sizeof(Route))
        self.table, self.room = table, 2 * room
        for index in range(room):
            if old[index].access != NULL:
                self.place(old[index].key, old[index].kind)[0] = old[index]
        PyMem_Free(old)
        return 0

    def enter_compiled(self):
        """Run the guest, and handle its exits, as long as they are routed.

        Returns what KVM_RUN returned where Python has to look at kvm_run: 0, or -1 and `ctypes.get_errno`;
        1 if there is no exit to look at, but somebody wants attention. Raises what an access raises.
        """
        cdef int found
        # SAFETY: the mapping cannot go away while the buffer is held; indices are checked against its length.
        PyObject_GetBuffer(self.page, &self.buffer, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            while True:
                if self.fake_enter is not None:
                    status = self.fake_enter()
                    if status < 0:
                        return status
                    with nogil:  # as KVM_RUN, and the lock of a channel may be waited for
                        found = self.handle()
                    if found == NOTICED and not self.attention.bits:
                        continue
                else:
                    with nogil:
                        found = self.go()
                if found == NOT_OURS:
                    if self.stale:
                        self.outdated()
                    return 0
                if found == FAILED:
                    ctypes.set_errno(self.error)
                    return -1
                if found == ASK:
                    self.ask()
                elif found == REST or self.rest:
                    self.read_rest(found == CONTINUE)
                elif found == CONTINUE:
                    self.give()
                if self.attention.bits:
                    return 1
        finally:
            PyBuffer_Release(&self.buffer)

    cdef int go(self) noexcept nogil:
        cdef int found
        while True:
            if ioctl(self.descriptor, self.run_request, 0) < 0:
                self.error = errno
                return FAILED
            found = self.handle()
            if found != NOTICED or self.attention.bits:
                return found

    cdef int handle(self) noexcept nogil:
        """Handle the exit that kvm_run holds. NOTICED: it is done."""
        cdef uint64_t *words = <uint64_t *>self.buffer.buf
        cdef uint8_t *data
        cdef uint32_t reason = (<uint32_t *>words)[EXIT_REASON]
        cdef uint64_t ring
        cdef uint64_t position
        cdef Route *route
        cdef bint alone
        cdef int found
        if reason == self.io_exit:
            if words[IO_WORD] >> 33:
                return self.handle_string(words)
            route = self.place(words[IO_WORD], PORT)
            position = words[IO_DATA_OFFSET]
        elif reason == self.mmio_exit:
            route = self.place(words[MMIO_ADDRESS], words[MMIO_KIND] & KIND_MASK)
            position = self.mmio_data
        else:
            return NOT_OURS
        self.last_rip = words[self.sync_rip]
        if route.access == NULL or position > <uint64_t>(self.buffer.len - 8) or load(&self.stale):
            return NOT_OURS
        self.carried = self.value = 0
        data = <uint8_t *>words + position
        if route.steady != NULL and self.is_steady(route, words, True):
            route.count += 1
            route.steady_exits += 1
            memcpy(data, &self.value, route.size)
            self.note(route.what, self.value)
            return NOTICED
        if route.guarded:
            if (
                not route.is_read
                and route.size == 1
                and <void *>self.ring != <void *>None
                and self.ring.posts
                and self.ring.post(words + self.ring_word, route.device, route.offset, data[0])
            ):
                route.count += 1
                self.note(route.what, data[0])
                return NOTICED
            ring = load(words + self.ring_word)
            if ring >> 32 != ring & 0xFFFFFFFFULL:
                # It holds earlier writes, which come first. One that this read can take along does so.
                if <void *>self.ring == <void *>None:
                    return NOT_OURS
                if route.is_read and self.ring.carry_along(words + self.ring_word, route.device, &self.value):
                    self.carried = READ_TO_INDEXED
                elif not self.ring.give_latch(words + self.ring_word):
                    alone = route.is_read or route.size != 1 or route.core == NULL
                    found = self.ring.drain_here(
                        words + self.ring_word, &self.open, NULL if alone else route.device, route.offset, data[0]
                    )
                    if found == LEFT:
                        return NOT_OURS
                    if found == MADE:
                        route.count += 1
                        self.note(route.what, data[0])
                        return NOTICED
        route.count += 1
        if route.unclaimed:
            if route.is_read:
                memset(data, 0xFF, route.size)
            memcpy(&self.value, data, route.size)
            self.note(route.what, self.value)
            return NOTICED
        self.current = route
        self.position = position
        self.in_string = False
        if route.core == NULL:
            # SAFETY: `owned` holds the window.
            if (
                route.window == NULL
                or self.carried
                or not (<WindowCore>route.window).serve(data, route.size, route.is_read)
            ):
                return ASK
            memcpy(&self.value, data, route.size)
            self.note(route.what, self.value)
            return NOTICED
        if not route.is_read:
            memcpy(&self.value, data, route.size)
        self.open.limit = route.limit
        # SAFETY: `owned` holds the channel.
        if not (<ChannelCore>route.core).begin(
            &self.open, route.word ^ self.carried, route.offset, self.value
        ):
            return ASK
        if self.open.status != ANSWERED:
            return CONTINUE
        if route.is_read:
            if self.open.reply[3]:
                self.keep_steady(route)
            memcpy(data, &self.open.reply[2], route.size)
            self.value = self.open.reply[2]
        self.note(route.what, self.value)
        return NOTICED

    cdef int handle_string(self, uint64_t *words) noexcept nogil:
        """The exit of a string instruction of several accesses. A window makes all but the last one, which is
        then made as if it were alone: what follows from it is Python's. So is everything else, but for reads
        of a steady value.
        """
        cdef uint64_t position = words[IO_DATA_OFFSET]
        cdef uint64_t more = (words[IO_WORD] >> 32) - 1
        cdef uint64_t room = self.buffer.len
        cdef uint64_t ring
        cdef Route *route = self.place(words[IO_WORD] & 0xFFFFFFFFULL | ONE_ACCESS, PORT)
        if route.access == NULL or load(&self.stale):
            return NOT_OURS
        if position > room or (more + 1) * route.size > room - position:
            return NOT_OURS
        if route.core != NULL and route.is_read:
            return self.read_string(route, words, position, more)
        if route.window == NULL:
            return NOT_OURS
        if route.guarded:
            ring = load(words + self.ring_word)
            if ring >> 32 != ring & 0xFFFFFFFFULL:
                return NOT_OURS
        # SAFETY: `owned` holds the window.
        if not (<WindowCore>route.window).serve(<uint8_t *>words + position, more * route.size, route.is_read):
            return NOT_OURS
        self.last_rip = words[self.sync_rip]
        self.carried = self.value = 0
        route.count += 1
        route.more += more
        self.current = route
        self.position = position + more * route.size
        self.in_string = True
        return ASK

    cdef int read_string(self, Route *route, uint64_t *words, uint64_t position, uint64_t more) noexcept nogil:
        """A string of reads: all of them give what the first one does, if that is steady."""
        cdef bint is_late
        cdef uint64_t ring, number
        cdef uint8_t *data = <uint8_t *>words + position
        if route.steady != NULL and self.is_steady(route, words, False):
            route.steady_exits += 1
        else:
            ring = load(words + self.ring_word)
            if route.changes or route.guarded and ring >> 32 != ring & 0xFFFFFFFFULL:
                return NOT_OURS
            self.carried = self.value = 0
            self.open.limit = route.limit
            # SAFETY: `owned` holds the channel.
            if not (<ChannelCore>route.core).begin(&self.open, route.word, route.offset, 0):
                return NOT_OURS
            is_late = self.open.status == UNFINISHED  # which says nothing about the register
            route.changes = not is_late and (
                self.open.status != ANSWERED
                or not self.open.reply[3]
                or self.open.reply[3] & BEHIND_LATE_WRITES
            )
            if is_late or route.changes:
                route.count += 1
                route.more += more
                self.current, self.position, self.rest = route, position, more
                self.last_rip = words[self.sync_rip]
                memcpy(data, &self.open.reply[2], route.size)
                return REST if self.open.status == ANSWERED else CONTINUE
            self.keep_steady(route)
            self.value = self.open.reply[2]
        self.last_rip = words[self.sync_rip]
        route.count += 1
        route.more += more
        for number in range(more + 1):
            memcpy(data + number * route.size, &self.value, route.size)
        self.note_string(route.what)
        return NOTICED

    cdef bint is_steady(self, Route *route, uint64_t *words, bint alone) noexcept nogil:
        """Whether the value that this read gives is known: then it is in `value`. `alone`: no other one follows."""
        cdef Steady *one = route.steady + INDICES
        cdef uint64_t ring, index, count
        cdef bint by_index = False
        cdef bint behind = False
        if route.guarded and not one.over_late_writes:
            ring = load(words + self.ring_word)
            if ring >> 32 != ring & 0xFFFFFFFFULL:
                if <void *>self.ring == <void *>None:
                    return False
                if not self.ring.newest(words + self.ring_word, route.device, &index):
                    return False
                one = route.steady + index % INDICES
                by_index = one.until and one.index == index
                if not by_index:
                    if not alone:
                        return False
                    one, behind = route.steady + BEHIND, True
        # After the ring: a write that is not there any more has been counted.
        # SAFETY: `owned` holds the channel, which holds its counts and its clock.
        if by_index:
            count = load(&(<ChannelCore>route.core).counts.changes)
        else:
            count = load(&(<ChannelCore>route.core).counts.moves)
        if one.count != count or not (<ChannelCore>route.core).clock.is_running():
            return False
        if (<ChannelCore>route.core).clock.time() >= one.until:
            return False
        if behind and not self.ring.owe(words + self.ring_word, route.device, route.offset):
            return False
        self.value = one.value
        return True

    cdef void keep_steady(self, Route *route) noexcept nogil:
        """The reply to the read of `route` says that its value is steady."""
        cdef Steady *one
        if route.steady == NULL:
            route.steady = <Steady *>calloc(SLOTS, sizeof(Steady))
            if route.steady == NULL or <void *>(<ChannelCore>route.core).clock == <void *>None:
                free(route.steady)
                route.steady = NULL
                return
        one = route.steady + (self.value % INDICES if self.carried else INDICES)
        if self.open.reply[3] & BEHIND_LATE_WRITES:
            one = route.steady + BEHIND
        one.count = self.open.count
        one.until = min(self.open.asked[1] + (self.open.reply[3] >> STEADY_SHIFT) * 1000, self.open.reply[1])
        one.value = self.open.reply[2]
        one.index = self.value
        one.over_late_writes = self.open.reply[3] & OVER_LATE_WRITES
        route.changes = False

    cdef void note(self, PyObject *what, uint64_t value) noexcept nogil:
        # SAFETY: `owned` or `described` holds `what`.
        cdef Made *one = &self.made[self.made_count % RECENT]
        self.made_count += 1
        one.what, one.value, one.is_known = what, value, True

    cdef void note_string(self, PyObject *what) noexcept nogil:
        self.note(what, 0)
        self.made[(self.made_count - 1) % RECENT].is_known = False

    def remember(self, made):
        """Note an access that Python has made."""
        cdef size_t place = self.made_count % RECENT
        what, value = made
        self.described[place] = what
        self.note(<PyObject *>what, 0 if value is None else value)
        self.made[place].is_known = value is not None

    def remembered(self):
        """See `VcpuLoop.recent`."""
        cdef size_t number
        cdef Made *one
        found = []
        for number in range(self.made_count - min(self.made_count, <size_t>RECENT), self.made_count):
            one = &self.made[number % RECENT]
            found.append((<object>one.what, one.value if one.is_known else None))
        return found

    cdef int ask(self) except -1:
        """The exit of `current` by the function that Python has for it."""
        cdef Route route = self.current[0]  # a copy: whatever is called may add routes
        cdef uint64_t written = 0
        # SAFETY: `owned` holds them.
        word, offset, value, limit = (
            <object>route.arguments[0],
            <object>route.arguments[1],
            <object>route.arguments[2],
            <object>route.arguments[3],
        )
        if self.carried:
            word, value = route.word ^ self.carried, self.value
        elif not route.is_read:
            memcpy(&written, <uint8_t *>self.buffer.buf + self.position, route.size)
            value = written
        return self.complete(&route, (<object>route.access)(word, offset, value, limit))

    cdef int give(self) except -1:
        """The exit of `current`, whose request is sent, with what Python makes of the reply."""
        cdef Route route = self.current[0]
        return self.complete(&route, (<ChannelCore>route.core).end_access(&self.open))

    cdef int read_rest(self, bint is_begun) except -1:
        """The other reads of a string, whose first one was not steady; that one as well, if it `is_begun`."""
        cdef Route route = self.current[0]  # a copy: whatever is called may add routes
        cdef uint8_t *data = <uint8_t *>self.buffer.buf + self.position
        cdef uint64_t value
        cdef uint64_t rest = self.rest
        self.rest = 0
        # SAFETY: `owned` holds them. There is room: `handle_string` has looked.
        word, offset, value_argument, limit = (
            <object>route.arguments[0],
            <object>route.arguments[1],
            <object>route.arguments[2],
            <object>route.arguments[3],
        )
        if is_begun:
            value = (<ChannelCore>route.core).end_access(&self.open)
            memcpy(data, &value, route.size)
        while rest:
            rest -= 1
            data += route.size
            value = (<object>route.access)(word, offset, value_argument, limit)
            memcpy(data, &value, route.size)
        self.note_string(route.what)
        return 0

    cdef int complete(self, const Route *route, object result) except -1:
        """Give a read what it reads."""
        cdef uint64_t value = 0
        cdef uint8_t *data = <uint8_t *>self.buffer.buf + self.position
        if route.is_read:
            value = result
            if value > route.limit:
                raise OverflowError(f"a device gave {value:#x}, which does not fit")
            memcpy(data, &value, route.size)
        else:
            memcpy(&value, data, route.size)
        if self.in_string:
            self.note_string(route.what)
        else:
            self.note(route.what, value)
        return 0


include "replay.pxi"
