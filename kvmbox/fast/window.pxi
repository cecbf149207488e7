# --- Windows ---------------------------------------------------------------------------------------------

from posix.types cimport off_t
from posix.uio cimport iovec

cdef extern from "<sys/uio.h>" nogil:
    ssize_t preadv2(int descriptor, const iovec *pieces, int count, off_t offset, int flags)
    int RWF_NOWAIT

cdef enum:
    QUIET_END = 2   # as contract.bulk_data

    # What the guest may do, as in remote.published.data_window.
    READS = 1
    WRITES = 2


cdef class WindowCore:
    """The compiled half of `remote.published.data_window.DataWindow`: all accesses but the last one."""

    cdef public int use
    cdef public uint64_t position
    cdef public uint64_t end
    cdef Lock mutex
    cdef object held
    cdef uint8_t *bytes
    cdef public object _opening

    def guarded_by(self, lock):
        """See DataWindow."""
        self.mutex = lock if isinstance(lock, Lock) else None

    def look_at(self, bytearray data):
        """The bytes of the window are those of `data`, whose length does not change. Under the lock."""
        self.held = data
        self.bytes = <uint8_t *>PyByteArray_AS_STRING(data)

    def filled(self, int descriptor, uint64_t offset, uint64_t size):
        """So many bytes of a file, as far as nothing has to be waited for; or None."""
        cdef iovec piece
        data = bytearray(size)
        piece.iov_base, piece.iov_len = PyByteArray_AS_STRING(data), size
        return data if preadv2(descriptor, &piece, 1, <off_t>offset, RWF_NOWAIT) == <ssize_t>size else None

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


cdef class WindowAccessCore:
    """The compiled half of `remote.published.window_access.WindowAccess`: the last element that the guest reads."""

    cdef ChannelCore core
    cdef WindowCore view
    cdef uint64_t register
    cdef uint64_t complete      # the first word of COMPLETE to the device

    def set_up(self, ChannelCore core, WindowCore view, uint64_t register, uint64_t complete):
        """`register` is that of the window."""
        self.core, self.view, self.register, self.complete = core, view, register, complete

    def access(self, uint64_t word, uint64_t offset, uint64_t value, limit):
        """See WindowAccess."""
        cdef uint64_t size = word >> 16 & 0xFF, found = 0
        cdef WindowCore view = self.view
        if word & 0xFF != READ or offset != self.register or <void *>self.core == <void *>None:
            return self.pure_access(word, offset, value, limit)
        if not PyThread_acquire_lock(self.core.mutex.lock, 0):
            with nogil:
                PyThread_acquire_lock(self.core.mutex.lock, 1)
        try:
            if view.use != READS or view.end - view.position != size:
                size = 0
            else:
                # SAFETY: as in `serve`.
                memcpy(&found, view.bytes + view.position, size)
                opening = view._opening
                view.shut()
                kind = Posted if opening.to_guest & QUIET_END else FollowUp
                self.core.follow([kind(COMPLETE, self.complete >> 8 & 0xFF, opening.tag | MOVED << 32, 0, b"")])
        finally:
            PyThread_release_lock(self.core.mutex.lock)
        if not size:
            return self.pure_access(word, offset, value, limit)
        self.core._wait_for_output()
        return found
