"""--profile: where the CPUs of the guest were, in a file that is written when the guest has ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvmbox.base.errors import StartError
from kvmbox.explain.debug_info import SEARCH_SECONDS, DebugInfo
from kvmbox.explain.symbols import code_of
from kvmbox.host.console.serial_backends import open_for_writing, reason
from kvmbox.parts.profile.formats import collapsed, is_speedscope, speedscope
from kvmbox.parts.profile.naming import frames_of, named
from kvmbox.parts.profile.profiler import Profiler
from kvmbox.parts.profile.samples import Samples
from kvmbox.run.options.choices import DEFAULT_PROFILE_RATE
from kvmbox.run.part import PERHAPS_FULL, Finding, Lost, Opening, Part, Standing

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome
    from kvmbox.base.symbol_file import SymbolFile


class Profile(Part):
    """One profile: the file, which is opened before the VMM confines itself, and the profiler."""

    def __init__(
        self,
        profile: str,
        profile_rate: int | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`profile_rate` is in samples a second, `now` gives seconds."""
        self._path = profile
        self._rate = profile_rate or DEFAULT_PROFILE_RATE
        self._now = now
        self._image = ""
        self._samples = Samples()
        self._symbols: Sequence[SymbolFile] = ()
        self._descriptor = -1

    def open(self, opening: Opening) -> None:
        """See `Part`. Raises StartError."""
        self._image = os.path.basename(opening.config.guest)
        try:
            self._descriptor = open_for_writing(self._path)
        except OSError as error:
            raise StartError(f"cannot write the profile '{self._path}': {reason(error)}") from error

    def attach(self, machine: Standing) -> None:
        """See `Part`: sample the vCPUs from now on. The symbols are for the names, at the end."""
        self._symbols = machine.source.symbols
        code = [part for one in self._symbols for part in code_of(one.data, one.base)]
        profiler = Profiler(machine.loop.standstill, self._rate, code, now=self._now)
        self._samples = profiler.samples
        machine.loop.standstill.admit(profiler)

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`: write the samples with names."""
        del outcome
        end = time.monotonic() + SEARCH_SECONDS
        debug_info = DebugInfo(self._symbols, lambda: time.monotonic() < end)
        for_speedscope = is_speedscope(self._path)
        names = frames_of(debug_info, with_files=for_speedscope)
        profile = named(self._samples, names, debug_info.callers)
        text = speedscope(profile, self._image, "kvmbox") if for_speedscope else collapsed(profile)
        try:
            with os.fdopen(self._take(), "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            return Lost(f"cannot write the profile '{self._path}': {error.strerror}", hint=PERHAPS_FULL)
        return None

    def _take(self) -> int:
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        """See `Part`: close the file, if it was not written. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._take())


PART = Profile
