# --- The short half of `DeviceServer.answer` ---------------------------------------------------------------
#
# Part of serving.pyx, for a device process, and of vmm.pyx, for models in the VMM.

cdef enum:
    SHORT_BODY = 256    # effects of so many bytes are encoded here


cdef Py_ssize_t encode(uint64_t device, list effects, uint8_t *body) except -2:
    """Write the effects of one device to `body`, which has SHORT_BODY bytes, if they are lines and output, as when
    a guest prints: how many bytes they have, or -1 if somebody else has to encode them.
    """
    cdef uint64_t word
    cdef Py_ssize_t length, end = 0
    for one in effects:
        word, text = device << 8, b""
        if type(one) is IrqLine:
            pin, level, folded = one.pin, one.level, one.coalesced
            if type(pin) is not int or type(level) is not int or type(folded) is not int:
                return -1
            if not (0 <= pin <= 0xFF and 0 <= level <= 1 and 0 <= folded < 0xFFFFFFFF):
                return -1
            word |= LINE_TAG | <uint64_t>pin << 16 | <uint64_t>level << 24 | <uint64_t>folded << 32
        elif type(one) is HostOutput and type(one.data) is bytes and one.data:
            text = one.data
            word |= OUTPUT_TAG | <uint64_t>len(text) << 32
        else:
            return -1
        length = len(text)
        if length > SHORT_BODY - <Py_ssize_t>EFFECT_BYTES - end:
            return -1
        memcpy(body + end, &word, EFFECT_BYTES)
        memcpy(body + end + EFFECT_BYTES, <const uint8_t *><bytes>text, length)
        end += EFFECT_BYTES + length
    return end


cdef class Answers:
    """What answers the accesses that have a route of a server; it needs no more than the model's calls need."""

    cdef object server
    cdef dict routes
    cdef list deadlines
    cdef uint64_t earliest      # the server's `deadline`
    cdef bytes payload          # of the last answer, if `answer` has not written it to `body`

    def __init__(self, server):
        self.server = server
        # Only what Python answers, and `set_deadline`, change these.
        self.routes, self.deadlines, self.earliest = server.routes, server.deadlines, server.deadline

    cdef Py_ssize_t answer(self, const uint64_t *asked, bint is_frame, frame, uint64_t *reply, uint8_t *body) except -2:
        """The answer to a request: the words of `reply`, but for the length of the payload, and how many bytes of
        that are in `body`, or -1 if it is in `payload`. `frame` gives all of the request.
        """
        cdef uint64_t first = asked[0], offset = asked[3], posted
        cdef Py_ssize_t length = -1
        cdef tuple route, words
        self.payload = b""
        reply[3] = 0
        # The length of a payload is the upper half of the last word.
        found = self.routes.get(first & ROUTE_MASK) if is_frame and not offset >> 32 else None
        if found is None:
            words = (first, asked[1], asked[2], offset)
            if not is_frame:
                words = (0, 0, 0, 0)
            if is_frame and first & 0xFF == WRITE_RUN:
                effects = self.server.make_bulk(words, frame(words))
                length = encode(first >> 8 & 0xFF, effects, body)
                if length < 0:
                    _, _, _, _, self.payload = self.server.answer_bulk(first, effects)
                reply[0], reply[1], reply[2] = first | REPLY | <uint64_t>len(effects) << 24, self.server.deadline, 0
            else:
                reply[0], reply[1], reply[2], reply[3], self.payload = self.server.answer(words, frame)
            self.earliest = self.server.deadline
            return length
        route = found
        kind, call, size, device, next_deadline, take_effects, told = route
        now = asked[1]
        if kind == READ:
            value = call(now, offset, size)
        elif kind == INDEXED_READ:
            posted = asked[2]
            call.write(now, posted >> 32, 1, posted & 0xFF)  # as the call does, but for its frame
            value = call.read(now, offset, size)
        else:
            value = call(now, offset, size, asked[2]) or 0
        deadline, before = next_deadline(), self.deadlines[device]
        if deadline is not before and deadline != before:
            self.server.set_deadline(device, deadline)
            self.earliest = self.server.deadline
        effects = take_effects()
        reply[0] = first | REPLY
        if effects and (
            first & 0xFF == READ_WIDE
            or (first & 0xFF == WRITE_WIDE or first & 0xFF == WRITE_LIST) and not self.server.is_made(size)
        ):
            reply[0], _, value, _, self.payload = self.server.continue_wide((first, now, asked[2], offset))
            self.earliest = self.server.deadline
        elif effects:
            reply[0] |= <uint64_t>len(effects) << 24
            length = encode(device, effects, body)
            if length < 0:
                self.payload = encode_effects_of(device, effects)
        elif told is not None:
            reply[3] = told(offset, size, value)
        reply[1], reply[2] = self.earliest, value
        return length
