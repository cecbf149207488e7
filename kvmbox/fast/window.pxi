# --- Windows ---------------------------------------------------------------------------------------------

cdef enum:
    # What the guest may do, as in remote.window.
    READS = 1
    WRITES = 2


cdef class WindowCore:
    """The compiled half of `remote.window.DataWindow`: all accesses but the last one."""

    cdef public int use
    cdef public uint64_t position
    cdef public uint64_t end
    cdef Lock mutex
    cdef object held
    cdef uint8_t *bytes

    def guarded_by(self, lock):
        """See DataWindow."""
        self.mutex = lock if isinstance(lock, Lock) else None

    def look_at(self, bytearray data):
        """The bytes of the window are those of `data`, whose length does not change. Under the lock."""
        self.held = data
        self.bytes = <uint8_t *>PyByteArray_AS_STRING(data)

    cdef bint serve(self, uint8_t *data, uint64_t size, bint is_read) noexcept nogil:
        """Make an access that is not the last one. False: nothing has happened."""
        cdef bint served
        if <void *>self.mutex == <void *>None:
            return False
        PyThread_acquire_lock(self.mutex.lock, 1)
        # SAFETY: `held` is changed under the lock only, and has `end` bytes.
        served = self.use == (READS if is_read else WRITES) and self.end - self.position > size
        if served:
            if is_read:
                memcpy(data, self.bytes + self.position, size)
            else:
                memcpy(self.bytes + self.position, data, size)
            self.position += size
        PyThread_release_lock(self.mutex.lock)
        return served


