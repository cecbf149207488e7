# --- Lines that are raised ahead --------------------------------------------------------------------------
#
# Part of vmm.pyx. The module `host.interrupt_lines` says what an announced rise is, and who may take it back.


cdef struct kvm_irq_level:
    uint32_t irq
    uint32_t level


cdef uint64_t NO_RISE = <uint64_t>-1
cdef int64_t NEVER = -1, UNKNOWN = -2

# How much earlier than a rise the thread may be woken, in ns: what a host that is not busy needs to wake it.
cdef int64_t MOST_EARLY = 30000


# How a change of a line went.
cdef enum:
    TOLD = 0
    ANNOUNCED = 1   # nothing was done, since a rise has been announced: everything is Python's
    REFUSED = 2     # `RouterCore.error` was raised


cdef class LineCore:
    """The compiled half of `host.interrupt_lines.LineState`: who holds the line is with the sources, which are counted
    here. Under the lock of the lines, as all of it.
    """

    cdef public uint64_t raised
    cdef public uint64_t coalesced
    cdef public object replacing
    cdef public list announced
    cdef list sources
    cdef object _heard
    cdef uint64_t holders   # how many sources hold it high, of those that are heard

    def __cinit__(self, *_, **__):
        self.sources, self._heard = [], -1

    cdef int count(self) except -1:
        cdef SourceCore source
        self.holders = 0
        for source in self.sources:
            self.holders += source.is_high and source.is_heard
        return 0

    @property
    def asserted(self):
        """See LineState."""
        cdef SourceCore source
        found = 0
        for source in self.sources:
            if source.is_high:
                found |= source.bit
        return found

    @asserted.setter
    def asserted(self, value):
        cdef SourceCore source
        for source in self.sources:
            source.is_high = bool(value & source.bit)
        self.count()

    @property
    def heard(self):
        """See LineState."""
        return self._heard

    @heard.setter
    def heard(self, value):
        cdef SourceCore source
        self._heard = value
        for source in self.sources:
            source.is_heard = bool(value & source.bit)
        self.count()

    @property
    def is_high(self):
        """See LineState."""
        return self.holders != 0


cdef class SourceCore:
    """The compiled half of `host.interrupt_lines.Source`."""

    cdef public uint64_t at
    cdef public uint32_t gsi
    cdef public bint lowers
    cdef public bint passes
    cdef public bint ready
    cdef public bint fired
    cdef public uint32_t level
    cdef public uint64_t ahead
    cdef public object bit
    cdef LineCore line
    cdef public RouterCore _router
    cdef bint is_high
    cdef bint is_heard
    cdef Lock channel

    @property
    def state(self):
        """See Source."""
        return self.line

    @state.setter
    def state(self, LineCore line):
        self.line = line
        line.sources.append(self)
        self.is_heard = bool(line._heard & self.bit)

    def guarded_by(self, lock):
        """See Rise. Without a lock that can be taken here, the thread leaves the source alone."""
        self.channel = lock if isinstance(lock, Lock) else None

    def __call__(self, bint level, uint64_t coalesced):
        """See Source."""
        self._router.report(self, level, coalesced)

    cdef bint hold(self, bint level) noexcept nogil:
        """Hold the line high, or do not; whether the line has changed. Under the lock of the lines."""
        cdef uint64_t before = self.line.holders
        if level != self.is_high:
            self.is_high = level
            if self.is_heard:
                self.line.holders += 1 if level else -1
        return (before != 0) != (self.line.holders != 0)


cdef class RouterCore:
    """The compiled half of `host.interrupt_lines.InterruptRouter`: the thread that raises announced lines.

    The thread sleeps in the read of a timer, which is set to the first announced rise, less the time that the
    host lately took to wake the thread: it spins until the rise if that was quicker. Then it takes the lock
    of the channel, so that no request is on its way that may take the announcement back, looks again, and
    raises the line under the lock of the lines. Nobody waits long for anything that holds one of the locks,
    except for a device process that does not answer; the watchdog ends that.
    """

    cdef Clock clock
    cdef Lock lines
    cdef Lock arming        # covers `armed` and the setting of the timer
    cdef int64_t armed      # the host's time of the rise that the timer is set for; NEVER, UNKNOWN
    cdef int64_t early      # how much earlier the timer expires, in ns; the thread's, but for reads in `arm`
    cdef bint stopping
    cdef int timer
    cdef int cpu            # of `run`, or -1
    cdef public int _controllers    # the descriptor of the virtual machine, or -1; under `lines`
    cdef unsigned long irq_line
    cdef public object _set_line    # under `lines`
    cdef object error       # what `_set_line` has raised
    cdef list owned
    cdef PyObject **sources
    cdef size_t count

    def __cinit__(self, *_, **__):
        self._controllers = self.timer = self.cpu = -1
        self.armed = UNKNOWN
        self.owned = []

    def __dealloc__(self):
        PyMem_Free(self.sources)

    def set_up(self, Clock clock, Lock lines, unsigned long irq_line):
        """`lines` is the lock of the router, `irq_line` KVM_IRQ_LINE."""
        self.clock, self.lines, self.irq_line = clock, lines, irq_line
        self.arming = Lock()

    def change(self, SourceCore source, bint level, uint64_t coalesced):
        """See InterruptRouter. A line whose rise has been announced is left to Python."""
        self.report(source, level, coalesced)

    cdef int report(self, SourceCore source, bint level, uint64_t coalesced) except -1:
        """The same."""
        cdef int found
        if not PyThread_acquire_lock(self.lines.lock, 0):
            with nogil:  # a thread that has it may need the GIL
                PyThread_acquire_lock(self.lines.lock, 1)
        found = self.report_here(source, level, coalesced)
        PyThread_release_lock(self.lines.lock)
        if found == ANNOUNCED:
            self.pure_change(source, int(level), coalesced)
        elif found == REFUSED:
            raise self.refusal()
        return 0

    cdef object refusal(self):
        """What a change that was REFUSED is to raise."""
        error, self.error = self.error, None
        return error

    cdef int report_here(self, SourceCore source, bint level, uint64_t coalesced) noexcept nogil:
        """The model of `source` has reported a level. Under the lock."""
        cdef uint64_t passed = 0
        if PyList_GET_SIZE(<PyObject *>source.line.announced):
            return ANNOUNCED
        source.level = level
        if level:
            passed = min(source.ahead, 1 + coalesced)
            source.ahead -= passed
        if source.is_heard:
            source.line.coalesced += coalesced + 1 - max(passed, <uint64_t>1)
        if not level and source.ahead or not source.hold(level):
            return TOLD
        source.line.raised += level
        return self.tell(source.gsi, level)

    cdef int report_all(self, PyObject **sources, const uint64_t *effects, uint64_t count) noexcept nogil:
        """The models of these sources have reported what `effects` say. ANNOUNCED for any: nothing was done."""
        cdef uint64_t number
        cdef int found = TOLD
        PyThread_acquire_lock(self.lines.lock, 1)
        for number in range(count):
            if PyList_GET_SIZE(<PyObject *>(<SourceCore>sources[number]).line.announced):
                found = ANNOUNCED
        for number in range(count):
            if found == TOLD:
                found = self.report_here(<SourceCore>sources[number], effects[number] >> 24 & 1, effects[number] >> 32)
        PyThread_release_lock(self.lines.lock)
        return found

    cdef int edge(self, SourceCore source) noexcept nogil:
        """Raise `source` now, from low: its model will report that. Under the lock of the channel."""
        cdef int found = TOLD
        PyThread_acquire_lock(self.lines.lock, 1)
        if PyList_GET_SIZE(<PyObject *>source.line.announced):
            found = ANNOUNCED
        else:
            if source.hold(False):
                found = self.tell(source.gsi, False)
            if source.hold(True) and found == TOLD:
                source.line.raised += 1
                found = self.tell(source.gsi, True)
            source.ahead += 1
        PyThread_release_lock(self.lines.lock)
        return found

    cdef int tell(self, uint32_t gsi, bint level) noexcept nogil:
        """Tell the controllers a level, if there are some. Under the lock."""
        cdef kvm_irq_level line
        line.irq, line.level = gsi, level
        if <void *>self._set_line == <void *>None:
            return TOLD
        if self._controllers >= 0 and ioctl(self._controllers, self.irq_line, <unsigned long>&line) >= 0:
            return TOLD
        return self.tell_in_python(gsi, level)  # which says what is wrong

    cdef int tell_in_python(self, uint32_t gsi, bint level) noexcept with gil:
        try:
            self._set_line(gsi, int(level))
            return TOLD
        except BaseException as error:
            self.error = error
            return REFUSED

    def watch(self, sources, int timer, int cpu):
        """The sources that may be announced, for good, the timer to read, and the CPU of `run`, or -1."""
        self.owned = list(sources)
        self.sources = <PyObject **>PyMem_Malloc((len(self.owned) + 1) * sizeof(PyObject *))
        if self.sources == NULL:
            raise MemoryError
        for index, source in enumerate(self.owned):
            if not isinstance(source, SourceCore):
                raise TypeError("a source in pure Python")
            self.sources[index] = <PyObject *>source
        self.timer, self.cpu = timer, cpu
        self.count = len(self.owned)
        self.rearm()

    def unwatch(self):
        """Use the timer no more. The thread has ended."""
        self.count = 0

    def rearm(self):
        """See InterruptRouter."""
        if self.count:
            # With the GIL: nobody holds the lock of `arm` for longer than a call that sets a timer takes.
            self.arm()

    cdef void arm(self) noexcept nogil:
        """Set the timer to the first announced rise. It waits while guest time stands still."""
        cdef itimerspec setting
        cdef uint64_t first = NO_RISE
        cdef uint64_t at
        cdef int64_t host = NEVER
        cdef size_t index
        memset(&setting, 0, sizeof(setting))
        PyThread_acquire_lock(self.arming.lock, 1)
        for index in range(self.count):
            # What `look_at` would leave alone must not keep the thread awake.
            if <void *>(<SourceCore>self.sources[index]).channel != <void *>None:
                at = load(&(<SourceCore>self.sources[index]).at)
                first = min(first, at)
        if self.stopping:
            host = 1  # long ago
        elif self.clock.is_running() and not first >> 62:  # or in 146 years
            host = max(<int64_t>first + self.clock._base, <int64_t>1)  # also if that is before the host's start
            if <int64_t>first > self.clock._limit and self.clock.is_past(host):
                host = NEVER  # guest time stands still: the next loan calls `rearm`
        if host != self.armed:
            self.armed = host
            if host != NEVER:
                host = max(host - self.early, <int64_t>1)
                setting.it_value.tv_sec = host // 1000000000
                setting.it_value.tv_nsec = host % 1000000000
            timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &setting, NULL)
        PyThread_release_lock(self.arming.lock)

    def step_aside(self):
        """See InterruptRouter."""
        cdef cpu_set_t allowed, others
        if not self.count or not 0 <= self.cpu < CPU_SETSIZE:
            return
        with nogil:  # on a CPU that others use it takes a while
            if sched_getaffinity(0, sizeof(allowed), &allowed) == 0 and CPU_ISSET(self.cpu, &allowed):
                others = allowed
                CPU_CLR(self.cpu, &others)
                if CPU_COUNT(&others) and sched_setaffinity(0, sizeof(others), &others) == 0:
                    sched_setaffinity(0, sizeof(allowed), &allowed)

    def stop(self):
        """End `run`, now or when it begins, after a last look at all sources."""
        self.stopping = True
        self.arm()

    def raise_lines(self):
        """Raise lines at their time, until `stop`. Raises OSError if the timer cannot be read."""
        cdef int error
        with nogil:
            error = self.run()
        if error:
            raise OSError(error, _text_of(error))

    cdef int run(self) noexcept nogil:
        cdef uint64_t expirations
        cdef size_t index
        while True:
            if read(self.timer, &expirations, sizeof(expirations)) < 0:
                if errno != EINTR:
                    return errno
                continue
            self.meet()
            for index in range(self.count):
                # SAFETY: `owned` holds the source, and the source holds the lock.
                self.look_at(<SourceCore>self.sources[index])
            if self.stopping:
                return 0
            PyThread_acquire_lock(self.arming.lock, 1)
            self.armed = UNKNOWN
            PyThread_release_lock(self.arming.lock)
            self.arm()

    cdef void meet(self) noexcept nogil:
        """Wait for the rise that the timer was set for, and learn how long the host takes to wake the thread."""
        cdef int64_t rise, took
        PyThread_acquire_lock(self.arming.lock, 1)
        rise = self.armed
        PyThread_release_lock(self.arming.lock)
        if rise <= MOST_EARLY or self.stopping:
            return
        took = host_time() - (rise - self.early)
        if took < 0:
            return  # set anew since: the timer will expire once more
        while host_time() < rise:
            relax()
        self.early += (min(took, MOST_EARLY) - self.early) // 8

    cdef void look_at(self, SourceCore source) noexcept nogil:
        """Raise the line of `source`, if its time has come."""
        if <void *>source.channel == <void *>None or not self.is_due(source):
            return
        PyThread_acquire_lock(source.channel.lock, 1)
        if self.is_due(source):
            store(&source.at, NO_RISE)
            PyThread_acquire_lock(self.lines.lock, 1)
            if source.ready and (not source.passes or self.pulse(source)):
                source.fired = True
            PyThread_release_lock(self.lines.lock)
        PyThread_release_lock(source.channel.lock)

    cdef bint is_due(self, SourceCore source) noexcept nogil:
        cdef uint64_t at = load(&source.at)
        return at != NO_RISE and self.clock.is_running() and at <= self.clock.time()

    cdef bint pulse(self, SourceCore source) noexcept nogil:
        """Whether KVM took it. If it did not, Python will say why, when the model tells of the rise."""
        cdef kvm_irq_level line
        line.irq = source.gsi
        if self._controllers < 0:
            return True  # nobody to tell: the line is set when there is
        if source.lowers:
            line.level = 0
            if ioctl(self._controllers, self.irq_line, <unsigned long>&line) < 0:
                return False
        line.level = 1
        return ioctl(self._controllers, self.irq_line, <unsigned long>&line) == 0
