"""`python -m tests.lab.selinux MODULE TOOLS`: the lab's machine under SELinux, with the policy module MODULE.

A distribution's policy would need files that are labelled. This one has just what a machine needs in which
all is allowed but to who leaves its one type: the classes of the kernel, a type for all processes, and one
for the files of each kind of file system. Its names are those that `kvmbox.tools.policy.selinux` knows of
distributions. It is compiled by secilc, from the unpacked packages below TOOLS, and loaded for good.

Facts: security/selinux/include/classmap.h and initial_sid_to_string.h of Linux 6.12, and the reference guide
of the Common Intermediate Language.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

FILE: Final = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link "
    "rename execute quotaon mounton audit_access open execmod watch watch_mount watch_sb "
    "watch_with_perm watch_reads"
)
SOCKET: Final = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map bind connect "
    "listen accept getopt setopt shutdown recvfrom sendto name_bind"
)
IPC: Final = "create destroy getattr setattr read write associate unix_read unix_write"
CAPABILITY: Final = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio "
    "sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time "
    "sys_tty_config mknod lease audit_write audit_control setfcap"
)
CAPABILITY2: Final = (
    "mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
CLASSES: Final = {
    "security": "compute_av compute_create compute_member check_context load_policy compute_relabel "
    "compute_user setenforce setbool setsecparam setcheckreqprot read_policy validate_trans",
    "process": "fork transition sigchld sigkill sigstop signull signal ptrace getsched setsched getsession "
    "getpgid setpgid getcap setcap share getattr setexec setfscreate noatsecure siginh setrlimit "
    "rlimitinh dyntransition setcurrent execmem execstack execheap setkeycreate setsockcreate "
    "getrlimit",
    "process2": "nnp_transition nosuid_transition",
    "system": "ipc_info syslog_read syslog_mod syslog_console module_request module_load",
    "capability": CAPABILITY,
    "capability2": CAPABILITY2,
    "cap_userns": CAPABILITY,
    "cap2_userns": CAPABILITY2,
    "filesystem": "mount remount unmount getattr relabelfrom relabelto associate quotamod quotaget watch",
    "fd": "use",
    "file": f"{FILE} execute_no_trans entrypoint",
    "dir": f"{FILE} add_name remove_name reparent search rmdir",
    **dict.fromkeys(("lnk_file", "chr_file", "blk_file", "sock_file", "fifo_file", "anon_inode"), FILE),
    "unix_stream_socket": f"{SOCKET} connectto",
    "tcp_socket": f"{SOCKET} node_bind name_connect",
    "udp_socket": f"{SOCKET} node_bind",
    "rawip_socket": f"{SOCKET} node_bind",
    "icmp_socket": f"{SOCKET} node_bind",
    "tun_socket": f"{SOCKET} attach_queue",
    "netlink_route_socket": f"{SOCKET} nlmsg_read nlmsg_write",
    "netlink_audit_socket": f"{SOCKET} nlmsg_read nlmsg_write nlmsg_relay nlmsg_readpriv nlmsg_tty_audit",
    **dict.fromkeys(
        (
            *("socket", "unix_dgram_socket", "netlink_socket", "packet_socket", "key_socket", "vsock_socket"),
            *("alg_socket", "xdp_socket", "netlink_generic_socket", "netlink_kobject_uevent_socket"),
        ),
        SOCKET,
    ),
    "sem": IPC,
    "ipc": IPC,
    "msg": "send receive",
    "msgq": f"{IPC} enqueue",
    "shm": f"{IPC} lock",
    "key": "view read write search link setattr create",
    "memprotect": "mmap_zero",
    "bpf": "map_create map_read map_write prog_load prog_run",
    "perf_event": "open cpu kernel tracepoint read write",
    "io_uring": "override_creds sqpoll cmd",
    "user_namespace": "create",
}
"""By class of the kernel: its permissions. Others are not asked for (handleunknown allow)."""

INITIAL: Final = (
    "kernel security unlabeled fs file file_labels init any_socket port netif netmsg node "
    "igmp_packet icmp_socket tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net "
    "sysctl_net_unix sysctl_vm sysctl_dev kmod policy scmp_packet devnull"
)
CAPABILITIES: Final = ("open_perms", "extended_socket_class")
"""Of the policy: what a kernel asks for only where the policy knows of it."""

LABELLED: Final = {
    "usr_t": "overlay 9p rootfs ramfs",
    "tmp_t": "",
    "device_t": "",
    "devpts_t": "",
    "proc_t": "proc sysfs",
    "kernel_fs_t": "selinuxfs securityfs cgroup2 anon_inodefs bdev nsfs pidfs devfs mqueue hugetlbfs",
    "kvm_device_t": "",
    "null_device_t": "",
}
"""By type: the file systems whose files have it, all of them."""

BY_CREATOR: Final = {"tmpfs": "tmp_t", "devtmpfs": "device_t", "devpts": "devpts_t"}
NODES: Final = {"/dev/kvm": "kvm_device_t", "/dev/null": "null_device_t"}
BY_TASK: Final = ("pipefs", "sockfs", "eventpollfs")

USER: Final = "unconfined_u"
RANGE: Final = "((s0) (s0 (range c0 c1023)))"
SELINUXFS: Final = Path("/sys/fs/selinux")


def base() -> str:
    """The policy without the module of kvmbox."""
    categories = [f"c{number}" for number in range(1024)]
    lines = ["(handleunknown allow)", "(mls true)"]
    lines += [f"(policycap {name})" for name in CAPABILITIES]
    lines += [f"(class {name} ({permissions}))" for name, permissions in CLASSES.items()]
    lines += [f"(classorder ({' '.join(CLASSES)}))"]
    lines += [f"(sid {name})" for name in INITIAL.split()]
    lines += [f"(sidorder ({INITIAL}))"]
    lines += [f"(category {name})" for name in categories]
    lines += [f"(categoryorder ({' '.join(categories)}))"]
    lines += ["(sensitivity s0)", "(sensitivityorder (s0))", "(sensitivitycategory s0 (range c0 c1023))"]
    lines += ["(role object_r)", "(role unconfined_r)", f"(user {USER})", f"(userrole {USER} unconfined_r)"]
    lines += [f"(userrole {USER} object_r)"]
    lines += [f"(userlevel {USER} (s0))", f"(userrange {USER} {RANGE})"]
    lines += [f"(type {name})" for name in ("unconfined_t", *LABELLED)]
    lines += ["(roletype unconfined_r unconfined_t)"]
    lines += [
        "(typeattribute everything)",
        "(typeattributeset everything (all))",
        "(roletype object_r everything)",
    ]
    lines += [
        "(typeattribute non_security_file_type)",
        "(typeattributeset non_security_file_type (usr_t tmp_t))",
    ]
    lines += ["(typeattribute ptynode)", "(typeattributeset ptynode (devpts_t))"]
    lines += [f"(allow unconfined_t everything ({name} (all)))" for name in CLASSES]
    lines += ["(allow everything everything (filesystem (associate)))"]
    process = f"({USER} unconfined_r unconfined_t {RANGE})"
    lines += [f"(sidcontext {name} {process})" for name in INITIAL.split()]
    for name, systems in LABELLED.items():
        lines += [f'(genfscon {system} "/" {_object(name)})' for system in systems.split()]
    lines += [f"(fsuse trans {system} {_object(name)})" for system, name in BY_CREATOR.items()]
    lines += [f"(fsuse task {system} {_object('kernel_fs_t')})" for system in BY_TASK]
    return "\n".join(lines) + "\n"


def _object(name: str) -> str:
    return f"({USER} object_r {name} ((s0) (s0)))"


def compile_policy(sources: list[Path], tools: Path, version: int, target: Path) -> None:
    """Make `target` of these sources, by secilc; its own lines, on stderr, if it cannot."""
    subprocess.run(
        [
            tools / "secilc/usr/bin/secilc",
            f"--policyvers={version}",
            "-o",
            target,
            "-f",
            os.devnull,
            *sources,
        ],
        check=True,
        env={"LD_LIBRARY_PATH": str(tools / "libsepol2/usr/lib/x86_64-linux-gnu")},
    )


def main(module: Path, tools: Path) -> None:
    """Load the policy and enforce it."""
    subprocess.run(["mount", "-t", "selinuxfs", "selinuxfs", SELINUXFS], check=True)
    source, policy = module.with_name("base.cil"), module.with_name("policy")
    source.write_text(base())
    compile_policy([source, module], tools, int((SELINUXFS / "policyvers").read_text()), policy)
    # In one write: the kernel takes what it gets for all of it.
    with open(SELINUXFS / "load", "wb", buffering=0) as load:
        load.write(policy.read_bytes())
    for path, name in NODES.items():
        os.setxattr(path, "security.selinux", f"{USER}:object_r:{name}:s0\0".encode())
    if (SELINUXFS / "enforce").read_text() != "1":
        raise SystemExit("SELinux is not enforcing")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
