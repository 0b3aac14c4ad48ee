"""The inside of the sandbox: a script that locks its own process up, and then runs a program. See `sandbox`.

It stands alone: `python -S jail.py SECONDS MEMORY OUTPUT FOLDER...` reads from its standard input a token on a line,
and the program behind it. The token is written when the program has come to its end. Standard library only.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import types

READING, WRITING = "open 2 -, openat 257 56", 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
ALLOWED = """
read 0 63, write 1 64, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -, lseek 8 62, mmap 9 222, mprotect 10 226,
munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, pread64 17 67, readv 19 65,
writev 20 66, access 21 -, pipe 22 -, select 23 -, sched_yield 24 124, mremap 25 216, madvise 28 233, nanosleep 35 101,
getitimer 36 102, alarm 37 -, setitimer 38 103, getpid 39 172, exit 60 93, uname 63 160, getcwd 79 17,
readlink 89 -, gettimeofday 96 169, getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174, getgid 104 176,
geteuid 107 175, getegid 108 177, getppid 110 173, sigaltstack 131 132, gettid 186 178, time 201 -, futex 202 98,
sched_getaffinity 204 123, getdents64 217 61, set_tid_address 218 96, restart_syscall 219 128, clock_gettime 228 113,
clock_getres 229 114, clock_nanosleep 230 115, exit_group 231 94, newfstatat 262 79, readlinkat 267 78,
faccessat 269 48, pselect6 270 72, ppoll 271 73, set_robust_list 273 99, getcpu 309 168, getrandom 318 278,
statx 332 291, pipe2 293 59, rseq 334 293, faccessat2 439 439
"""
DEADLY = """
socket 41 198, connect 42 203, accept 43 202, sendto 44 206, sendmsg 46 211, bind 49 200, listen 50 201, fork 57 -,
vfork 58 -, socketpair 53 199, execve 59 221, kill 62 129, truncate 76 45, rename 82 -, mkdir 83 -, rmdir 84 -,
creat 85 -, link 86 -, unlink 87 -, symlink 88 -, chmod 90 -, fchmod 91 52, chown 92 -, fchown 93 55, lchown 94 -,
ptrace 101 117, rt_sigqueueinfo 129 138, mknod 133 -, mount 165 40, tkill 200 130, tgkill 234 131, mkdirat 258 34,
mknodat 259 33, fchownat 260 54, unlinkat 263 35, renameat 264 38, linkat 265 37, symlinkat 266 36, fchmodat 268 53,
unshare 272 97, accept4 288 242, rt_tgsigqueueinfo 297 240, process_vm_readv 310 270, process_vm_writev 311 271,
renameat2 316 276, memfd_create 319 279, execveat 322 281, pidfd_send_signal 424 424, io_uring_setup 425 425,
pidfd_open 434 434, openat2 437 437
"""
"""System calls with their numbers on x86-64 and on 64-bit ARM. All others are answered as if the kernel had none of
them: libraries then do without, as they do without clone3, whose flags a filter cannot see."""
CLONE, CLONE_THREAD = "clone 56 220", 0x10000
ONLY = {"ioctl 16 29": (0x5401, 0x5451), "fcntl 72 25": (0, 1, 2, 3)}
"""Calls that are allowed with these second arguments alone: TCGETS, FIOCLEX; F_DUPFD, F_GETFD, F_SETFD, F_GETFL."""
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""For each machine, the column of its numbers, and what the kernel calls it."""

KILL, ALLOW, NO_SUCH_CALL = 0x80000000, 0x7FFF0000, 0x00050000 | 38
LOAD, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of the kernel's packet filter."""
PDEATHSIG, SECCOMP, NO_NEW_PRIVS = 1, 22, 38


def numbers(calls: str, column: int) -> list[int]:
    """The numbers of system calls on a machine."""
    found = [call.split()[1 + column] for call in calls.split(",")]
    return [int(number) for number in found if number != "-"]


def instructions(column: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """The filter: (code, jump if true, jump if false, value). Offsets are those of the kernel's seccomp_data."""

    def argument(number: int) -> int:
        return 16 + 8 * number

    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)]
    program += [(LOAD, 0, 0, 0), (ABOVE, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]  # x86-64's calls with short pointers
    for calls, verdict in ((ALLOWED, ALLOW), (DEADLY, KILL)):
        for number in numbers(calls, column):
            program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, verdict)]
    for number, place in zip(numbers(READING, column), (1, 2) if column == 0 else (2,), strict=True):
        program += [(EQUAL, 0, 4, number), (LOAD, 0, 0, argument(place)), (ANY_BIT, 0, 1, WRITING)]
        program += [(RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)]
    for number in numbers(CLONE, column):
        program += [(EQUAL, 0, 4, number), (LOAD, 0, 0, argument(0)), (ANY_BIT, 0, 1, CLONE_THREAD)]
        program += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL)]
    for calls, values in ONLY.items():
        for number in numbers(calls, column):
            program += [(EQUAL, 0, 2 + 2 * len(values), number), (LOAD, 0, 0, argument(1))]
            program += [each for value in values for each in ((EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))]
            program += [(RETURN, 0, 0, NO_SUCH_CALL)]
    return [*program, (RETURN, 0, 0, NO_SUCH_CALL)]


def lock_up(seconds: int, memory: int, output: int) -> None:
    """Limits this process and filters its system calls, for good. OSError or KeyError where that cannot be."""
    column, architecture = ARCHITECTURES[platform.machine()]
    code = b"".join(struct.pack("HBBI", *each) for each in instructions(column, architecture))
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for limit, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    for what, value, more in (
        (PDEATHSIG, int(signal.SIGKILL), 0),
        (NO_NEW_PRIVS, 1, 0),
        (SECCOMP, 2, ctypes.addressof(program)),
    ):
        if prctl(what, ctypes.c_ulong(value), ctypes.c_ulong(more), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({what}) failed")


def main() -> None:
    """Reads, locks up, runs, and writes the token."""
    write, leave = os.write, os._exit  # the program may change the module's
    seconds, memory, output = map(int, sys.argv[1:4])
    sys.path[:1] = []  # this script's own folder
    sys.path += sys.argv[4:]
    sys.argv[:] = ["program"]
    token, _, text = sys.stdin.buffer.read().partition(b"\n")
    lock_up(seconds, memory, output)
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(text.decode(), "program", "exec"), module.__dict__)
    except BaseException as error:
        sys.stdout.flush()
        write(1, f"\n{type(error).__name__}: {error}"[:500].removesuffix(": ").encode(errors="replace"))
        leave(1)
    sys.stdout.flush()
    write(1, b"\n" + token)
    leave(0)


if __name__ == "__main__":
    main()
