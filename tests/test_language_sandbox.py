"""The sandbox contains what programs must not do, and a contained program has failed."""

import os
import pathlib
import subprocess
import sys
import threading

import pytest

from mdm_jax.errors import InputError
from mdm_jax.tasks.language import jail, sandbox
from mdm_jax.tasks.language.sandbox import Limits, Verdict, check_sandbox, run_program

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in jail.ARCHITECTURES, reason="the sandbox is Linux's"
)
QUICK, PATIENT = Limits(seconds=1), Limits(seconds=30, patience=60.0)

HARMLESS = """
import collections, dataclasses, datetime, functools, hashlib, itertools, json, math, random, re, string, threading
import time, numpy

@dataclasses.dataclass
class Point:
    x: int

found = []
threads = [threading.Thread(target=found.append, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(found) == list(range(4))
assert numpy.ones((3, 3)).sum() == 9
assert hashlib.md5(b"x").hexdigest() and random.random() < 1 and datetime.datetime.now() and time.time()
assert open(math.__spec__.origin if math.__spec__.has_location else hashlib.__file__, "rb").read(4)
assert Point(1) == Point(1) and __name__ != "__main__"
print("é", "x" * 10_000)
time.sleep(0.01)
"""


def test_program_with_threads_numpy_and_files_to_read_passes():
    assert run_program(HARMLESS) == Verdict(True, "passed")


def test_order_of_a_set_of_texts_is_the_same_in_every_run():
    program = "raise ValueError(list({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    assert run_program(program) == run_program(program)


MANY = " = ".join(f"x{i}" for i in range(1000))  # variables, of which a call takes the memory at once

# Each would go on to its end, with success, if it were let.
CONTAINED = {
    "fork-bomb": ("import os\nwhile True:\n    os.fork()", "forbidden"),
    "fork-caught": ("import os\ntry:\n    os.fork()\nexcept OSError:\n    pass", "forbidden"),
    "thread-bomb": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "RuntimeError: can't start new thread",
    ),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])", "forbidden"),
    "spawn": ("import os\nos.posix_spawn('/bin/true', ['true'], {})", "forbidden"),
    "shell": ("import os\nos.system('true')", "forbidden"),
    "exec": ("import os\nos.execv('/bin/true', ['true'])", "forbidden"),
    "pool": ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "forbidden"),
    "endless-loop": ("while True:\n    pass", "out of time"),
    "loop-that-ignores-signals": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass",
        "out of time",
    ),
    "input": ("input()", "EOFError: EOF when reading a line"),
    "socket": ("import socket\ntry:\n    socket.socket()\nexcept OSError:\n    pass", "forbidden"),
    "connection": ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')", "forbidden"),
    "kill-parent": ("import os\nos.kill(os.getppid(), 9)", "forbidden"),
    "kill-everything": ("import os\nos.kill(-1, 9)", "forbidden"),
    "signal-by-file": (
        "import fcntl, os\nfcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "OSError: [Errno 38] Function not implemented",
    ),
    "output": ("import sys\nwhile True:\n    sys.stdout.write('x' * 4096)", "too much output"),
    "output-caught": (
        "import os\ntry:\n    while True:\n        os.write(1, b'x' * 4096)\nexcept OSError:\n    pass",
        "too much output",
    ),
    "memory": ("x = bytearray(1 << 31)", "MemoryError"),
    "memory-bit-by-bit": ("x = []\nwhile True:\n    x.append(bytearray(1 << 24))", "MemoryError"),
    "recursion": (f"import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    return f() + 1\n    {MANY} = 0\nf()", None),
    "deep-expression": ("eval('(' * 100_000 + ')' * 100_000)", None),
    "crash": ("import ctypes\nctypes.string_at(0)", "ended by signal 11"),
    "abort": ("import os\nos.abort()", "forbidden"),
    "exit": ("import os\nos._exit(0)", "left with code 0"),
    "exit-gently": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "exit-and-say-so": ("import os\nprint('passed')\nos.write(1, b'0' * 32)\nos._exit(0)", "left with code 0"),
    "wrong": ("assert 1 + 1 == 3", "AssertionError"),
    "no-program": ("def f(:", None),
    "rights": ("import os\nos.setuid(0)", None),
    "limits-raised": ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))", None),
    "filter-changed": (
        "import ctypes\nif ctypes.CDLL(None).prctl(22, 2, 0, 0, 0): raise OSError",
        "OSError",
    ),
    "pair": ("import asyncio\nasyncio.run(asyncio.sleep(0))", "forbidden"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINED)
def test_harmful_program_is_contained_and_has_failed(name):
    program, why = CONTAINED[name]
    verdict = run_program(program, QUICK if why == "out of time" else PATIENT)
    assert not verdict.passed
    assert why in (verdict.why, None)


def test_program_that_waits_is_stopped_by_the_clock():
    program = "import time\ntime.sleep(1000)"
    assert run_program(program, Limits(patience=1.0)) == Verdict(False, "out of time")


WRITES = {
    "write": "open(path, 'w').write('x')",
    "append": "open(path, 'a').write('x')",
    "exclusive": "open(path + '.new', 'x')",
    "update": "open(path, 'r+').write('x')",
    "caught": "try:\n    open(path, 'w')\nexcept OSError:\n    pass",
    "create": "os.open(path + '.new', os.O_RDONLY | os.O_CREAT)",
    "truncate": "os.truncate(path, 0)",
    "truncate-by-reading": "os.open(path, os.O_RDONLY | os.O_TRUNC)",
    "unlink": "os.unlink(path)",
    "rename": "os.rename(path, path + '.new')",
    "mkdir": "os.mkdir(path + '.new')",
    "rmdir": "os.rmdir(os.path.dirname(path))",
    "rmtree": "shutil.rmtree(os.path.dirname(path))",
    "symlink": "os.symlink(path, path + '.new')",
    "link": "os.link(path, path + '.new')",
    "mkfifo": "os.mkfifo(path + '.new')",
    "chmod": "os.chmod(path, 0)",
    "times": "os.utime(path, (0, 0))",
    "attribute": "os.setxattr(path, 'user.x', b'x')",
    "temporary": "tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False)",
    "no-name": "os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR)",
    "folder": "os.chdir(os.path.dirname(path))",
    "mapped": "mmap.mmap(os.open(path, os.O_RDONLY), 1)[0:1] = b'y'",
    "raw-openat2": "ctypes.CDLL(None).syscall(437, -100, path.encode(), (ctypes.c_uint64 * 3)(0o1002), 24)",
    "raw-io-uring": "ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120))",
}


@pytest.mark.parametrize("name", WRITES)
def test_no_file_is_written_made_changed_or_deleted(tmp_path, name):
    path = tmp_path / "file"
    path.write_text("precious")
    before = path.stat()
    program = f"import ctypes, mmap, os, shutil, tempfile\npath = {str(path)!r}\n{WRITES[name]}"
    verdict = run_program(program, QUICK)
    assert not verdict.passed, verdict
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "precious"
    assert (path.stat().st_mode, path.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_program_sees_no_environment_and_its_own_folder_alone(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    assert run_program(
        "import os, sys\nassert 'SECRET' not in os.environ and '' not in sys.path and len(sys.argv) == 1"
    ).passed


def test_program_dies_with_the_process_that_started_it(tmp_path):
    started = tmp_path / "pid"
    parent = (
        "import threading, time, pathlib, os\n"
        "from mdm_jax.tasks.language.sandbox import run_program\n"
        "threading.Thread(target=run_program, args=('import time; time.sleep(60)',), daemon=True).start()\n"
        "children = pathlib.Path('/proc/self/task')\n"
        "def found():\n"
        "    return [c for task in children.iterdir() for c in (task / 'children').read_text().split()]\n"
        "while not found(): time.sleep(0.01)\n"
        "time.sleep(1.0)\n"
        f"pathlib.Path({str(started)!r}).write_text(found()[0])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", parent], check=False, timeout=60)
    pid = started.read_text()
    for _ in range(100):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except OSError:
            return
        if state == "Z":  # dead, and nobody asks
            return
        threading.Event().wait(0.05)
    raise AssertionError("it lives on")


def test_where_programs_cannot_be_contained_none_is_run(monkeypatch):
    check_sandbox()
    check_sandbox.cache_clear()
    monkeypatch.setattr(sandbox, "ENVIRONMENT", {"LD_PRELOAD": "/no/such/library"} | sandbox.ENVIRONMENT)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(InputError, match="so none is run: the sandbox needs seccomp filters"):
        check_sandbox()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="not darwin on"):
        check_sandbox()
