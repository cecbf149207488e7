"""The life of a helper process, from its start to its end."""

from __future__ import annotations

import os

from kvmbox.jail import passing
from kvmbox.jail.descriptors import CONTROL_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def live(life: Callable[[], None], fatal: Callable[[BaseException], bytes]) -> NoReturn:
    """Be a process whose life is `life`. It leaves by _exit, whatever happens.

    `fatal` makes of an exception the frame that tells, on the control socket, why the process gives up.
    """
    status = 1
    try:
        life()
        status = 0
    except BaseException as error:  # noqa: BLE001 - told to the other side, then the process ends
        passing.send(CONTROL_FD, fatal(error))
    finally:
        os._exit(status)
