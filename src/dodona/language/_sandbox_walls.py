"""What the kernel is asked for around a program that nobody trusts: limits, a user of its own, namespaces, a filter.

Called in the child (_sandbox_child.py), which imports nothing of dodona; system calls go through ctypes,
because no program may be missing for them.

Source: man pages namespaces(7), pivot_root(2), mount_setattr(2), capabilities(7), seccomp(2).
Not here: who decides what a program is worth (sandbox.py).
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_CGROUP, NEW_NAMES, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USER, NEW_PIDS, NEW_NET = 0x10000000, 0x20000000, 0x40000000
NEW_ANY = NEW_MOUNTS | NEW_CGROUP | NEW_NAMES | NEW_IPC | NEW_USER | NEW_PIDS | NEW_NET
READ_ONLY, NO_SUID, NO_DEVICES, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 1 << 12, 1 << 14, 1 << 18
DETACH, AT_RECURSIVE, AT_HERE = 2, 0x8000, -100
DEATH_SIGNAL, KEEP_CAPS, SECCOMP, DROP_BOUND, REAP, NO_NEW_RIGHTS = 1, 8, 22, 24, 36, 38
READ_ANYTHING = 2  # the capability to read files whoever owns them
SHOWN = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/nix",
)  # of the file system, beside the interpreter's own folder
DEVICES = ("null", "zero", "urandom")

# Calls that no answer to a problem needs and that reach far into the kernel, as (x86_64, aarch64).
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
CLONE, CLONE3, KILL, MOUNT_SETATTR, PIVOT_ROOT = (56, 220), 435, (62, 129), 442, (155, 41)
DENIED = (
    (101, 117), (310, 270), (311, 271), (312, 272),  # ptrace, process_vm_readv and _writev, kcmp
    (165, 40), (166, 39), (155, 41), (161, 51), (272, 97), (308, 268),  # mount, umount2, pivot_root, chroot, unshare, setns
    (250, 219), (248, 217), (249, 218),  # keyctl, add_key, request_key
    (321, 280), (298, 241), (323, 282),  # bpf, perf_event_open, userfaultfd
    (246, 104), (320, 294), (175, 105), (313, 273), (176, 106), (169, 142),  # kexec, modules, reboot
    (167, 224), (168, 225), (163, 89), (179, 60),  # swapon, swapoff, acct, quotactl
    (303, 264), (304, 265), (227, 112), (164, 170), (159, 171),  # handles of files, clocks
    *((n, n) for n in (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, MOUNT_SETATTR)),  # io_uring, new mounts, pidfd_getfd
)  # fmt: skip


class Refused(Exception):
    """The kernel does not grant what was asked for."""


def watch_over() -> None:
    """End with the parent, and inherit every orphan below."""
    _prctl(DEATH_SIGNAL, signal.SIGKILL)
    _prctl(REAP, 1)


def limit(limits: Mapping[str, Any], *, uid: int | None) -> None:
    """Resource limits of this process and what it starts; none can be raised again."""
    mega = 1 << 20
    seconds = int(limits["seconds"]) + 2  # of one process; the wall clock of all is watched outside
    others = 0 if uid is not None else _threads_of(os.getuid())
    for what, most in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, limits["memory_mb"] * mega),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * mega), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_NPROC, limits["processes"] + others),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))


def become(uid: int | None, interpreter: str) -> None:
    """Without rights: as another user where this one is root, then no capability and none to be had.

    Args: uid: a number that no account has; None: stay who we are.  interpreter: its folder. Where it lies in
        a home that only root may enter, the right to read (and no other) is kept, or nothing could be imported.
    """
    for capability in range(64):
        if LIBC.prctl(DROP_BOUND, *_longs(capability, 0, 0, 0)):
            break  # the last one there is, or no right to give any up
    kept = 0
    if uid is not None:
        _prctl(KEEP_CAPS, 1)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        kept = 0 if os.access(interpreter, os.R_OK | os.X_OK) else 1 << READ_ANYTHING
    _capabilities(kept)
    _prctl(NO_NEW_RIGHTS, 1)
    _prctl(DEATH_SIGNAL, signal.SIGKILL)  # a change of user resets it


def own_namespaces() -> None:
    """Processes, network, mounts, names, users of its own: what is started now sees nothing of ours."""
    uid, gid = os.geteuid(), os.getegid()
    flags = NEW_ANY & ~NEW_USER if uid == 0 else NEW_ANY
    _granted("namespaces (unshare)", LIBC.unshare, flags)
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):  # fmt: skip
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def own_files(root: str, interpreter: str, size_mb: int) -> None:
    """A file system that can be read and not written, but for /tmp, which is memory and vanishes.

    Args: root: an empty folder.  interpreter: its folder, shown where it is.  size_mb: of /tmp.
    """
    _mount(None, "/", None, RECURSIVE | PRIVATE)
    _mount("tmpfs", root, "tmpfs", NO_SUID | NO_DEVICES, "mode=755,size=1m")
    for name in ("dev", "proc", "tmp"):
        os.mkdir(f"{root}/{name}")
    _mount("tmpfs", f"{root}/tmp", "tmpfs", NO_SUID | NO_DEVICES, f"mode=1777,size={size_mb}m")
    for path in (*SHOWN, interpreter):
        inside = root + path
        if os.path.islink(path) and path != interpreter:
            os.symlink(os.readlink(path), inside)
        elif os.path.isdir(path) and not os.path.exists(inside):
            os.makedirs(inside)
            _mount(path, inside, None, BIND | RECURSIVE)
    for name in DEVICES:
        with open(f"{root}/dev/{name}", "w"):
            pass
    _attributes(root, AT_RECURSIVE, given=READ_ONLY | NO_SUID | NO_DEVICES)
    _attributes(f"{root}/tmp", 0, taken=READ_ONLY)
    for name in DEVICES:
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, BIND)
    os.chdir(root)
    number = PIVOT_ROOT[_machine()[1]]
    _granted("a root of its own (pivot_root)", LIBC.syscall, *_longs(number), b".", b".")
    _granted("a root of its own (umount2)", LIBC.umount2, b".", DETACH)
    os.chdir("/tmp")


def filter_calls(spared: Sequence[int]) -> None:
    """Deny the calls above, and new namespaces, to this process and what it starts.

    Args: spared: processes, or minus their groups, that kill can not be called for; -1 (everybody) is among them.
    """
    architecture, column = _machine()
    load, equal, above, bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, denied, unknown = 0x7FFF0000, 0x80000000, 0x50001, 0x50026
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    if column == 0:  # the numbers of x32 are other names for the same calls
        program += [(above, 0, 1, 0x40000000), (answer, 0, 0, denied)]
    program += [(equal, 0, 2 + 2 * len(spared), KILL[column]), (load, 0, 0, 16)]
    for pid in spared:
        program += [(equal, 0, 1, pid & 0xFFFFFFFF), (answer, 0, 0, denied)]
    program += [(answer, 0, 0, allow)]
    for numbers in DENIED:
        program += [(equal, 0, 1, numbers[column]), (answer, 0, 0, denied)]
    # the arguments of clone3 can not be read by a filter; without it clone is used
    program += [(equal, 0, 1, CLONE3), (answer, 0, 0, unknown), (equal, 0, 3, CLONE[column])]
    program += [(load, 0, 0, 16), (bits, 0, 1, NEW_ANY), (answer, 0, 0, denied), (answer, 0, 0, allow)]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in program))
    whole = struct.pack("@HP", len(program), ctypes.addressof(code))
    _granted("a filter of system calls (seccomp)", LIBC.prctl, SECCOMP, *_longs(2), whole)


def _capabilities(mask: int) -> None:
    header = struct.pack("=Ii", 0x20080522, 0)
    _granted("giving up rights (capset)", LIBC.capset, header, struct.pack("=6I", mask, mask, 0, 0, 0, 0))  # fmt: skip


def _machine() -> tuple[int, int]:
    machine = os.uname().machine
    if machine not in MACHINES:
        raise Refused(f"a filter of system calls for {machine}")
    return MACHINES[machine]


def _threads_of(uid: int) -> int:
    """Threads that a user runs: the limit of processes counts them all."""
    count = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # it has ended meanwhile
            pass
    return count


def _attributes(target: str, depth: int, *, given: int = 0, taken: int = 0) -> None:
    wanted = struct.pack("=4Q", given, taken, 0, 0)
    _granted(
        "a file system without writing (mount_setattr, Linux 5.12)", LIBC.syscall, *_longs(MOUNT_SETATTR, AT_HERE),
        target.encode(), ctypes.c_long(depth), wanted, ctypes.c_long(len(wanted)),
    )  # fmt: skip


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    texts = [None if x is None else x.encode() for x in (source, target, kind)]
    _granted(f"mounting {target}", LIBC.mount, *texts, ctypes.c_ulong(flags), data.encode())


def _prctl(option: int, value: int) -> None:
    _granted(f"prctl({option})", LIBC.prctl, option, *_longs(value, 0, 0, 0))


def _longs(*numbers: int) -> list[ctypes.c_long]:
    return [ctypes.c_long(x) for x in numbers]


def _granted(what: str, call: Callable[..., int], *arguments: Any) -> None:
    if call(*arguments):
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
