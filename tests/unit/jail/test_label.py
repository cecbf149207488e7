"""Which profiles a process asks for, and what it says where it gets none; tests/integration has real ones."""

from __future__ import annotations

import ctypes
import errno

import pytest

from kvmbox.jail import label, linux


class Kernel:
    """Takes orders of lsm_set_self_attr, and answers with the errors of a test, by profile."""

    def __init__(self, errors: dict[str, int]) -> None:
        self.errors = errors
        self.orders: list[tuple[int, int, int, str]] = []

    def call(self, number: int, attribute: int, address: int, size: int, flags: int) -> int:
        data = ctypes.string_at(address, size)
        module, ctx_flags, length, text_length = label.CONTEXT.unpack_from(data)
        text = data[label.CONTEXT.size :][:text_length]
        assert (number, ctx_flags, length, flags) == (460, 0, size, 0)
        assert size % 8 == 0
        assert text.endswith(b"\0")
        word, profile = text[:-1].decode().split(" ")
        self.orders.append((attribute, module, size, f"{word} {profile}"))
        error = self.errors.get(profile, 0)
        ctypes.set_errno(error)
        return -1 if error else 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel({})
    monkeypatch.setattr(linux, "raw_syscall", kernel.call)
    return kernel


def asked(kernel: Kernel) -> list[str]:
    return [text for *_, text in kernel.orders]


def test_profile_is_stacked_on_what_is_in_force(kernel: Kernel) -> None:
    label.take("uart", "device")
    ((attribute, module, _, text),) = kernel.orders
    assert (attribute, module, text) == (100, 104, "stack kvmbox-uart")  # LSM_ATTR_CURRENT, LSM_ID_APPARMOR


def test_type_without_a_profile_of_its_own_gets_that_of_any(kernel: Kernel) -> None:
    kernel.errors["kvmbox-mine"] = errno.ENOENT
    label.take("mine", "device")
    assert asked(kernel) == ["stack kvmbox-mine", "stack kvmbox-device"]


@pytest.mark.parametrize(
    ("error", "orders", "reason"),
    [
        (errno.ENOENT, 2, "no profile is loaded: see 'kvmbox policy --format apparmor'"),
        (errno.ENOSYS, 1, "lsm_set_self_attr needs Linux 6.8"),
        (errno.EOPNOTSUPP, 1, "AppArmor is not in force"),
        (errno.EPERM, 1, "lsm_set_self_attr: Operation not permitted"),
    ],
)
def test_no_label_is_an_error_with_the_reason(kernel: Kernel, error: int, orders: int, reason: str) -> None:
    kernel.errors |= {"kvmbox-uart": error, "kvmbox-device": error}
    with pytest.raises(OSError, match=r".") as caught:
        label.take("uart", "device")
    assert caught.value.args == (error, reason)
    assert len(kernel.orders) == orders
