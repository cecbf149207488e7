"""The dispatcher: the thread of a pool that has all sockets, and gives jobs to boot processes.

What goes wrong becomes a result. A boot process that ends without one, or tells something else, gives its job
a result that says so (`boot_result.lost`). One that hangs gets SIGTERM GRACE_S behind its time-out, and
SIGKILL after as long again. A template that does not tell of its end after as long again is lost. If
templates, or boot processes that wait, die MOST_FAILURES times in a row, the pool gives up, and every job
fails with the reason.

Time is counted in slices, as in the main loop of a run: a program that was suspended for an hour (Ctrl-Z)
does not end its guests when it goes on.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.base.outcome import DEVICE_FAILED, INTERRUPTED, KVMBOX_FAILED
from kvmbox.host.process.signals import Wakeup
from kvmbox.remote.process.spawner_client import describe_wait_status, is_readable
from kvmbox.tools.warm import frames
from kvmbox.tools.warm.boot_result import REFUSAL, MalformedResultError, WarmResult, lost, unpack_result
from kvmbox.tools.warm.client import News, TemplateClient
from kvmbox.tools.warm.orders import PREPARE, RUN, RUN_IT, request
from kvmbox.tools.warm.waiting_orders import CANCELLED, Job, JobQueue

SLICE_MS: Final = 50
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000

GRACE_S: Final = 5.0
"""How long behind its time-out a boot may take to tell its result; and then, to end."""

BIRTH_NS: Final = 10 * NS_PER_S
"""How long a template may take to fork a boot process."""

MOST_PER_WORKER: Final = 4
"""How many boot processes there may be for each worker, those that end included."""

MOST_FAILURES: Final = 3

BUG: Final = "please report this"

READ_SIZE: Final = 1 << 20

_SUSPICIOUS: Final = (DEVICE_FAILED, KVMBOX_FAILED)
"""Statuses after which a template is replaced: a device process failed, or kvmbox itself."""


def _went_on(result: WarmResult) -> bool:
    """Whether the run has survived a device process, which is as suspicious."""
    restarts = result.statistics.get("restarts")
    return isinstance(restarts, dict) and bool(restarts.get("by_type") or restarts.get("never"))


class _Boot:
    """One boot process."""

    def __init__(
        self, identifier: int, channel: socket.socket, template: TemplateClient, *, spawns: bool
    ) -> None:
        self.identifier = identifier
        self.channel = channel
        self.template = template
        self.spawns = spawns
        self.pidfd = -1
        self.job: Job | None = None
        self.prepared: Job | None = None
        """The job whose machine it prepares, or one with the same order: it can do no other."""
        self.ends = False
        """Whether it has told its result, or is not needed any more."""
        self.problem: str | None = None
        """Why it is being killed."""
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.waited_ns = 0
        self.asked_to_end = False

    @property
    def waits(self) -> bool:
        """Whether it can be given a job."""
        return self.pidfd >= 0 and self.job is None and not self.ends

    def has_prepared(self, job: Job) -> bool:
        """Whether it has prepared the machine of `job`."""
        return self.prepared is not None and job.prepares and self.prepared.order == job.order

    def can_run(self, job: Job) -> bool:
        """Whether it can be given `job`."""
        return self.prepared is None or self.has_prepared(job)

    def ask(self, kind: int, order: bytes = b"") -> None:
        """Send a request."""
        self.unsent = memoryview(bytes(self.unsent) + request(kind, order))

    @property
    def limit_ns(self) -> int | None:
        """How long it may take for what it does now."""
        if self.pidfd < 0:
            return BIRTH_NS
        if self.ends:
            return 0
        if self.job is None or self.job.timeout is None:
            return None
        return int(self.job.timeout * NS_PER_S)

    def signal(self, number: signal.Signals) -> None:
        """To the process, if it is known by now."""
        if self.pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, whatever the template has told."""
        return is_readable(self.pidfd)

    def kill(self, problem: str) -> None:
        """Kill it, because of `problem`."""
        if self.problem is None:
            self.problem = problem
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """Close what belongs to it."""
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)


class Dispatcher:
    """Everything of it belongs to the thread that runs `serve`, but for `wake`."""

    def __init__(self, queue: JobQueue, *, workers: int, renew_after: int, grace: float = GRACE_S) -> None:
        self._queue = queue
        self._workers = workers
        self._renew_after = renew_after
        self._grace_ns = int(grace * NS_PER_S)
        self._wakeup = Wakeup()
        self._templates: list[TemplateClient] = []
        self._boots: dict[int, _Boot] = {}
        self._identifier = 0
        self._failures = 0
        self._latest_kind = True
        self._unprepared: bytes | None = None
        """The last order whose machine could not be prepared, or did not fit any more."""
        self._prepares = True
        """Whether machines are prepared ahead."""
        self._given_up: tuple[str, str | None] | None = None

    def wake(self) -> None:
        """There is something new in the queue. Any thread, at any time."""
        self._wakeup.wake()

    def serve(self) -> None:
        """Serve until the queue is over and every process has ended."""
        reason = "the pool's thread failed"
        try:
            while not self._is_done():
                if self._queue.cancelled:
                    self._cancel()
                self._keep_template()
                self._assign()
                if not self._hurries:
                    self._prepare()
                    self._replenish()
                self._end_retired()
                if not self._is_done():  # the jobs that were left may have been cancelled, or have failed now
                    self._wait()
            self._let_end()
        except BaseException as error:  # noqa: BLE001 - told to everybody who waits
            reason = f"{reason}: {type(error).__name__}: {error}"
        self._queue.close(cancel=False)
        self._queue.fail_all(reason, BUG)
        for template in self._templates:
            template.close()
        for boot in self._boots.values():
            self._finish(boot, lost(reason, BUG))
            boot.close()
        self._wakeup.close()

    # --- What there is to do ------------------------------------------------------------------------------

    def _is_done(self) -> bool:
        return self._queue.is_over and not any(boot.job is not None for boot in self._boots.values())

    def _cancel(self) -> None:
        for boot in self._boots.values():
            if boot.job is not None:
                boot.kill(CANCELLED)

    def _keep_template(self) -> None:
        if self._given_up is not None:
            self._queue.fail_all(*self._given_up)
            return
        if any(not one.retired and one.served < self._renew_after for one in self._templates):
            return
        try:
            self._templates.append(TemplateClient.start())
        except StartError as error:
            self._give_up(str(error), error.hint)

    def _give_up(self, reason: str, hint: str | None) -> None:
        self._given_up = reason, hint
        self._queue.fail_all(reason, hint)

    def _failed(self, what: str) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._give_up(f"warm workers do not come up: {what}", "try the same guest with 'kvmbox run'")

    def _current(self) -> TemplateClient | None:
        """The newest template that is ready; what is older is retired."""
        ready = [one for one in self._templates if one.ready and not one.retired]
        for older in ready[:-1]:
            self._retire(older)
        return ready[-1] if ready else None

    def _retire(self, template: TemplateClient) -> None:
        template.retired = True
        for boot in self._boots.values():
            if boot.template is template and boot.job is None and not boot.ends:
                self._dismiss(boot)

    def _end_retired(self) -> None:
        used = {id(boot.template) for boot in self._boots.values()}
        for template in [one for one in self._templates if one.retired and id(one) not in used]:
            self._templates.remove(template)
            template.close()

    @staticmethod
    def _dismiss(boot: _Boot) -> None:
        """It is not needed: it reads the end of file, and ends."""
        boot.ends = True
        boot.waited_ns = 0
        with suppress(OSError):
            boot.channel.shutdown(socket.SHUT_WR)

    def _assign(self) -> None:
        running = sum(boot.job is not None for boot in self._boots.values())
        waiting = [boot for boot in self._boots.values() if boot.waits]
        for _ in range(min(len(waiting), self._workers - running)):
            job = self._queue.take(lambda job: any(boot.can_run(job) for boot in waiting))
            if job is None:
                return
            # The oldest of those that have prepared what the job wants, else the oldest.
            able = [boot for boot in waiting if boot.can_run(job)]
            boot = min(able, key=lambda one: (not one.has_prepared(job), one.spawns is not job.spawns))
            waiting.remove(boot)
            boot.job = job
            boot.waited_ns = 0
            self._latest_kind = job.spawns
            boot.template.served += 1
            if boot.prepared is None:
                boot.ask(RUN, job.order)
            else:
                boot.ask(RUN_IT)
            self._send(boot)

    @property
    def _hurries(self) -> bool:
        """Whether what is done for later boots has to wait: a boot has just begun, there is a process for one
        more, and nobody waits for it.
        """
        boots = self._boots.values()
        young = any(boot.job is not None and boot.waited_ns < SLICE_MS * NS_PER_MS for boot in boots)
        return young and any(boot.waits for boot in boots) and not self._queue.upcoming(1)

    def _prepare(self) -> None:
        """Have the machines prepared of the jobs that come next, and of those that will perhaps come. That is
        for CPUs that no guest needs now: else it makes no boot end earlier.
        """
        busy = sum(boot.job is not None for boot in self._boots.values())
        at_once = max(0, self._workers - busy)  # these wait for a process that can run them
        coming = self._queue.upcoming(at_once + self._workers)[at_once:]
        if (likely := self._queue.likely) is not None:
            coming += [likely] * (self._workers - len(coming))
        waiting = [boot for boot in self._boots.values() if boot.waits]
        for boot in [boot for boot in waiting if boot.prepared is not None]:
            job = next((job for job in coming if boot.has_prepared(job)), None)
            if job is None:
                self._dismiss(boot)
            else:
                coming.remove(job)
        waiting = [boot for boot in waiting if boot.prepared is None]
        for job in coming if self._prepares and busy < len(os.sched_getaffinity(0)) else ():
            if job.prepares and job.order != self._unprepared and waiting:
                boot = min(waiting, key=lambda one: one.spawns is not job.spawns)
                waiting.remove(boot)
                boot.prepared = job
                boot.ask(PREPARE, job.order)
                self._send(boot)

    def _replenish(self) -> None:
        template = self._current()
        if template is None or self._given_up is not None:
            return
        kinds = [job.spawns for job in self._queue.upcoming(self._workers)]
        if not self._queue.is_closed:
            kinds += [kinds[-1] if kinds else self._latest_kind] * (self._workers - len(kinds))
        for boot in self._boots.values():
            if boot.job is None and boot.prepared is None and not boot.ends and kinds:
                # One that has prepared something else will do as well.
                kinds.remove(boot.spawns if boot.spawns in kinds else kinds[-1])
        room = self._workers * MOST_PER_WORKER - len(self._boots)
        for spawns in kinds[: max(0, room)]:
            try:
                ours, theirs = socket.socketpair()
            except OSError as error:  # the program may have used up its descriptors
                self._failed(f"no socket for a boot process: {error.strerror}")
                return
            with theirs:
                self._identifier += 1
                if not template.order(self._identifier, [theirs.fileno()], spawns=spawns):
                    ours.close()
                    return
            ours.setblocking(False)
            self._boots[self._identifier] = _Boot(self._identifier, ours, template, spawns=spawns)

    # --- What comes ---------------------------------------------------------------------------------------

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup.read_end, select.POLLIN)
        templates = {template.fileno(): template for template in self._templates}
        for descriptor in templates:
            poll.register(descriptor, select.POLLIN)
        boots = {}
        for boot in self._boots.values():
            if boot.problem is None and not (boot.ends and boot.job is None):
                boots[boot.channel.fileno()] = boot
                poll.register(boot.channel, select.POLLIN | (select.POLLOUT if boot.unsent else 0))
        timed = self._hurries or any(boot.limit_ns is not None for boot in self._boots.values())
        before = time.monotonic_ns()
        events = poll.poll(SLICE_MS if timed else None)
        elapsed_ns = min(time.monotonic_ns() - before, 2 * SLICE_MS * NS_PER_MS)
        for descriptor, mask in events:
            if descriptor == self._wakeup.read_end:
                self._wakeup.clear()
            elif descriptor in boots:
                if mask & select.POLLOUT:
                    self._send(boots[descriptor])
                if mask & ~select.POLLOUT:
                    self._receive(boots[descriptor])
        # Behind that, because boot processes are forgotten from here on.
        for descriptor, _ in events:
            if descriptor in templates:
                self._take_all_news(templates[descriptor])
        self._pass_time(elapsed_ns)

    def _pass_time(self, elapsed_ns: int) -> None:
        silent: list[TemplateClient] = []
        for boot in self._boots.values():
            limit = boot.limit_ns
            boot.waited_ns += elapsed_ns
            if limit is None:
                continue
            overdue = boot.waited_ns - limit - self._grace_ns
            if boot.pidfd < 0:
                if overdue > 0:
                    silent.append(boot.template)
            elif overdue > self._grace_ns:
                boot.kill("it did not end when its time was over")
                if overdue > 2 * self._grace_ns and boot.is_gone:
                    silent.append(boot.template)
            elif overdue > 0 and not boot.asked_to_end:
                boot.asked_to_end = True
                boot.signal(signal.SIGTERM)
        for template in silent:
            if template in self._templates:
                template.fatal = "it does not answer"
                self._lose(template)

    @staticmethod
    def _send(boot: _Boot) -> None:
        try:
            while boot.unsent:
                boot.unsent = boot.unsent[boot.channel.send(boot.unsent, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return
        except OSError:  # it is gone: the end of file tells the same
            boot.unsent = memoryview(b"")

    def _receive(self, boot: _Boot) -> None:
        """Read what there is. The end of the result is the end of the job."""
        try:
            while data := boot.channel.recv(READ_SIZE):
                boot.received += data
                if boot.received == REFUSAL and boot.prepared is not None:
                    self._take_refusal(boot, boot.prepared)
                    return
                result = unpack_result(boot.received)
                if result is not None:
                    self._take_result(boot, result)
                    return
        except BlockingIOError:
            return
        except (MalformedResultError, OSError) as error:
            boot.kill(f"it told something that is no result: {error}")
            return
        boot.kill("it ended without a result")

    def _take_result(self, boot: _Boot, result: WarmResult) -> None:
        if boot.job is None:
            boot.kill("it told a result without an order")
            return
        if boot.asked_to_end and result.status == INTERRUPTED:
            words = "it ran on behind its time-out"
            result = result.replaced(status=KVMBOX_FAILED, failed=True, reason=words)
        self._failures = 0
        if result.status in _SUSPICIOUS or _went_on(result):
            self._retire(boot.template)
        boot.ends = True
        boot.waited_ns = 0
        self._finish(boot, result)

    def _take_refusal(self, boot: _Boot, prepared: Job) -> None:
        """It cannot run what it has `prepared`: another one does, which prepares nothing."""
        boot.ends = True
        boot.waited_ns = 0
        prepared.prepares = False  # or two such orders would be tried in turn, for ever
        self._unprepared = prepared.order  # a program may write its image anew for each boot
        job, boot.job = boot.job, None
        if job is not None:
            self._retire(boot.template)  # a guest that has taken over its VMM can say this, too
            job.prepares = False
            self._queue.give_back(job)

    @staticmethod
    def _finish(boot: _Boot, result: WarmResult) -> None:
        job, boot.job = boot.job, None
        if job is not None:
            job.future.set_result(result)

    def _take_all_news(self, template: TemplateClient) -> None:
        while True:
            try:
                news = template.take_news()
            except BlockingIOError:
                return
            if news is None:
                self._lose(template)
                return
            self._take(news)

    def _take(self, news: News) -> None:
        boot = self._boots.get(news.identifier)
        if boot is None:
            return
        if news.kind == frames.BORN:
            boot.pidfd = news.descriptor
            boot.waited_ns = 0
        elif news.kind == frames.FAILED:
            self._forget(boot, f"it could not be forked: {os.strerror(news.number)}")
        elif news.kind == frames.DIED:
            if (boot.job or boot.prepared) is not None and boot.problem is None and not boot.ends:
                self._receive(boot)  # what it said before it died comes first
            self._forget(boot, f"it {describe_wait_status(news.number)}")

    def _forget(self, boot: _Boot, how: str) -> None:
        """A boot process is no more."""
        del self._boots[boot.identifier]
        if boot.job is not None:
            problem = boot.problem or how
            self._retire(boot.template)
            hint = f"it {how}" if boot.problem else None
            self._finish(boot, lost(f"the boot process was lost: {problem}", hint))
        elif boot.prepared is not None and not boot.ends:
            self._prepares = False  # whatever it was, it could happen again
            self._retire(boot.template)
        elif not boot.ends:
            self._failed(f"a boot process that waited was lost: {how}")
        boot.close()

    def _lose(self, template: TemplateClient) -> None:
        """A template has died, and all its boot processes with it."""
        self._templates.remove(template)
        template.close()
        for boot in [boot for boot in self._boots.values() if boot.template is template]:
            if boot.job is not None and boot.problem is None:
                self._receive(boot)
            boot.ends = True  # it is not one more failure
            self._forget(boot, "died with its template")
        if not template.retired:
            self._failed(f"the template died: {template.fatal or 'it said nothing'}")

    # --- The end ------------------------------------------------------------------------------------------

    def _let_end(self) -> None:
        """Every job has its result: let the boot processes end in order."""
        for boot in self._boots.values():
            if not boot.ends:
                self._dismiss(boot)
        while self._boots and self._templates:
            self._wait()
