"""/dev/kvm itself: what this host's KVM is, what it can do, and where virtual machines come from."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from ctypes import byref
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from kvmbox.base.errors import KvmError
from kvmbox.kvm import ioctl as io
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.vm import Vm

Backend: TypeAlias = Literal["vmx", "svm", "pvm", "unknown"]

REQUIRED_CAPABILITIES: Final = {
    "KVM_CAP_USER_MEMORY": uapi.KVM_CAP_USER_MEMORY,
    "KVM_CAP_IRQCHIP": uapi.KVM_CAP_IRQCHIP,
    "KVM_CAP_SET_TSS_ADDR": uapi.KVM_CAP_SET_TSS_ADDR,
    "KVM_CAP_SET_IDENTITY_MAP_ADDR": uapi.KVM_CAP_SET_IDENTITY_MAP_ADDR,
    "KVM_CAP_EXT_CPUID": uapi.KVM_CAP_EXT_CPUID,
    "KVM_CAP_MP_STATE": uapi.KVM_CAP_MP_STATE,
    "KVM_CAP_VCPU_EVENTS": uapi.KVM_CAP_VCPU_EVENTS,
    "KVM_CAP_IMMEDIATE_EXIT": uapi.KVM_CAP_IMMEDIATE_EXIT,
}
"""What kvmbox cannot do without. Everything else is looked for where it is used."""

# The PVM backend (KVM without VMX or SVM) answers this model-specific register with this value.
_MSR_PVM_SIGNATURE: Final = 0x4B564D11
_PVM_SIGNATURE: Final = 0x4D5650

_MAX_CPUID_ENTRIES: Final = 4096
_FIRST_MSR_GUESS: Final = 512
_MAX_MSR_INDICES: Final = 65536

_OPEN_HINTS: Final = {
    errno.ENOENT: "load the module kvm_intel or kvm_amd, and switch virtualization on in the firmware; "
    "in a container, pass the device in (--device /dev/kvm)",
    errno.EPERM: "the sandbox or container must be allowed to open the device",
    errno.ENODEV: "the kvm module has no backend: load kvm_intel or kvm_amd",
    errno.ENXIO: "the kvm module has no backend: load kvm_intel or kvm_amd",
}


def _forbidden(path: str) -> str:
    """What helps against EACCES."""
    import grp

    def name_of(group: int) -> str | None:
        try:
            return grp.getgrgid(group).gr_name
        except KeyError:
            return None

    try:
        status = os.stat(path)
    except OSError:
        return f"make the directories of {path} searchable for this user"
    from kvmbox.kvm.access import Device, access_hint

    return access_hint(Device(path, status.st_gid, status.st_mode), {os.getegid(), *os.getgroups()}, name_of)


def cpu_flags() -> frozenset[str]:
    """The words behind "flags" in /proc/cpuinfo; none if they cannot be read."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def is_pvm(vcpu: Vcpu) -> bool:
    """Whether the backend that runs `vcpu` is PVM, which emulates kernel-mode code of guests."""
    return vcpu.get_msrs([_MSR_PVM_SIGNATURE]).get(_MSR_PVM_SIGNATURE) == _PVM_SIGNATURE


class Kvm:
    """An open /dev/kvm. A context manager; VMs made from it outlive it."""

    def __init__(self, descriptor: int, path: str) -> None:
        """Take over `descriptor`, without any check; see `open`."""
        self._descriptor = descriptor
        self.path = path

    @classmethod
    def open(cls, path: str = "/dev/kvm") -> Self:
        """Open the device and check its API version and the capabilities that kvmbox needs.

        KvmError with a hint if it is missing, forbidden, not KVM, or too old.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            hint = _forbidden(path) if error.errno == errno.EACCES else _OPEN_HINTS.get(error.errno or 0)
            raise KvmError(f"cannot open {path}: {error.strerror}", hint=hint) from error
        kvm = cls(descriptor, path)
        try:
            kvm._check()
        except BaseException:
            kvm.close()
            raise
        return kvm

    def _check(self) -> None:
        try:
            version = self.api_version
        except OSError as error:
            raise KvmError(
                f"{self.path} is not a KVM device: {error.filename}: {error.strerror}",
                hint="the device is /dev/kvm, character device 10:232",
            ) from error
        if version != uapi.KVM_API_VERSION:
            raise KvmError(
                f"{self.path} speaks version {version} of the KVM API, kvmbox needs {uapi.KVM_API_VERSION}"
            )
        missing = self.missing_capabilities()
        if missing:
            raise KvmError(
                f"{self.path} lacks {', '.join(missing)}",
                hint="kvmbox needs a newer kernel, or another backend",
            )

    @property
    def api_version(self) -> int:
        """12 since Linux 2.6.22. OSError if the descriptor is not KVM's."""
        return io.ioctl(self._descriptor, io.KVM_GET_API_VERSION)

    @property
    def vcpu_mmap_size(self) -> int:
        """The size in bytes of a vCPU's mapping: kvm_run, the PIO page, the coalesced ring."""
        return io.kvm_call("get the size of kvm_run", self._descriptor, io.KVM_GET_VCPU_MMAP_SIZE)

    def check_extension(self, capability: int) -> int:
        """0 if KVM_CAP_`capability` is absent, else 1 or a number whose meaning depends on it."""
        return io.kvm_call("ask for a capability", self._descriptor, io.KVM_CHECK_EXTENSION, capability)

    def missing_capabilities(self) -> list[str]:
        """The names in REQUIRED_CAPABILITIES that this KVM does not have."""
        return [name for name, number in REQUIRED_CAPABILITIES.items() if self.check_extension(number) == 0]

    def create_vm(self) -> Vm:
        """A new, empty virtual machine."""
        hint = "another hypervisor may hold the CPU's virtualization"
        descriptor = io.kvm_call("create a virtual machine", self._descriptor, io.KVM_CREATE_VM, 0, hint=hint)
        try:
            return Vm(descriptor, self.vcpu_mmap_size)
        except BaseException:
            os.close(descriptor)
            raise

    def supported_cpuid(self) -> list[uapi.kvm_cpuid_entry2]:
        """The CPUID leaves that host and KVM can give a guest; hand them to `Vcpu.set_cpuid`."""
        count = uapi.USUAL_CPUID_ENTRIES
        while True:
            leaves = uapi.kvm_cpuid2(count)()
            leaves.nent = count
            try:
                io.ioctl(self._descriptor, io.KVM_GET_SUPPORTED_CPUID, byref(leaves))
            except OSError as error:
                if error.errno == errno.E2BIG and count < _MAX_CPUID_ENTRIES:
                    count *= 2
                    continue
                raise KvmError(
                    f"cannot get the CPUID of this host: {error.filename}: {error.strerror}"
                ) from error
            return list(leaves.entries[: leaves.nent])

    def msr_indices(self) -> list[int]:
        """The model-specific registers that a vCPU's state has (KVM_GET_MSR_INDEX_LIST)."""
        count = _FIRST_MSR_GUESS
        while True:
            indices = uapi.kvm_msr_list(count)(count)
            try:
                io.ioctl(self._descriptor, io.KVM_GET_MSR_INDEX_LIST, byref(indices))
            except OSError as error:
                if error.errno == errno.E2BIG and count < indices.nmsrs <= _MAX_MSR_INDICES:
                    count = indices.nmsrs
                    continue
                raise KvmError(
                    f"cannot get the list of MSRs of this host: {error.filename}: {error.strerror}"
                ) from error
            return list(indices.indices[: indices.nmsrs])

    def backend(self) -> Backend:
        """What runs guest code: 'vmx' (Intel), 'svm' (AMD), 'pvm' (neither) or 'unknown'.

        For reports only: it makes a virtual machine to find out.
        """
        # PVM first: it also runs on hosts whose CPU has the other two.
        with self.create_vm() as vm, vm.create_vcpu(0) as vcpu:
            if is_pvm(vcpu):
                return "pvm"
        flags = cpu_flags()
        if "vmx" in flags:
            return "vmx"
        return "svm" if "svm" in flags else "unknown"

    def close(self) -> None:
        """Close the device; VMs go on. Harmless if repeated."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
