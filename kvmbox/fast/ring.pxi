# --- The ring of coalesced writes ------------------------------------------------------------------------
#
# Part of vmm.pyx. The module `run.coalescing` says who moves `first`, when, and under which lock.

cdef enum:
    MOST_ZONES = 16


cdef struct Zone:
    uint64_t port
    uint64_t register
    uint64_t carried    # writes that were carried along here, and are not counted by the device
    PyObject *device


cdef class RingCore:
    """The compiled half of `run.coalescing.CoalescedRing`."""

    cdef public uint64_t writes
    cdef public object _failure
    cdef Lock mutex
    cdef bint carries
    cdef uint64_t entries
    cdef size_t entry_words
    cdef uint64_t byte_to_port
    cdef Zone table[MOST_ZONES]
    cdef size_t zones
    cdef object owned   # what the table points to

    def set_up(self, Lock lock, zones, bint carries, *, entries, entry_size, byte_to_port):
        """`lock` is the lock of the ring; all else is as there. Zones beyond MOST_ZONES are left to Python."""
        self.entries, self.entry_words, self.byte_to_port = entries, entry_size // 8, byte_to_port
        self.mutex, self.carries, self.owned = lock, carries, zones
        for port, (device, register) in zones.items():
            if self.zones < MOST_ZONES:
                self.table[self.zones] = Zone(port, register, 0, <PyObject *>device)
                self.zones += 1

    cdef bint carry_along(self, uint64_t *indices, PyObject *device, uint64_t *value) noexcept nogil:
        """If the only write in the ring is for `device`: take it out, and give the value of an indexed read.

        `indices` is the word with `first` and `last`.
        """
        cdef uint64_t word, first, last
        cdef uint64_t *entry
        cdef size_t number
        cdef bint taken = False
        if not self.carries:
            return False
        PyThread_acquire_lock(self.mutex.lock, 1)
        word = load(indices)
        first, last = word & 0xFFFFFFFFULL, word >> 32
        if <void *>self._failure == <void *>None and first < self.entries and (first + 1) % self.entries == last:
            entry = indices + 1 + self.entry_words * first
            for number in range(self.zones):
                if (
                    entry[0] == self.table[number].port
                    and entry[1] == self.byte_to_port
                    and device == self.table[number].device
                ):
                    value[0] = self.table[number].register << 32 | (entry[2] & 0xFF)
                    store_half(<uint32_t *>indices, <uint32_t>last)
                    self.writes += 1
                    self.table[number].carried += 1
                    taken = True
                    break
        PyThread_release_lock(self.mutex.lock)
        return taken

    cdef bint newest(self, const uint64_t *indices, PyObject *device, uint64_t *value) noexcept nogil:
        """Whether the newest write in the ring is for `device`: then the value of a read that it is carried
        along with. Only the vCPU that fills the ring asks, so that there is no newer one; another thread may
        deliver it meanwhile.
        """
        cdef uint64_t last = load(indices) >> 32
        cdef const uint64_t *entry
        cdef size_t number
        if not self.carries or last >= self.entries:
            return False
        entry = indices + 1 + self.entry_words * ((last if last else self.entries) - 1)
        for number in range(self.zones):
            if (
                entry[0] == self.table[number].port
                and entry[1] == self.byte_to_port
                and device == self.table[number].device
            ):
                value[0] = self.table[number].register << 32 | (entry[2] & 0xFF)
                return True
        return False

    def take_carried(self):
        """(Device, number) of the writes that were carried along here since the last call."""
        cdef size_t number
        taken = []
        for number in range(self.zones):
            taken.append((<object>self.table[number].device, self.table[number].carried))
            self.table[number].carried = 0
        return taken
