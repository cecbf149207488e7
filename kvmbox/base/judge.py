"""The judge of a run: which event decides, when several could.

The rule
--------

The first decisive event in the order of the guest's writes wins. If one byte completes two, the fatal one
wins. Nothing else counts: not the port, nor the way on which a byte came, nor in how large a piece.

- An *event of a byte*: the byte completes a text (--expect, --fail-on, a trigger), or exceeds a limit. Output
  comes in pieces (coalesced writes, string instructions, the time that a UART is told), so each piece is
  judged byte by byte.
- An *event of a look*: texts are on the screen. Nobody knows which was first, so the fatal one wins.
- An *end of the guest*: a stop, a crash, a hang, a reset.
- What kvmbox decides by itself (a time-out, a signal, a failure) is decided at once, and for good.

What is printed later than the event does not belong to the run, and is not shown.

Some of what the guest wrote before an event is seen only after the event: characters in the FIFO of a paced
UART, and the text on the screen. So the event is *held* until that is judged, too (`settle`). An event on a
port waits for paced UARTs only, as nobody knows when the text came on the screen. An end waits for both. The
order among several paced UARTs is that in which they transmit.

A *trigger* is called when its text is seen, and starts work, such as a snapshot. While there is `work`, an
event that comes later is held: at the same byte, or at the end that follows.

The judge knows no device and no thread. It calls `hold` when an event is held: the machine must stand still,
and what was written must come out, before it calls `settle`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base.outcome import CLEAN, EXPECTED_SEEN, UNEXPECTED, Decision, Outcome

if TYPE_CHECKING:
    from kvmbox.base.text_search import TextSearch

PORT: Final = "port"
PACED: Final = "paced"
SCREEN: Final = "screen"

_ALL: Final = frozenset((PORT, PACED, SCREEN))
_NONE: Final = frozenset[str]()

Trigger = Callable[[], Outcome | None]
"""Starts work; returns the outcome that this decides, if it does."""


class Judge(Decision):
    """The decision on one run. Thread-safe: whatever is judged, is judged under `order`."""

    def __init__(
        self,
        expect: Sequence[bytes] = (),
        fail_on: Sequence[bytes] = (),
        *,
        success_status: int | None = None,
    ) -> None:
        """`success_status` is the odd status that means success, or None. With a `success_status` the
        expected texts end nothing: they have to be seen, and then the guest has to end with that status.
        """
        super().__init__()
        self.order: Final = threading.RLock()
        """Taken before every lock of the console."""
        self._success_status = success_status
        self._search: TextSearch | None = None  # loaded when there is a text
        self._missing = {text: f"printed {text.decode('utf-8', 'replace')!r}" for text in expect}
        self._fatal = frozenset(fail_on)
        self._triggers: dict[bytes, list[Trigger]] = {}
        for text in (*expect, *fail_on):
            self._add(text)
        self.searches = bool(expect or fail_on)
        """Whether there are texts, so that the screen has to be looked at."""
        self.judges = self.searches
        """Whether output has to be shown to `printed`."""
        self._showing = False
        self._exceeded: Outcome | None = None  # by the bytes that are shown now
        self._paced: Collection[str] = ()
        self._open = _ALL  # the sources whose events still count
        self._cut = False  # whether a byte has decided: what follows is not of the run
        self._held: Callable[[], None] | None = None
        self._hold: Callable[[], None] | None = None
        self._settled = False
        self._work = 0
        self._needs_work = False  # whether what is held is a trigger's decision
        self._is_gone = False
        self._by_guest = False

    # --- What is to be judged -----------------------------------------------------------------------------

    def connect(self, hold: Callable[[], None], *, paced: Collection[str] = ()) -> None:
        """From now on `hold` hears when an event is held, on any thread. `paced` are the ports that transmit
        later than the guest writes.
        """
        self._hold, self._paced = hold, paced

    def watch(self, text: bytes, trigger: Trigger) -> None:
        """Call `trigger`, once, when the guest has printed or shows `text`."""
        self.searches = self.judges = True
        self._triggers.setdefault(text, []).append(trigger)
        self._add(text)

    def _add(self, text: bytes) -> None:
        if self._search is None:
            from kvmbox.base.text_search import TextSearch

            self._search = TextSearch()
        self._search.add(text)

    def expects(self, sign: bytes) -> None:
        """`sign` is expected, which is no text but words for it: `look` tells when it is there."""
        self.searches = self.judges = True
        self._missing[sign] = f"shown {sign.decode()}"

    def limits(self, limit: int | None) -> None:
        """`exceed` will be called by whoever shows output, if there is a limit."""
        self.judges = self.judges or limit is not None

    # --- Events -------------------------------------------------------------------------------------------

    def printed(
        self, port: str, data: bytes, show: Callable[[bytes], None], *, searched: bool = True
    ) -> None:
        """`port` has printed. `show` gets what belongs to the run. `searched`: whether texts count there."""
        with self.order:
            source = PACED if port in self._paced else PORT
            if source not in self._open:
                return
            self._showing = True
            try:
                found = self._search.feed(data, port) if searched and self._search is not None else ()
                self._judge(data, found, show, source)
            finally:
                self._showing = False

    def _judge(
        self,
        data: bytes,
        found: Sequence[tuple[int, Sequence[bytes]]],
        show: Callable[[bytes], None],
        source: str,
    ) -> None:
        """Show and judge `data`, in which texts have been `found` by their ends."""
        start = 0
        for end, texts in (*found, (len(data) + 1, ())):
            # A limit that is exceeded before the byte, and one that is exceeded by the byte.
            for piece, completed in ((data[start : end - 1], ()), (data[end - 1 : end], texts)):
                if piece:
                    show(piece)
                    if self._meets(completed, source):
                        return
            start = end

    def exceed(self, outcome: Outcome) -> None:
        """What is shown exceeds a limit. By the thread that shows it."""
        with self.order:
            if self._showing:
                self._exceeded = self._exceeded or outcome
            elif not self._cut and self.outcome is None:
                # What another port had printed was withheld, and is shown now: the guest wrote it before.
                self._conclude(outcome, PORT)

    def look(self, screen: bytes, signs: Sequence[bytes] = ()) -> None:
        """This is on the screen now: text, and what is expected and no text."""
        with self.order:
            if SCREEN in self._open:
                found = () if self._search is None else self._search.look(screen)
                self._meets([*found, *signs], SCREEN)

    def ignore(self, screen: bytes) -> None:
        """This is on the screen before the guest goes on."""
        with self.order:
            if self._search is not None:
                self._search.ignore(screen)

    def triggered(self, trigger: Trigger) -> None:
        """What a trigger waits for has happened, and it is no text."""
        with self.order:
            if PORT in self._open and (outcome := trigger()) is not None:
                self._conclude(outcome, PORT)
                self._needs_work = True

    def _meets(self, texts: Sequence[bytes], source: str) -> bool:
        """These texts were seen at the same time, at which a limit may be exceeded. Return whether that
        decides.
        """
        decisive, self._exceeded = self._exceeded, None
        needs_work = False
        fatal = next((text for text in texts if text in self._fatal), None)
        if decisive is None and fatal is not None:
            words = fatal.decode("utf-8", "replace")
            decisive = Outcome(UNEXPECTED, f"the guest printed {words!r} (--fail-on)", error=True)
        for text in texts:
            if text in self._missing:
                del self._missing[text]
                if not self._missing and self._success_status is None:
                    decisive = decisive or Outcome(CLEAN, EXPECTED_SEEN)
            for trigger in () if self._is_gone else self._triggers.get(text, ()):
                stop = trigger()
                decisive = decisive or stop
                needs_work = decisive is stop
        if decisive is not None:
            self._conclude(decisive, source)
            self._needs_work = needs_work
        return decisive is not None

    def _conclude(self, outcome: Outcome, source: str) -> None:
        self._cut = True
        left = self._open & {PACED} if source == PORT else _NONE
        self._close(left, lambda: self._decide(outcome, by_guest=False))

    def ends(self, outcome: Outcome, *, gone: bool = False) -> None:
        """The guest has come to its end. `gone`: a vCPU has ended, so no trigger can do work any more."""
        with self.order:
            # What a trigger decides needs its work, which cannot be done any more.
            is_void = gone and self._held is not None and self._needs_work and self._work > 0
            if PORT in self._open or is_void:
                self._is_gone = gone
                self._close(_ALL - {PORT}, lambda: self._decide(outcome, by_guest=True))

    def leaves(self, proceed: Callable[[], None]) -> None:
        """The guest leaves its boot, and begins anew: `proceed` is called unless something decides before."""
        with self.order:
            if PORT in self._open:
                self._close(_ALL - {PORT}, proceed)

    def _close(self, left: frozenset[str], then: Callable[[], None]) -> None:
        """Do `then` as soon as the sources `left` have been settled, and all work is done."""
        looks = self.searches and SCREEN in left
        drains = self.judges and PACED in left and bool(self._paced)
        self._held, self._open, self._settled, self._needs_work = then, left, False, False
        if self._hold is not None and (looks or drains or self._work):
            self._hold()
        else:
            self.settle(finally_=True)

    def _decide(self, outcome: Outcome, *, by_guest: bool) -> None:
        self._open = _NONE
        if self.outcome is None:
            self._by_guest = by_guest
            super().decide(outcome)

    def decide(self, outcome: Outcome) -> bool:
        """What kvmbox itself decides, at once. Return whether this call has decided."""
        with self.order:
            self._open, self._held = _NONE, None
            return super().decide(outcome)

    # --- What is held -------------------------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether an event is held: the guest must execute nothing."""
        return self._held is not None

    @property
    def is_unsettled(self) -> bool:
        """Whether `settle` is to be called, once the machine stands still and all that it wrote was shown."""
        return self._held is not None and not self._settled

    def settle(self, *, finally_: bool = False) -> None:
        """What the guest had written was judged. `finally_`: no work will be done any more, either."""
        with self.order:
            self._settled = True
            if self._held is None or (self._work and not finally_):
                return
            then, self._held, self._is_gone = self._held, None, False
            self._open = _ALL if not self._cut else _NONE
            then()

    def begin_work(self) -> None:
        """A trigger has started something that has to be done before the run may end."""
        with self.order:
            self._work += 1

    def end_work(self) -> None:
        """It is done."""
        with self.order:
            self._work -= 1
            if self._settled:
                self.settle()

    # --- The end ------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> Outcome:
        """The outcome, compared with what was expected of the guest, if the guest has ended by itself.

        This changes only a clean end and an odd status. The even statuses of kvmbox say what went wrong.
        """
        outcome = self.outcome
        assert outcome is not None
        if not self._by_guest or (outcome.status != CLEAN and not outcome.status & 1):
            return outcome
        if self._missing:
            missing = " nor ".join(self._missing.values())
            return Outcome(UNEXPECTED, f"{outcome.reason}, but had not {missing}", error=True)
        wanted = self._success_status
        if wanted is None:
            return outcome
        if outcome.status == wanted:
            return Outcome(CLEAN, f"{outcome.reason}, as --success-status wants")
        words = f"{outcome.reason}, but --success-status wants {wanted}"
        return Outcome(UNEXPECTED, words, error=True)
