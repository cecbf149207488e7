# --- The ring of coalesced writes ------------------------------------------------------------------------
#
# Part of vmm.pyx. The module `run.vcpu.coalesced_ring` says who moves `first`, when, and under which lock.

cdef enum:
    MOST_ZONES = 32
    MOST_IN_RUN = 256
    # As wire.access_blocks.
    MAX_WIDE = 8
    LISTED = 16
    # What `drain_here` has done: not all of it, all of it, or all of it and the write that comes behind it.
    LEFT = 0
    EMPTY = 1
    MADE = 2


cdef uint64_t NOWHERE = <uint64_t>-1


cdef struct Zone:
    uint64_t port
    uint64_t offset
    int64_t carried     # writes that were delivered here, and are not counted by the device
    uint64_t index      # of the device in its process
    uint64_t latch      # of a latch: the word of a write; otherwise 0
    PyObject *device
    PyObject *core      # its ChannelCore, or NULL where Python delivers
    PyObject *source    # the SourceCore of its pin 0, while writes that exit may be posted; otherwise NULL
    bint may_post       # writes that exit may be posted, and raise nothing
    uint64_t posted     # so many were since the ring was empty


cdef class RingCore:
    """The compiled half of `run.vcpu.coalesced_ring.CoalescedRing`."""

    cdef public uint64_t writes
    cdef public object _failure
    cdef Lock mutex
    cdef bint carries
    cdef uint64_t entries
    cdef size_t entry_words
    cdef uint64_t byte_to_port
    cdef uint64_t most_posted
    cdef Zone table[MOST_ZONES]
    cdef size_t zones
    cdef bint posts     # whether a zone has a source
    cdef uint8_t run[MOST_IN_RUN]
    cdef object owned   # what the table points to
    cdef Zone *owed     # of the device that a read is owed to; and of the read
    cdef uint64_t owed_offset
    cdef uint64_t owed_at

    def set_up(self, Lock lock, zones, pairs, bint carries, *, entries, entry_size, byte_to_port, most_posted):
        """`lock` is the lock of the ring; all else is as there. `pairs` are ports whose writes Python delivers. Zones beyond MOST_ZONES are left to Python."""
        self.entries, self.entry_words, self.byte_to_port = entries, entry_size // 8, byte_to_port
        self.mutex, self.carries, self.owned, self.owed_at = lock, carries, zones, NOWHERE
        self.most_posted, self.owed = most_posted, &self.table[0]
        for port, (device, register) in zones.items():
            if self.zones < MOST_ZONES:
                self.table[self.zones] = Zone(port, register, 0, 0, 0, <PyObject *>device, NULL, NULL, False, 0)
                core = None if port in pairs else getattr(device, "channel", None)
                if isinstance(core, ChannelCore):
                    self.table[self.zones].index = device.index
                    self.table[self.zones].core = <PyObject *>core
                self.zones += 1

    cdef Zone *zone_of(self, const uint64_t *entry) noexcept nogil:
        """The zone of a write, or NULL."""
        cdef size_t number
        for number in range(self.zones):
            if entry[0] == self.table[number].port and entry[1] == self.byte_to_port:
                return self.table + number
        return NULL

    def latch(self, uint64_t port, uint64_t word):
        """`port` is that of a latch; `word` is that of a write to it."""
        cdef size_t number
        for number in range(self.zones):
            if self.table[number].port == port:
                self.table[number].latch = word

    cdef bint give_latch(self, uint64_t *indices) noexcept nogil:
        """If all writes in the ring are to one latch: give the device the last one, and empty the ring. False:
        nothing has happened, or the device has failed, which the next one to take the lock is told.
        """
        cdef uint64_t word, first, last, port, number, count
        cdef const uint64_t *entry
        cdef Zone *zone = NULL
        cdef Open it
        cdef bint given = False
        cdef bint finished = False
        PyThread_acquire_lock(self.mutex.lock, 1)
        word = load(indices)
        first, last = word & 0xFFFFFFFFULL, word >> 32
        if <void *>self._failure == <void *>None and first < self.entries and last < self.entries:
            port, count = 0, (last + self.entries - first) % self.entries
            for number in range(count):
                entry = indices + 1 + self.entry_words * ((first + number) % self.entries)
                if entry[1] != self.byte_to_port or number and entry[0] != port:
                    break
                port = entry[0]
            else:
                for number in range(self.zones):
                    if count and self.table[number].port == port and self.table[number].latch:
                        zone = &self.table[number]
        if zone != NULL and zone.core != NULL:
            it.limit = 0
            # SAFETY: `owned` holds the channel.
            given = (<ChannelCore>zone.core).begin(&it, zone.latch, zone.offset, entry[2] & 0xFF)
            if given and it.status != ANSWERED:
                finished = True
                given = self.finish(zone.core, &it)
            if given:
                self.owed_at = NOWHERE
                # Not before the answer, as in `run.vcpu.coalesced_ring`.
                store_half(<uint32_t *>indices, <uint32_t>last)
                self.writes += count
                zone.carried += count
        PyThread_release_lock(self.mutex.lock)
        if finished:
            self.leave_room()
        return given

    def let_post(self, uint64_t port, int allowed):
        """See CoalescedRing."""
        cdef size_t number
        cdef Zone *zone
        self.posts = False
        for number in range(self.zones):
            zone = &self.table[number]
            if zone.port == port and zone.core != NULL:
                lines = (<ChannelCore>zone.core)._lines[zone.index]
                is_ours = bool(lines) and isinstance(lines[0], SourceCore)
                if zone.source != NULL and allowed != MAY_PULSE:
                    lines[0].settle()
                # SAFETY: the grants of the channel hold the source.
                zone.source = <PyObject *>lines[0] if allowed == MAY_PULSE and is_ours else NULL
                zone.may_post, zone.posted = allowed == 1, 0
            self.posts |= zone.source != NULL or zone.may_post

    cdef bint post(self, uint64_t *indices, PyObject *device, uint64_t offset, uint64_t byte) noexcept nogil:
        """Put a write that has exited into the ring, as KVM does with those that do not, and raise the line that
        it raises. By the only vCPU. False: nothing has happened.
        """
        cdef size_t number
        cdef uint64_t word, first, last
        cdef uint64_t *entry
        cdef Zone *zone = NULL
        cdef bint posted = False
        for number in range(self.zones):
            if self.table[number].device == device and self.table[number].offset == offset:
                zone = &self.table[number]
        if zone == NULL or zone.source == NULL and not zone.may_post or not self.carries:
            return False
        # Under this lock no request is on its way that may forbid it.
        # SAFETY: `owned` holds the device, and it holds the channel.
        if not PyThread_acquire_lock((<ChannelCore>zone.core).mutex.lock, 0):
            return False
        word = load(indices)
        first, last = word & 0xFFFFFFFFULL, word >> 32
        if (
            first < self.entries
            and last < self.entries
            and (last + 1) % self.entries != first
            and <void *>self._failure == <void *>None
            and (zone.source != NULL or zone.may_post)
            and (<ChannelCore>zone.core).is_quiet()
            and (zone.may_post or self.edge(<SourceCore>zone.source))
        ):
            entry = indices + 1 + self.entry_words * last
            entry[0], entry[1], entry[2] = zone.port, self.byte_to_port, byte
            store_half(<uint32_t *>indices + 1, <uint32_t>((last + 1) % self.entries))
            zone.carried -= 1  # counted as an exit, and as a write in the ring
            posted = True
        PyThread_release_lock((<ChannelCore>zone.core).mutex.lock)
        if posted and zone.may_post:
            zone.posted = 1 if first == last else zone.posted + 1
            if zone.posted == self.most_posted:
                self.tell_busy(zone.port)
        return posted

    cdef void tell_busy(self, uint64_t port) noexcept with gil:
        try:
            (<object>self).be_busy(port)
        except BaseException as error:
            self._failure = error

    cdef bint edge(self, SourceCore source) noexcept nogil:
        cdef int found = source._router.edge(source)
        if found == REFUSED:
            self.fail(source._router)
        return found == TOLD

    cdef void fail(self, RouterCore router) noexcept with gil:
        self._failure = router.refusal()

    cdef void leave_room(self) noexcept with gil:
        self._room.wait_for_room()

    cdef bint carry_along(self, uint64_t *indices, PyObject *device, uint64_t *value) noexcept nogil:
        """If the only write in the ring is for `device`: take it out, and give the value of an indexed read.

        `indices` is the word with `first` and `last`.
        """
        cdef uint64_t word, first, last
        cdef const uint64_t *entry
        cdef Zone *zone
        cdef bint taken = False
        if not self.carries:
            return False
        PyThread_acquire_lock(self.mutex.lock, 1)
        word = load(indices)
        first, last = word & 0xFFFFFFFFULL, word >> 32
        if <void *>self._failure == <void *>None and first < self.entries and (first + 1) % self.entries == last:
            entry = indices + 1 + self.entry_words * first
            zone = self.zone_of(entry)
            taken = zone != NULL and device == zone.device and not zone.may_post
            if taken:
                value[0] = zone.offset << 32 | (entry[2] & 0xFF)
                self.owed_at = NOWHERE
                store_half(<uint32_t *>indices, <uint32_t>last)
                self.writes += 1
                zone.carried += 1
        PyThread_release_lock(self.mutex.lock)
        return taken

    cdef int drain_here(
        self, uint64_t *indices, Open *it, PyObject *device, uint64_t offset, uint64_t byte
    ) noexcept nogil:
        """Deliver what is in the ring now, as `CoalescedRing.drain` does, and if it fits behind that the write of
        `byte` to register `offset` of `device`, if that is not NULL.

        A read that is owed comes last, if no write does. No run of writes to a latch, or to a device with a
        journal: whatever there is of those is Python's.
        """
        cdef uint64_t word, first, last, value, registers, count, taken, place
        cdef const uint64_t *entry
        cdef Zone *zone
        cdef Zone *next_one
        cdef Zone *before
        cdef int found = LEFT
        cdef bint finished = False
        cdef bint is_run, begun
        PyThread_acquire_lock(self.mutex.lock, 1)
        word = load(indices)
        first, last = word & 0xFFFFFFFFULL, word >> 32
        if <void *>self._failure == <void *>None and first < self.entries and last < self.entries:
            # All of them or none: of what is left, Python would let a read carry a single write along.
            for count in range((last + self.entries - first) % self.entries):
                entry = indices + 1 + self.entry_words * ((first + count) % self.entries)
                zone = self.zone_of(entry)
                if zone == NULL or zone.core == NULL:
                    PyThread_release_lock(self.mutex.lock)
                    return LEFT
            while True:
                if first == last:
                    found = EMPTY
                    break
                zone = before = NULL
                value = registers = count = 0
                place = first
                while place != last and count < MAX_WIDE:
                    entry = indices + 1 + self.entry_words * place
                    next_one = self.zone_of(entry)
                    if zone == NULL:
                        zone = next_one
                    elif (
                        next_one.device != zone.device
                        or next_one == before
                        or zone.offset >= LISTED
                        or next_one.offset >= LISTED
                    ):
                        break
                    value |= (entry[2] & 0xFF) << 8 * count
                    registers |= next_one.offset << 4 * count
                    count += 1
                    place = (place + 1) % self.entries
                    before = next_one
                is_run = count == 1 and place != last and next_one == zone
                if is_run and zone.latch:
                    break
                while is_run and place != last and count < MOST_IN_RUN:
                    entry = indices + 1 + self.entry_words * place
                    if self.zone_of(entry) != zone:
                        break
                    self.run[count] = entry[2] & 0xFF
                    count += 1
                    place = (place + 1) % self.entries
                self.run[0] = value & 0xFF
                taken = count
                if not is_run and place == last and count < MAX_WIDE and device == zone.device and (zone.offset | offset) < LISTED:
                    value |= byte << 8 * count
                    registers |= offset << 4 * count
                    count += 1
                    found = MADE
                it.limit = 0
                word = WRITE if count == 1 else WRITE_LIST
                # SAFETY: `owned` holds the device, and it holds the channel.
                if is_run:
                    begun = (<ChannelCore>zone.core).begin_run(it, zone.index, zone.offset, self.run, count)
                else:
                    begun = (<ChannelCore>zone.core).begin(
                        it, word | zone.index << 8 | count << 16, zone.offset if count == 1 else registers, value
                    )
                if not begun:
                    found = LEFT
                    break
                if it.status != ANSWERED:
                    finished = True
                    if not self.finish(zone.core, it):
                        found = LEFT
                        break
                self.writes += taken
                zone.carried += taken
                first = place
                if first == last and found != MADE and self.owed_at == last and not self.give_owed(it, &finished):
                    found = LEFT
                    break
                store_half(<uint32_t *>indices, <uint32_t>first)
                if found == MADE:
                    break
            if found != LEFT:
                self.owed_at = NOWHERE
        PyThread_release_lock(self.mutex.lock)
        if finished:
            self.leave_room()
        return found

    cdef bint finish(self, PyObject *core, Open *it) noexcept with gil:
        """The end of a request whose reply changes something, or has not come. Whether it was answered."""
        room = (<object>self)._room
        room.postpone(PyThread_get_thread_ident())  # see `run.vcpu.coalesced_ring`
        try:
            (<ChannelCore>core).end_access(it)
        except BaseException as error:
            self._failure = error
            return False
        finally:
            room.postpone(0)
        return True

    cdef bint give_owed(self, Open *it, bint *finished) noexcept nogil:
        """Let the device have the read that is owed. Under the lock of the ring. False: it has failed."""
        self.owed_at = NOWHERE
        it.limit = 0xFF
        # SAFETY: `owned` holds the device, and it holds the channel.
        if not (<ChannelCore>self.owed.core).begin(it, READ | self.owed.index << 8 | 1 << 16, self.owed_offset, 0):
            return True
        if it.status == ANSWERED:
            return True
        finished[0] = True
        return self.finish(self.owed.core, it)

    cdef bint owe(self, const uint64_t *indices, PyObject *device, uint64_t offset) noexcept nogil:
        """See CoalescedRing."""
        cdef uint64_t last = load(indices) >> 32
        cdef size_t number
        if self.owed_at == last:
            return False
        for number in range(self.zones):
            if self.table[number].device == device and self.table[number].core != NULL:
                self.owed, self.owed_offset, self.owed_at = &self.table[number], offset, last
                return True
        return False

    @property
    def owing(self):
        """See CoalescedRing."""
        if self.owed_at == NOWHERE:
            return None
        return <object>self.owed.device, self.owed_offset, self.owed_at

    @owing.setter
    def owing(self, value):
        cdef uint64_t offset, at
        self.owed_at = NOWHERE
        if value is not None:
            device, offset, at = value
            for number in range(self.zones):
                if <object>self.table[number].device is device:
                    self.owed, self.owed_offset, self.owed_at = &self.table[number], offset, at

    cdef bint newest(self, const uint64_t *indices, PyObject *device, uint64_t *value) noexcept nogil:
        """Whether the newest write in the ring is for `device`: then the value of a read that it is carried
        along with. Only the vCPU that fills the ring asks, so that there is no newer one; another thread may
        deliver it meanwhile.
        """
        cdef uint64_t last = load(indices) >> 32
        cdef const uint64_t *entry
        cdef Zone *zone
        if not self.carries or last >= self.entries:
            return False
        entry = indices + 1 + self.entry_words * ((last if last else self.entries) - 1)
        zone = self.zone_of(entry)
        if zone == NULL or device != zone.device:
            return False
        value[0] = zone.offset << 32 | (entry[2] & 0xFF)
        return True

    def take_carried(self):
        """(Device, number) of the writes that have left here since the last call."""
        cdef size_t number
        taken = []
        for number in range(self.zones):
            taken.append((<object>self.table[number].device, self.table[number].carried))
            self.table[number].carried = 0
        return taken
