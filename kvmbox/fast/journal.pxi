# --- The journal -----------------------------------------------------------------------------------------
#
# Part of vmm.pyx.

cdef enum:
    RECORD = 8  # words: the header of a request, and that of its reply


cdef class JournalCore:
    """The newest entries of a `compiled_channel.CompiledJournal`, those without payloads. Under the lock of the
    channel.
    """

    cdef uint64_t *records
    cdef readonly size_t count
    cdef size_t limit
    cdef public size_t listed
    """How many entries are before these."""

    def __cinit__(self, size_t limit):
        self.limit = limit
        self.records = <uint64_t *>PyMem_Malloc(limit * RECORD * sizeof(uint64_t))
        if self.records == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.records)

    cdef bint keep(self, const uint64_t *asked, const uint64_t *reply) noexcept nogil:
        """Add an entry, unless it would be the last: then somebody has to look at the journal."""
        cdef uint64_t *record = self.records + RECORD * self.count
        if self.count + self.listed + 1 >= self.limit:
            return False
        memcpy(record, asked, 4 * sizeof(uint64_t))
        memcpy(record + 4, reply, 4 * sizeof(uint64_t))
        self.count += 1
        return True

    def add(self, asked, reply):
        """Add an entry if there is room; whether there was."""
        cdef uint64_t *record = self.records + RECORD * self.count
        cdef size_t place
        if self.count >= self.limit:
            return False
        for place in range(4):
            record[place] = asked[place]
            record[4 + place] = reply[place]
        self.count += 1
        return True

    def take(self):
        """All entries, which are not here any more."""
        cdef uint64_t *record
        cdef size_t number
        taken = []
        for number in range(self.count):
            record = self.records + RECORD * number
            asked = (record[0], record[1], record[2], record[3])
            taken.append((asked, b"", (record[4], record[5], record[6], record[7]), b""))
        self.count = 0
        return taken

    def drop(self):
        """Forget all entries."""
        self.count = self.listed = 0
