"""Warm boots: many guests one after the other, without an interpreter's start and imports for each.

from kvmbox.tools.warm import WarmPool

with WarmPool(workers=2) as pool:
    futures = [pool.submit({"image": name, "timeout": 10}) for name in ("hello32", "hello64")]
    assert [future.result().status for future in futures] == [0, 0]
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.tools.warm.boot_result import WarmResult
    from kvmbox.tools.warm.pool import WarmPool

__all__ = ["WarmPool", "WarmResult"]

_HOMES = {"WarmPool": "kvmbox.tools.warm.pool", "WarmResult": "kvmbox.tools.warm.boot_result"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'kvmbox.tools.warm' has no attribute '{name}'")
    from importlib import import_module

    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
