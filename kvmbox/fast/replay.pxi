# --- Replayed exits --------------------------------------------------------------------------------------
#
# Part of vmm.pyx. `tools.bench.replayed` says what this is for.

cdef enum:
    RING_DATA = 2   # of an entry of the ring: the word with the byte


cdef class ReplayCore(LoopCore):
    """A loop whose exits come from memory, and not from KVM: what it costs is the VMM's own path.

    An exit is a pair of words: the word of a port exit as kvm_run has it, and what the guest writes. A write
    with `COALESCED` set goes into the ring, and exits only if that is full, as KVM does it.
    """

    cdef const uint64_t *exits
    cdef Py_buffer script
    cdef size_t length
    cdef size_t next_exit
    cdef uint64_t left
    cdef object ended

    def replays(self, script, uint64_t times, ended):
        """`script` is an array of pairs of words, to be played `times` times. Then `ended` is called."""
        PyBuffer_Release(&self.script)
        PyObject_GetBuffer(script, &self.script, PyBUF_SIMPLE)
        self.exits, self.length = <const uint64_t *>self.script.buf, self.script.len // 16
        self.left, self.ended, self.next_exit = times * self.length, ended, 0

    def __dealloc__(self):
        PyBuffer_Release(&self.script)  # does nothing where there is none

    cdef int go(self) noexcept nogil:
        cdef uint64_t *words = <uint64_t *>self.buffer.buf
        cdef const uint64_t *one
        cdef int found
        while self.left:
            self.left -= 1
            one = self.exits + 2 * self.next_exit
            self.next_exit = self.next_exit + 1 if self.next_exit + 1 < self.length else 0
            if one[1] & COALESCED and self.coalesce(words + self.ring_word, one):
                continue
            (<uint32_t *>words)[EXIT_REASON] = self.io_exit
            words[IO_WORD] = one[0]
            words[IO_DATA_OFFSET] = PAGE_OF_DATA
            (<uint8_t *>words)[PAGE_OF_DATA] = one[1] & 0xFF
            found = self.handle()
            if found != NOTICED or self.attention.bits:
                return found
        self.end()
        self.error = EINTR
        return FAILED

    cdef bint coalesce(self, uint64_t *indices, const uint64_t *one) noexcept nogil:
        """Put a write into the ring, if that is not full."""
        cdef uint64_t ring = load(indices)
        cdef uint64_t last = ring >> 32
        cdef uint64_t following = (last + 1) % self.ring.entries
        cdef uint64_t *entry = indices + 1 + self.ring.entry_words * last
        if following == ring & 0xFFFFFFFFULL:
            return False
        entry[0], entry[1], entry[RING_DATA] = one[0] >> 16 & 0xFFFF, self.ring.byte_to_port, one[1] & 0xFF
        store_half(<uint32_t *>indices + 1, <uint32_t>following)
        return True

    cdef void end(self) noexcept with gil:
        self.ended()
