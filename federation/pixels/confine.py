"""What a process of the pool gives up before it reads foreign bytes. Linux.

It dies with its parent, holds no more memory than it may, leaves no core dump (patient data), runs behind all else, and
the kernel refuses it what decoding never needs: sockets, other programs, other processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SECCOMP_MODE_FILTER = 2
_ALLOW, _REFUSE, _EPERM = 0x7FFF_0000, 0x0005_0000, 1
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
#: Audit architecture, then system calls: socket, execve, execveat, ptrace, process_vm_readv, process_vm_writev, kill,
#: and, with one number everywhere, pidfd_send_signal, io_uring_setup, pidfd_getfd.
_SYSTEM_CALLS = {
    "x86_64": (0xC000_003E, (41, 59, 322, 101, 310, 311, 62, 424, 425, 438)),
    "aarch64": (0xC000_00B7, (198, 221, 281, 117, 270, 271, 129, 424, 425, 438)),
}
_X32 = 0x4000_0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(*, parent: int, memory_bytes: int, file_bytes: int, niceness: int) -> bool:
    """→ whether the kernel keeps the system calls from us. Exits if the parent is gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    # A terminal's Ctrl-C or a service manager's stop goes to all processes: the parent decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(niceness)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, most = resource.getrlimit(kind)
        least = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (least, least))
    return _filter_system_calls(libc)


def _filter_system_calls(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _SYSTEM_CALLS:
        return False
    architecture, refused = _SYSTEM_CALLS[platform.machine()]
    count = len(refused)

    def step(code: int, then: int, otherwise: int, value: int) -> bytes:
        return struct.pack("HBBI", code, then, otherwise, value)

    program = b"".join(
        [
            step(_LOAD, 0, 0, 4),  # seccomp_data.arch
            step(_EQUAL, 0, count + 3, architecture),
            step(_LOAD, 0, 0, 0),  # seccomp_data.nr
            step(_AT_LEAST, count + 1, 0, _X32),
            *(step(_EQUAL, count - n, 0, number) for n, number in enumerate(refused)),
            step(_RETURN, 0, 0, _ALLOW),
            step(_RETURN, 0, 0, _REFUSE | _EPERM),
        ]
    )
    prog = _Program(len(program) // 8, program)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0) == 0)
