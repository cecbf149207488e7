# --- Virtqueues ------------------------------------------------------------------------------------------
#
# Part of vmm.pyx. The modules `remote.published.walker` and `remote.published.queues` say what is done here, and why. All of it is
# with the GIL, but the wait for the device process and long reads, and under the lock of the channel.

cdef uint64_t CHAINS = protocol.CHAINS
cdef uint64_t SERVE_TAG, HEAD_BYTES, WITH_EVENT_INDEX, WITH_TABLES, MAX_PART_BYTES, MOST_IN_TABLE
cdef object USED_BUFFER, Parts, RingError, ChainServe

cdef enum:
    # As `contract.ring_shape.VIRTIO_SPLIT` and `devices.virtio.vmm`.
    HAS_NEXT = 1
    IS_WRITABLE = 2
    IS_TABLE = 4
    NO_INTERRUPT = 1
    NO_NOTIFY = 1
    INDEX = 2
    ENTRIES = 4
    DESCRIPTOR_BYTES = 16
    USED_BYTES = 8
    MOST_REGIONS = 8
    TABLE_ENTRIES = 256     # most_in_table, at most
    WALKED = 64             # MAX_CHAINS, at most
    MOST_HEAD = 32          # CHAIN_HEAD, at most
    MOST_HEADER = 64        # media.MOST_HEADER, at most
    CHAIN_BYTES = 13        # of a chain in CHAINS, without its head
    MOST_VECTORS = 512      # pieces that one read fills; a chain of more is Python's
    SERVE_WORDS = 7         # of the effect, the first word included
    LONG_READ = 1 << 14     # bytes whose read gives up the GIL


def learn_queues(media, effects, walker, shape, chains, interrupts):
    """The modules that define what is used here: a run without virtqueues does not load them."""
    global SERVE_TAG, HEAD_BYTES, WITH_EVENT_INDEX, WITH_TABLES, MAX_PART_BYTES, MOST_IN_TABLE
    global USED_BUFFER, Parts, RingError, ChainServe
    if shape.entry.most_in_table > TABLE_ENTRIES or chains.MAX_CHAINS > WALKED or media.CHAIN_HEAD > MOST_HEAD or media.MOST_HEADER > MOST_HEADER:
        raise ImportError("the bounds of queues.pxi are too small")
    SERVE_TAG, HEAD_BYTES = effects.BY_CLASS[media.ChainServe].tag, media.CHAIN_HEAD
    WITH_EVENT_INDEX, WITH_TABLES = media.EVENT_INDEX, media.INDIRECT
    MAX_PART_BYTES, MOST_IN_TABLE = shape.most_bytes, shape.entry.most_in_table
    USED_BUFFER, Parts, RingError = interrupts.USED_BUFFER, walker.Parts, walker.RingError
    ChainServe = media.ChainServe


cdef struct Descriptor:
    uint64_t address
    uint32_t length
    uint16_t flags
    uint16_t following


cdef struct Piece:
    # Bytes of the guest that are RAM.
    uint64_t address
    uint64_t size


cdef struct Walked:
    # A chain: its pieces are `first` and those behind it in `RamCore.pieces`, the readable ones before the others.
    uint16_t head
    bint is_served
    size_t first
    size_t readable_count
    size_t writable_count
    uint64_t readable
    uint64_t writable


cdef class RamCore:
    """Guest memory as compiled code reaches it, from `hold` to `release`, and what a walk has found in it."""

    cdef list regions
    cdef list video
    cdef Py_buffer buffers[MOST_REGIONS]
    cdef uint64_t starts[MOST_REGIONS]
    cdef size_t count
    cdef Piece *pieces
    cdef size_t used
    cdef size_t room
    cdef Walked walked[WALKED]
    cdef Descriptor table[TABLE_ENTRIES]

    def __init__(self, list regions, list video):
        """`regions` and `video` are those of `GuestMemory`, which has none any more when it is closed."""
        self.regions = regions
        self.video = video

    def __dealloc__(self):
        PyMem_Free(self.pieces)

    cdef bint hold(self) except -1:
        """Whether there is memory to look at."""
        # SAFETY: a mapping cannot go away while its buffer is held.
        for region in (*self.regions, *self.video):
            if self.count == MOST_REGIONS:
                break
            PyObject_GetBuffer(region.pages, &self.buffers[self.count], PyBUF_SIMPLE | PyBUF_WRITABLE)
            self.starts[self.count] = region.start
            self.count += 1
        return self.count != 0

    cdef void release(self):
        while self.count:
            self.count -= 1
            PyBuffer_Release(&self.buffers[self.count])

    cdef uint8_t *at(self, uint64_t address, uint64_t size) noexcept nogil:
        """Where these bytes are, or NULL if they are not all RAM, within one region."""
        cdef size_t number
        cdef uint64_t offset, length
        for number in range(self.count):
            offset, length = address - self.starts[number], <uint64_t>self.buffers[number].len
            if address >= self.starts[number] and offset <= length and size <= length - offset:
                return <uint8_t *>self.buffers[number].buf + offset
        return NULL

    cdef bint add(self, uint64_t address, uint64_t size) except -1:
        cdef Piece *more
        if self.used == self.room:
            more = <Piece *>PyMem_Realloc(self.pieces, (2 * self.room + 64) * sizeof(Piece))
            if more == NULL:
                raise MemoryError
            self.pieces, self.room = more, 2 * self.room + 64
        self.pieces[self.used] = Piece(address, size)
        self.used += 1
        return True

    cdef object parts(self, const Walked *chain):
        """The same chain as Python has it."""
        cdef size_t number, middle = chain.first + chain.readable_count
        ranges = [
            (self.pieces[number].address, self.pieces[number].size)
            for number in range(chain.first, middle + chain.writable_count)
        ]
        return Parts(chain.head, ranges[: chain.readable_count], ranges[chain.readable_count :])

    cdef int vectors(self, const Walked *chain, uint64_t skip, uint64_t size, iovec *found) noexcept nogil:
        """The bytes [skip, skip + size) of the writable part, which has them, or as many as `found` has room for;
        how many pieces that are.
        """
        cdef int count = 0
        cdef size_t number
        cdef uint64_t length, part
        for number in range(chain.first + chain.readable_count, chain.first + chain.readable_count + chain.writable_count):
            if not size or count == MOST_VECTORS:
                break
            length = self.pieces[number].size
            if skip >= length:
                skip -= length
                continue
            part = min(length - skip, size)
            found[count].iov_base = self.at(self.pieces[number].address + skip, part)
            found[count].iov_len = part
            count += 1
            size -= part
            skip = 0
        return count

    cdef bytes bytes_of(self, const Walked *chain, uint64_t skip):
        """The readable bytes from `skip` on, which are some."""
        cdef bytes found = PyBytes_FromStringAndSize(NULL, chain.readable - skip)
        cdef char *target = <char *>found
        cdef size_t number
        cdef uint64_t part, length
        for number in range(chain.first, chain.first + chain.readable_count):
            length = self.pieces[number].size
            part = min(skip, length)
            copy_once(target, self.at(self.pieces[number].address + part, length - part), length - part)
            target += length - part
            skip -= part
        return found

    cdef size_t head_of(self, const Walked *chain, uint8_t *target) noexcept nogil:
        """Copy the first readable bytes; how many that are."""
        cdef size_t done = 0, number
        cdef uint64_t part
        for number in range(chain.first, chain.first + chain.readable_count):
            part = min(self.pieces[number].size, HEAD_BYTES - done)
            if not part:
                break
            copy_once(target + done, self.at(self.pieces[number].address, part), part)
            done += part
        return done


cdef class VirtqueueCore:
    """The compiled half of `devices.virtio.vmm.Virtqueue`."""

    cdef public uint64_t size
    cdef public uint64_t flags
    cdef public uint64_t descriptors
    cdef public uint64_t available
    cdef public uint64_t used
    cdef public uint64_t next_available
    cdef public uint64_t next_used
    cdef RamCore ram
    cdef uint16_t *available_words
    cdef uint16_t *used_words

    def lies_in(self, RamCore ram):
        """`ram` is the memory that the ring has been found to lie in."""
        self.ram = ram

    cdef bint find(self) noexcept nogil:
        """Where the areas are, while the memory is held."""
        self.available_words = <uint16_t *>self.ram.at(self.available, 6 + 2 * self.size)
        self.used_words = <uint16_t *>self.ram.at(self.used, 6 + 8 * self.size)
        return (
            self.available_words != NULL
            and self.used_words != NULL
            and self.ram.at(self.descriptors, DESCRIPTOR_BYTES * self.size) != NULL
        )

    cdef int waiting(self) noexcept nogil:
        """How many chains are available; -1 if that cannot be."""
        cdef uint16_t index = load_short(self.available_words + INDEX // 2)
        cdef uint16_t count = <uint16_t>(index - <uint16_t>self.next_available)
        return -1 if count > self.size else count

    cdef void want_notice(self, bint on) noexcept nogil:
        if not self.flags & WITH_EVENT_INDEX:
            store_short(self.used_words, 0 if on else NO_NOTIFY)
        elif on:
            store_short(self.used_words + (ENTRIES + USED_BYTES * self.size) // 2, <uint16_t>self.next_available)
        fence()

    cdef int walk(self, int limit) except -2:
        """Find at most `limit` chains: how many are in `ram.walked`. -1: this is no ring."""
        cdef int found = 0, waiting, number
        self.ram.used = 0
        while found < limit:
            waiting = self.waiting()
            if not waiting:
                self.want_notice(True)
                waiting = self.waiting()
                if not waiting:
                    return found
            if waiting < 0:
                return -1
            for number in range(min(waiting, limit - found)):
                if not self.take_next(&self.ram.walked[found]):
                    return -1
                found += 1
        self.want_notice(False)
        return found

    cdef bint take_next(self, Walked *chain) except -1:
        cdef uint64_t slot = self.next_available % self.size
        chain.head = load_short(self.available_words + ENTRIES // 2 + slot)
        if not self.follow(chain):
            return False
        self.next_available = (self.next_available + 1) & 0xFFFF
        return True

    cdef bint follow(self, Walked *chain) except -1:
        """Find the pieces of the chain with this head. False: it is none."""
        cdef RamCore ram = self.ram
        cdef const Descriptor *table = <const Descriptor *>ram.at(self.descriptors, DESCRIPTOR_BYTES * self.size)
        cdef Descriptor one
        cdef uint64_t count = self.size, left = self.size, index = chain.head, words[2]
        cdef bint may_read = True, in_table = False
        cdef const uint8_t *place
        cdef size_t number
        chain.first, chain.readable_count, chain.writable_count = ram.used, 0, 0
        chain.readable = chain.writable = 0
        chain.is_served = False
        while True:
            if index >= count or not left:
                return False
            left -= 1
            if in_table:
                one = table[index]
            else:
                words[0] = load(<const uint64_t *>(table + index))
                words[1] = load(<const uint64_t *>(table + index) + 1)
                memcpy(&one, words, sizeof(one))
            if one.flags & IS_TABLE:
                count = one.length // DESCRIPTOR_BYTES
                if in_table or not self.flags & WITH_TABLES or one.flags & HAS_NEXT:
                    return False
                if one.length % DESCRIPTOR_BYTES or not count or count > MOST_IN_TABLE:
                    return False
                place = ram.at(one.address, one.length)
                if place == NULL:
                    return False
                copy_once(ram.table, place, one.length)
                table, in_table = ram.table, True
                left, index = count, 0
                continue
            if one.flags & IS_WRITABLE:
                may_read = False
            elif not may_read:
                return False
            if one.length:
                if ram.at(one.address, one.length) == NULL:
                    return False
                if one.flags & IS_WRITABLE:
                    chain.writable_count += 1
                    chain.writable += one.length
                else:
                    chain.readable_count += 1
                    chain.readable += one.length
                ram.add(one.address, one.length)
            if not one.flags & HAS_NEXT:
                return chain.readable <= MAX_PART_BYTES and chain.writable <= MAX_PART_BYTES
            index = one.following

    cdef void lay(self, uint64_t number, uint16_t head, uint32_t written) noexcept nogil:
        """Write the chain that goes back as the next but `number`."""
        cdef uint64_t slot = (self.next_used + number) % self.size
        cdef uint32_t *element = <uint32_t *>(self.used_words + (ENTRIES + USED_BYTES * slot) // 2)
        store_half(element, head)
        store_half(element + 1, written)

    cdef bint give(self, uint64_t count) noexcept nogil:
        """Give back the chains that were written, so many; whether the driver wants an interrupt for that."""
        cdef uint16_t last = <uint16_t>(self.next_used + count - 1)
        self.next_used = (self.next_used + count) & 0xFFFF
        store_short(self.used_words + INDEX // 2, <uint16_t>self.next_used)
        fence()
        if self.flags & WITH_EVENT_INDEX:
            return <uint16_t>(last - load_short(self.available_words + (ENTRIES + 2 * self.size) // 2)) < count
        return not load_short(self.available_words) & NO_INTERRUPT

    cdef int gather(self, uint64_t wanted, int most) except -3:
        """Take chains that have so many writable bytes: how many are in `ram.walked`, `most` at most. 0: that many
        do not have them, and -1: there are too few; then none is taken. -2: this is no ring.
        """
        cdef int found = 0, waiting
        cdef uint64_t room = 0
        self.ram.used = 0
        while room < wanted and found < most:
            waiting = self.waiting()
            if not waiting:
                self.want_notice(True)
                waiting = self.waiting()
            if waiting < 0 or waiting and not self.take_next(&self.ram.walked[found]):
                return -2
            if not waiting:
                break
            self.want_notice(False)
            room += self.ram.walked[found].writable
            found += 1
        if room >= wanted:
            return found
        self.next_available = (self.next_available - found) & 0xFFFF
        return 0 if found == most else -1

    cdef bint put(self, int found, const uint8_t *header, uint64_t header_bytes, const uint8_t *packet, uint64_t size) noexcept nogil:
        """Put a header and a packet into the chains that `gather` has found; as `give`."""
        cdef int number
        cdef size_t piece
        cdef uint64_t part, skip, room
        cdef uint32_t written
        cdef uint8_t *place
        cdef Walked *chain
        for number in range(found):
            chain = &self.ram.walked[number]
            written = 0
            for piece in range(chain.first + chain.readable_count, chain.first + chain.readable_count + chain.writable_count):
                place, room = self.ram.at(self.ram.pieces[piece].address, self.ram.pieces[piece].size), self.ram.pieces[piece].size
                part = min(room, header_bytes)
                memcpy(place, header, part)
                header, header_bytes = header + part, header_bytes - part
                skip = part
                part = min(room - skip, size)
                memcpy(place + skip, packet, part)
                packet, size = packet + part, size - part
                written += <uint32_t>(skip + part)
            self.lay(number, chain.head, written)
        return self.give(found)

    def take(self, limit):
        """See Ring."""
        cdef int found, number
        try:
            if not self.ram.hold() or not self.find():
                raise RingError("a queue that is not RAM any more")
            found = self.walk(min(limit, WALKED))
            if found < 0:
                raise RingError("a queue, or a chain in it, that is none")
            return [self.ram.parts(&self.ram.walked[number]) for number in range(found)]
        finally:
            self.ram.release()


cdef struct Served:
    # A `ChainServe` that was found good.
    int chain
    uint64_t offset
    uint64_t skip
    uint64_t size
    uint64_t place
    uint8_t good
    uint8_t bad
    uint64_t resource
    bint to_guest


cdef class QueuesCore:
    """The compiled half of `remote.published.queues.DeviceQueues`: a notification whose chains are served at once."""

    cdef public uint64_t _last
    cdef RamCore ram
    cdef uint8_t payload[WALKED * (CHAIN_BYTES + MOST_HEAD)]
    cdef Served served[WALKED]
    cdef iovec vectors[MOST_VECTORS]
    cdef uint64_t moved
    cdef list left      # what Python has to go on with
    cdef int asked      # requests, of those that may follow one access

    def set_up(self, regions, video):
        """`regions` and `video` are those of guest memory, or None where it is something else."""
        self.ram = None if regions is None else RamCore(regions, video)

    def ring_at(self, VirtqueueCore ring):
        """A ring has been found to lie in guest memory."""
        ring.lies_in(self.ram)
        return ring

    def send_from(self, uint64_t index, ring, connection, int most):
        """See DeviceQueues."""
        cdef VirtqueueCore core
        cdef Walked *chain
        cdef int found, number
        cdef uint64_t header = connection.asked.header
        cdef bint raises = False
        if not isinstance(ring, VirtqueueCore):
            return self.send_from_python(index, ring, connection, most)
        core, medium = ring, connection.medium
        try:
            found = core.walk(min(most, WALKED)) if self.ram.hold() and core.find() else -1
            if found < 0:
                raise RingError("a queue, or a chain in it, that is none")
            for number in range(found):
                chain = &self.ram.walked[number]
                if chain.readable > header and medium.allows(chain.readable - header, to_guest=False):
                    medium.writes += 1
                    medium.store.write(0, self.ram.bytes_of(chain, header))
                core.lay(0, chain.head, 0)
                raises |= core.give(1)
        finally:
            self.ram.release()
        if found and (raises or not self.interrupts.status & USED_BUFFER):
            self.add_used(index, raises=bool(raises))
        return found

    def put_into(self, uint64_t index, ring, connection, bytes packet):
        """See DeviceQueues."""
        cdef VirtqueueCore core
        cdef uint8_t header[MOST_HEADER]
        cdef int found
        cdef uint64_t size, count_at
        cdef bint raises
        if not isinstance(ring, VirtqueueCore):
            return self.put_into_python(index, ring, connection, packet)
        core, asked = ring, connection.asked
        size, count_at = asked.header, asked.count_at
        try:
            found = core.gather(size + len(packet), asked.chains) if self.ram.hold() and core.find() else -2
            if found == -2:
                raise RingError("a queue, or a chain in it, that is none")
            if found <= 0:
                return None if found else 0
            memset(header, 0, sizeof(header))
            if count_at:
                header[count_at] = <uint8_t>found
            raises = core.put(found, header, size, <const uint8_t *>packet, len(packet))
        finally:
            self.ram.release()
        if raises or not self.interrupts.status & USED_BUFFER:
            self.add_used(index, raises=bool(raises))
        return found

    cdef bint serve(self, ChannelCore channel, uint64_t device, uint64_t index, media) except -1:
        """The guest notifies of queue `index`, under the lock of the channel. Whether all is done; otherwise
        Python has to go on with what is `left`.
        """
        cdef VirtqueueCore ring
        cdef int wanted, found, rounds
        self.left, self.asked = [], 1
        if <void *>self.ram == <void *>None or self._live or self._told or self._reads or self._connections:
            return self.ask_python(index)
        wanted = min(self.walks.wanted(index), self.grant.max_chains)
        one = self._rings[index]
        if not wanted or self.walks.is_any_due or not isinstance(one, VirtqueueCore):
            return self.ask_python(index)
        ring = one
        self.moved = 0
        try:
            if not self.ram.hold() or not ring.find():
                return self.ask_python(index)
            for rounds in range(self.most_rounds):
                found = ring.walk(wanted)
                if found < 0:
                    self._rings[index] = None
                    break
                if not found:
                    return True
                self.asked += 1
                if not self.tell(channel, ring, device, index, found, media):
                    break
                if found < wanted:
                    return True
                if self._live:
                    break  # there is less room now
        finally:
            self.ram.release()
        return self.ask_python(index)

    cdef bint ask_python(self, uint64_t index) except -1:
        """Leave the queue to `next_request`."""
        self.left += self.notified(index)
        return False

    cdef bint tell(
        self, ChannelCore channel, VirtqueueCore ring, uint64_t device, uint64_t index, int found, media
    ) except -1:
        """Send CHAINS, and do what the reply says. False: Python has had to do some of it."""
        cdef Open it
        cdef bint begun
        cdef int count, number
        cdef uint64_t first = self._last + 1
        cdef size_t length = self.lay_down(found)
        it.limit = 0
        channel.end.more, channel.end.more_bytes = self.payload, length
        with nogil:
            begun = channel.begin_under_lock(&it, CHAINS | device << 8, index | <uint64_t>length << 32, 0)
        channel.end.more_bytes = 0
        if begun and (it.status == ANSWERED or it.status == UNLIKE):
            count = self.check(&it, channel, first, device, found, media)
            if count >= 0:
                channel.end.body_bytes = 0
                for number in range(found):
                    if not self.ram.walked[number].is_served:
                        self.keep(ring, index, first, number)
                for number in range(count):
                    self.do(channel, ring, index, first, &self.served[number], media)
                return not self.left
        for number in range(found):
            self.keep(ring, index, first, number)
        self._device = device
        payload = (<char *>self.payload)[:length]
        if not begun or it.status == RAISED:
            self.left.append(FollowUp(CHAINS, device, 0, index, payload))
            return False
        asked = WORDS_OF(it.asked)
        channel.finish_told(asked, payload, None if it.status == UNFINISHED else WORDS_OF(it.reply))
        return False

    cdef size_t lay_down(self, int found):
        """The payload of CHAINS, for the chains that the walk has found, and their handles."""
        cdef size_t length = 0
        cdef Walked *chain
        cdef int number
        cdef uint32_t fields[3]
        for number in range(found):
            chain = &self.ram.walked[number]
            self._last = (self._last + 1) & 0xFFFFFFFFULL
            fields[0], fields[1], fields[2] = <uint32_t>self._last, <uint32_t>chain.readable, <uint32_t>chain.writable
            memcpy(self.payload + length, fields, sizeof(fields))
            self.payload[length + 12] = <uint8_t>self.ram.head_of(chain, self.payload + length + CHAIN_BYTES)
            length += CHAIN_BYTES + self.payload[length + 12]
        return length

    cdef int check(
        self, const Open *it, ChannelCore channel, uint64_t first, uint64_t device, int found, media
    ) except -2:
        """How many effects the reply has, if all are `ChainServe` and good: they are in `served` then. -1: some
        are not, and Python has a look.
        """
        cdef const uint8_t *body = <const uint8_t *>channel.end.body
        cdef uint64_t effect[SERVE_WORDS], chain
        cdef int count = it.reply[0] >> 24 & 0xFF, number
        cdef Served *one
        cdef Walked *walked
        if it.reply[0] & ~EFFECTS_FIELD != it.asked[0] | REPLY or it.reply[1] != channel.deadline or it.reply[2]:
            return -1
        if it.reply[3] & 0xFFFFFFFFULL or channel.end.body_bytes != it.reply[3] >> 32:
            return -1
        if channel.end.body_bytes != count * SERVE_WORDS * 8 or count > found:
            return -1
        for number in range(found):
            self.ram.walked[number].is_served = False
        for number in range(count):
            memcpy(effect, body + number * sizeof(effect), sizeof(effect))
            one = &self.served[number]
            chain = (effect[0] >> 32) - first & 0xFFFFFFFFULL
            one.resource, one.to_guest = effect[0] >> 16 & 0xFF, effect[0] >> 24 & 0xFF
            if effect[0] & 0xFF != SERVE_TAG or effect[0] >> 8 & 0xFF != device or effect[0] >> 24 & 0xFF > 1:
                return -1
            if chain >= <uint64_t>found or self.ram.walked[chain].is_served or effect[5] > 0xFF or effect[6] > 0xFF:
                return -1
            walked = &self.ram.walked[chain]
            walked.is_served = True
            one.chain, one.offset, one.skip, one.size, one.place = chain, effect[1], effect[2], effect[3], effect[4]
            one.good, one.bad = effect[5], effect[6]
            chain = walked.writable if one.to_guest else walked.readable
            if one.place >= walked.writable or one.size > chain or one.skip > chain - one.size:
                return -1
            medium = media.get(one.resource)
            if medium is None or not medium.allows(one.size, to_guest=bool(one.to_guest)):
                return -1
        return count

    cdef int keep(self, VirtqueueCore ring, uint64_t index, uint64_t first, int number) except -1:
        """The device has a chain: as Python has it."""
        self.take_in(first + number & 0xFFFFFFFFULL, index, self.ram.parts(&self.ram.walked[number]))
        return 0

    cdef int do(
        self, ChannelCore channel, VirtqueueCore ring, uint64_t index, uint64_t first, Served *one, media
    ) except -1:
        """Move the bytes of a chain and give it back."""
        cdef Walked *chain = &self.ram.walked[one.chain]
        cdef iovec *vectors = self.vectors
        cdef int count, descriptor = -1
        cdef ssize_t got = -1
        cdef uint64_t filled
        medium = media[one.resource]
        if one.to_guest and self.moved + one.size <= self.most_moved:
            descriptor = medium.file_now(one.offset, one.size)
        if descriptor >= 0:
            count = self.ram.vectors(chain, one.skip, one.size, vectors)
            if one.size < LONG_READ:
                got = preadv2(descriptor, vectors, count, <off_t>one.offset, RWF_NOWAIT)
            else:
                with nogil:
                    got = preadv2(descriptor, vectors, count, <off_t>one.offset, RWF_NOWAIT)
        if got != <ssize_t>one.size or not one.size:
            self._moved = self.moved
            self.keep(ring, index, first, one.chain)
            self.left += self._serve(ChainServe(
                first + one.chain & 0xFFFFFFFFULL, one.resource, one.offset, one.skip, one.size, one.to_guest,
                one.place, one.good, one.bad,
            ), medium)
            self.moved = self._moved
            return 0
        self.moved += one.size
        medium.was_read(one.size)
        if self.ram.vectors(chain, one.place, 1, vectors) == 1:
            (<uint8_t *>vectors[0].iov_base)[0] = one.good
        filled = 0 if one.skip else one.size
        ring.lay(0, chain.head, <uint32_t>(one.place + 1 if filled == one.place else filled))
        raises = ring.give(1)
        if raises or not self.interrupts.status & USED_BUFFER:
            self.add_used(index, raises=bool(raises))
        return 0


cdef object WORDS_OF(const uint64_t *words):
    return words[0], words[1], words[2], words[3]


cdef class QueueAccessCore:
    """The compiled half of `devices.virtio.vmm.VirtioRegisters`."""

    cdef ChannelCore core
    cdef QueuesCore rings
    cdef uint64_t device
    cdef object media
    cdef uint64_t register
    cdef uint64_t first
    cdef uint64_t end
    cdef uint64_t step

    def set_up(self, ChannelCore core, QueuesCore rings, uint64_t device, media, uint64_t register, places):
        """`device` is the number of the device, `media` are by their number. What is written to `register` is the
        number of a queue; `places` are registers of one queue each.
        """
        self.core, self.rings, self.device, self.media, self.register = core, rings, device, media, register
        self.first, self.end, self.step = places.start, places.stop, places.step

    def access(self, uint64_t word, uint64_t offset, uint64_t value, limit):
        """See VirtioRegisters."""
        cdef bint is_done
        cdef uint64_t index = value
        cdef bint is_notice = offset == self.register
        if self.first <= offset < self.end:
            index, is_notice = (offset - self.first) // self.step, True
        if (
            not is_notice
            or <void *>self.core == <void *>None
            or word & 0xFF != WRITE
            or not self.rings.walks.wanted(index)
            or <void *>self.core._failure != <void *>None
            or <void *>self.core._record != <void *>None
            or <void *>self.core._journal != <void *>None
            or <void *>self.core.end == <void *>None
        ):
            return self.pure_access(word, offset, value, limit)
        if not PyThread_acquire_lock(self.core.mutex.lock, 0):
            with nogil:
                PyThread_acquire_lock(self.core.mutex.lock, 1)
        try:
            is_done = self.rings.serve(self.core, self.device, index, self.media)
            if not is_done:
                self.core.go_on(self.rings.left, self.rings.asked)
        finally:
            PyThread_release_lock(self.core.mutex.lock)
        if not is_done:
            self.core._wait_for_output()
        return 0
