"""Which labels a process asks for, and what it says where it gets none; tests/integration has real ones."""

from __future__ import annotations

import ctypes
import errno
import itertools
import struct

import pytest

from kvmbox.jail import label, linux, lsm

CURRENT = 100  # LSM_ATTR_CURRENT
SELINUX, APPARMOR = 101, 104  # LSM_ID_*
UNCONFINED = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"


class Kernel:
    """Takes orders of lsm_set_self_attr, and answers with the errors of a test, by the label's last word.

    `modules` are those in force, `context` is that of SELinux.
    """

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.context = ""
        self.modules = [100, 110, APPARMOR]  # behind the capabilities and Landlock
        self.orders: list[tuple[int, str]] = []

    def call(self, number: int, *arguments: int) -> int:
        if number == label.SYS_LSM_LIST_MODULES:
            return self.list(*arguments)
        attribute, address, size, flags = arguments
        assert attribute == CURRENT
        if number == lsm.SYS_LSM_GET_SELF_ATTR:
            return self.get(address, size, flags)
        data = ctypes.string_at(address, size)
        module, ctx_flags, length, text_length = lsm.CONTEXT.unpack_from(data)
        text = data[lsm.CONTEXT.size :][:text_length]
        assert (number, ctx_flags, length, flags) == (460, 0, size, 0)
        assert size % 8 == 0
        assert text.endswith(b"\0")
        self.orders.append((module, text[:-1].decode()))
        return self.answer(self.errors.get(text[:-1].decode().split(" ")[-1], 0))

    def list(self, address: int, size_address: int, flags: int) -> int:
        assert flags == 0
        data = struct.pack(f"={len(self.modules)}Q", *self.modules)
        assert len(data) <= ctypes.c_uint32.from_address(size_address).value
        ctypes.memmove(address, data, len(data))
        return len(self.modules)

    def get(self, address: int, size_address: int, flags: int) -> int:
        assert flags == 1  # LSM_FLAG_SINGLE
        assert lsm.CONTEXT.unpack(ctypes.string_at(address, lsm.CONTEXT.size))[0] == SELINUX
        text = self.context.encode() + b"\0"
        answer = lsm.CONTEXT.pack(SELINUX, 0, lsm.CONTEXT.size + len(text), len(text)) + text
        assert len(answer) <= ctypes.c_uint32.from_address(size_address).value
        ctypes.memmove(address, answer, len(answer))
        return 1

    @staticmethod
    def answer(error: int) -> int:
        ctypes.set_errno(error)
        return -1 if error else 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(linux, "raw_syscall", kernel.call)
    return kernel


@pytest.fixture
def selinux(kernel: Kernel) -> Kernel:
    """Which lets nobody back."""
    kernel.context, kernel.modules = UNCONFINED, [100, SELINUX, 110]
    kernel.errors[UNCONFINED] = errno.EACCES
    return kernel


def asked(kernel: Kernel) -> list[str]:
    return [text for _, text in kernel.orders]


def test_profile_is_stacked_on_what_is_in_force(kernel: Kernel) -> None:
    label.take("uart", "device")
    assert kernel.orders == [(APPARMOR, "stack kvmbox-uart")]


def test_type_without_a_profile_of_its_own_gets_that_of_any(kernel: Kernel) -> None:
    kernel.errors["kvmbox-mine"] = errno.ENOENT
    label.take("mine", "device")
    assert asked(kernel) == ["stack kvmbox-mine", "stack kvmbox-device"]


@pytest.mark.parametrize(
    ("error", "orders", "reason"),
    [
        (errno.ENOENT, 2, "no profile is loaded: see 'kvmbox policy --format apparmor'"),
        (errno.EPERM, 1, "lsm_set_self_attr: Operation not permitted"),
    ],
)
def test_no_label_is_an_error_with_the_reason(kernel: Kernel, error: int, orders: int, reason: str) -> None:
    kernel.errors |= {"kvmbox-uart": error, "kvmbox-device": error}
    with pytest.raises(OSError, match=r".") as caught:
        label.take("uart", "device")
    assert caught.value.args == (error, reason)
    assert len(kernel.orders) == orders


@pytest.mark.parametrize("modules", [[], [100, 105]], ids=["Linux before 6.8", "no labels"])
def test_kernel_without_labels_is_asked_for_none(kernel: Kernel, modules: list[int]) -> None:
    kernel.modules = modules
    with pytest.raises(
        OSError, match=r"^neither AppArmor nor SELinux is in force, or this is no Linux 6\.8$"
    ):
        label.take("uart", "device")
    assert kernel.orders == []


def test_type_of_selinux_replaces_the_former_and_a_way_back_is_looked_for(selinux: Kernel) -> None:
    selinux.context = former = "u:r:kvmbox_spawner_t:s0:c3,c8"
    selinux.errors[former] = errno.EACCES
    label.take("virtio-blk", "device")
    assert selinux.orders == [(SELINUX, "u:r:kvmbox_virtio_blk_t:s0:c3,c8"), (SELINUX, former)]


def test_label_that_can_be_left_is_none(selinux: Kernel) -> None:
    del selinux.errors[UNCONFINED]
    with pytest.raises(OSError, match=r"SELinux does not enforce its policy"):
        label.take("vmm", machine=1)


def test_type_without_a_policy_of_its_own_gets_that_of_any(selinux: Kernel) -> None:
    mine, anys = (lsm.context_of(UNCONFINED, process, None) for process in ("mine", "device"))
    selinux.errors[mine] = errno.EINVAL
    label.take("mine", "device")
    assert asked(selinux)[:2] == [mine, anys]


@pytest.mark.parametrize(
    ("error", "orders", "reason"),
    [
        (errno.EINVAL, 2, "no policy is loaded: see 'kvmbox policy --format selinux'"),
        (errno.EACCES, 1, "the policy lets no process with the label of this one take it"),
        (errno.EPERM, 1, "lsm_set_self_attr: Operation not permitted"),
    ],
)
def test_no_type_is_an_error_with_the_reason(selinux: Kernel, error: int, orders: int, reason: str) -> None:
    for process in ("uart", "device"):
        selinux.errors[lsm.context_of(UNCONFINED, process, None)] = error
    with pytest.raises(OSError, match=r".") as caught:
        label.take("uart", "device")
    assert caught.value.args == (error, reason)
    assert len(selinux.orders) == orders


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("s0-s0:c0.c1023", "s0:c0,c1"),
        ("s0-s15:c5.c7,c9", "s0:c5,c6"),
        ("s0:c7,c30", "s0:c7,c30"),  # a container's: there is no other pair
        ("s0:c7", "s0:c7"),
        ("s0", "s0"),
    ],
)
def test_first_machine_gets_the_first_two_of_the_categories_there_are(level: str, expected: str) -> None:
    assert lsm.context_of(f"u:r:t:{level}", "vmm", 0) == f"u:r:kvmbox_vmm_t:{expected}"


def test_policy_without_levels_keeps_three_fields() -> None:
    assert lsm.context_of("u:r:t", "vmm", 5) == "u:r:kvmbox_vmm_t"


def test_every_pair_of_categories_belongs_to_one_machine_before_any_comes_again() -> None:
    pairs = itertools.combinations((1, 2, 3, 8), 2)
    found = [lsm.context_of("u:r:t:s0-s0:c1.c3,c8", "vmm", machine) for machine in range(12)]
    assert set(found) == {f"u:r:kvmbox_vmm_t:s0:c{one},c{other}" for one, other in pairs}
    assert found[:6] == found[6:]


def test_last_pair_of_all_categories_can_be_had() -> None:
    last = 1024 * 1023 // 2 - 1
    assert lsm.context_of(UNCONFINED, "vmm", last).endswith(":s0:c1022,c1023")
