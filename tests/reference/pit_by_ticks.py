"""A slow, obvious 8254: every CLK pulse is simulated. The reference that the fast model is compared with.

Written from the datasheet's mode descriptions as a state machine with a real counting element that goes
down pulse by pulse; it shares no code and no formula with kvmbox.devices. Two conventions are the model's
(docs/devices/pit.md, "Time"): a load takes effect on a CLK pulse right after its cause, and CLK is in phase
with the last load or opening of the gate. Only usable over short times.
"""

from __future__ import annotations

CLK_HZ = 1_193_182


class CounterByTicks:
    """One counter."""

    def __init__(self, now: int, gate: bool) -> None:
        self.gate = gate
        self.control = 0b00_011_0
        self.mode = 3
        self.bcd = False
        self.cr: int | None = 0  # as a number; 0 is the largest count; None: no count since the control word
        self.ce = 0
        self.odd = False  # mode 3: the count in CE was odd when it was loaded
        self.single = False  # modes 2 and 3: the illegal count 1
        self.out = True
        self.started = True
        self.strobe_due = False
        self.pending = False  # CR waits for a trigger or the end of a cycle
        self.just_written_at: int | None = None
        self.phase = now
        self.pulses = 0
        self.low_byte: int | None = None
        self.read_high_next = False
        self.count_latch: list[int] = []
        self.status_latch: int | None = None
        self.rising_edges = 0
        self.history: list[bool] = []  # OUT after each pulse

    @property
    def largest(self) -> int:
        return 10_000 if self.bcd else 65_536

    def set_out(self, level: bool) -> None:
        if level and not self.out:
            self.rising_edges += 1
        self.out = level

    # Time

    def run_until(self, now: int) -> None:
        """Let all pulses happen that are complete at `now`."""
        while (self.pulses + 1) * 1_000_000_000 <= (now - self.phase) * CLK_HZ:
            self.pulses += 1
            self.clk()
            self.history.append(self.out)
        if self.just_written_at is not None and now > self.just_written_at:
            self.just_written_at = None

    def restart_clk(self, now: int) -> None:
        self.phase = now
        self.pulses = 0

    def clk(self) -> None:
        """One CLK pulse."""
        if not self.started:
            return
        if not self.gate and self.mode in (0, 2, 3, 4):
            return
        if self.mode == 3:
            self.clk_square_wave()
            return
        self.ce = (self.ce - 1) % self.largest
        if self.mode in (0, 1) and self.ce == 0:
            self.set_out(True)
        if self.mode == 2:
            if self.ce == 0:
                self.set_out(True)
                self.fill_ce()
            elif self.ce == 1 and not self.single:
                self.set_out(False)
        if self.mode in (4, 5):
            if not self.out:
                self.set_out(True)
            if self.ce == 0 and self.strobe_due:
                self.strobe_due = False
                self.set_out(False)

    def clk_square_wave(self) -> None:
        if self.single:
            self.fill_ce()
            return
        if self.odd and self.out and self.ce == 0:
            # An odd count's high half has one pulse more, at zero.
            self.set_out(False)
            self.fill_ce()
            if self.single:
                self.set_out(True)
            return
        self.ce = (self.ce - 2) % self.largest
        if self.ce == 0 and not (self.odd and self.out):
            self.set_out(not self.out)
            self.fill_ce()
            if self.single:
                self.set_out(True)

    def fill_ce(self) -> None:
        """CR goes to CE."""
        assert self.cr is not None
        self.ce = self.cr
        self.single = self.mode in (2, 3) and self.cr == 1
        if self.mode == 3:
            self.odd = self.cr % 2 == 1
            self.ce -= self.ce % 2
        self.pending = False

    def load(self, now: int) -> None:
        was_pending = self.pending
        self.fill_ce()
        self.just_written_at = now if was_pending or self.just_written_at == now else None
        self.started = True
        self.restart_clk(now)
        if self.mode in (0, 1):
            self.set_out(False)
        else:
            self.set_out(True)
            self.strobe_due = True

    # Programming

    def control_word(self, now: int, value: int) -> None:
        self.run_until(now)
        self.control = value & 0x3F
        self.mode = (value >> 1) & 7
        if self.mode > 5:
            self.mode -= 4
        self.bcd = bool(value & 1)
        self.ce %= self.largest
        self.cr = None
        self.started = False
        self.pending = True
        self.just_written_at = None
        self.low_byte = None
        self.read_high_next = False
        self.count_latch = []
        self.status_latch = None
        self.set_out(self.mode != 0)

    def write(self, now: int, value: int) -> None:
        self.run_until(now)
        access = (self.control >> 4) & 3
        if access == 3 and self.low_byte is None:
            self.low_byte = value
            if self.mode == 0:
                self.started = False
                self.set_out(False)
            return
        if access == 3:
            assert self.low_byte is not None
            digits = self.low_byte + 256 * value
            self.low_byte = None
        elif access == 2:
            digits = 256 * value
        else:
            digits = value
        if self.bcd:
            self.cr = int(
                digits % 16 + digits // 16 % 16 * 10 + digits // 256 % 16 * 100 + digits // 4096 * 1000
            )
            self.cr %= 10_000
        else:
            self.cr = digits
        self.pending = True
        self.just_written_at = None
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.started):
            self.load(now)

    def set_gate(self, now: int, gate: bool) -> None:
        self.run_until(now)
        rising = gate and not self.gate
        falling = self.gate and not gate
        self.gate = gate
        if rising and self.mode in (1, 2, 3, 5) and self.cr is not None:
            self.load(now)
        if rising and self.mode in (0, 4) and self.started:
            self.restart_clk(now)
        if falling and self.mode in (2, 3):
            self.set_out(True)

    def shown(self) -> int:
        return int(str(self.ce), 16) if self.bcd else self.ce

    def status(self) -> int:
        null = self.pending or self.just_written_at is not None
        return self.out * 0x80 + null * 0x40 + self.control

    def latch_count(self, now: int) -> None:
        self.run_until(now)
        if not self.count_latch:
            low, high = self.shown() % 256, self.shown() // 256
            access = (self.control >> 4) & 3
            self.count_latch = [low, high] if access == 3 else [high] if access == 2 else [low]

    def latch_status(self, now: int) -> None:
        self.run_until(now)
        if self.status_latch is None:
            self.status_latch = self.status()

    def read(self, now: int) -> int:
        self.run_until(now)
        if self.status_latch is not None:
            status, self.status_latch = self.status_latch, None
            return status
        if self.count_latch:
            return self.count_latch.pop(0)
        access = (self.control >> 4) & 3
        high = access == 2
        if access == 3:
            high = self.read_high_next
            self.read_high_next = not high
        return self.shown() // 256 if high else self.shown() % 256


class PitByTicks:
    """Three counters, the control port and port 0x61, at the model's offsets."""

    def __init__(self) -> None:
        self.counters = [CounterByTicks(0, True), CounterByTicks(0, True), CounterByTicks(0, False)]
        self.port_61 = 0

    def write(self, now: int, offset: int, value: int) -> None:
        if offset < 3:
            self.counters[offset].write(now, value)
        elif offset == 4:
            self.port_61 = value & 0x0F
            self.counters[2].set_gate(now, bool(value & 1))
        elif value < 0xC0:
            counter = self.counters[value >> 6]
            if value & 0x30:
                counter.control_word(now, value)
            else:
                counter.latch_count(now)
        else:
            for bit, counter in zip((2, 4, 8), self.counters, strict=True):
                if value & bit:
                    if not value & 0x20:
                        counter.latch_count(now)
                    if not value & 0x10:
                        counter.latch_status(now)

    def read(self, now: int, offset: int) -> int:
        if offset < 3:
            return self.counters[offset].read(now)
        if offset == 3:
            return 0
        self.counters[2].run_until(now)
        refresh = now * CLK_HZ // 1_000_000_000 // 18 % 2
        return self.port_61 + 0x10 * refresh + 0x20 * self.counters[2].out
