"""How commands end that are stopped, whose reader is gone, or whose folder is in use; as processes of their own."""

import dataclasses
import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.common import main
from mdm_jax.endings import NO_READER
from mdm_jax.training.lock import locked

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Does:
    """Does what it is told, in a folder that it locks."""

    what: str = "wait"
    file: pathlib.Path = pathlib.Path("given")
    out: pathlib.Path = pathlib.Path("out")
    seed: int = 0


def do(flags):
    with locked(flags.out):
        does(flags)


def does(flags):
    if flags.what == "wait":
        print("begun", flush=True)
        for _ in range(1000):  # a signal just before one long sleep would be heard after it only
            time.sleep(0.1)
    elif flags.what == "print":
        for number in range(100_000):
            print(number)
    elif flags.what == "read":
        (flags.file / "x").read_text() if flags.file.is_dir() else flags.file.read_text()
    elif flags.what == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/a/file/of/ours")
    else:
        pathlib.Path(flags.what).read_text()


COMMANDS = {"do": (Does, f"{__name__}:do"), "other": (dataclasses.dataclass(type("Other", (), {})), "x:y")}


def start(folder, *argv):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_COMPILATION_CACHE_DIR": ""}
    program = "import sys, test_endings as t; t.main('x', '', t.COMMANDS, ['do', *sys.argv[1:]])"
    return subprocess.Popen(
        [sys.executable, "-c", program, *argv],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_a_command_in_one_line_and_its_folder_is_free_again(tmp_path):
    for _ in range(2):
        process = start(tmp_path)
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (130, "stopped by Ctrl-C; the same command starts again\n")


@pytest.mark.slow
def test_second_command_in_one_folder_is_told_who_holds_it_until_that_one_is_killed(tmp_path):
    first = start(tmp_path)
    assert first.stdout.readline() == "begun\n"
    second = start(tmp_path, "--what", "print")
    printed, said = second.communicate(timeout=30)
    assert (second.returncode, printed) == (2, "")
    assert re.fullmatch(rf"error: out is in use by process {first.pid} on \S+, since \d{{4}}-.*\n", said)
    first.kill()
    first.communicate()
    third = start(tmp_path, "--what", "print")
    assert third.stdout.readline() == "0\n"
    third.communicate()
    assert third.returncode == 0


@pytest.mark.thinned(2)
@pytest.mark.parametrize("argv", [("--what", "print"), ("--help",)])
def test_reader_that_is_gone_ends_a_command_without_a_word(tmp_path, argv):
    process = start(tmp_path, *argv)
    process.stdout.close()  # as head does, at some time
    process.stdout = None
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (NO_READER, "")


@pytest.mark.parametrize("argv", [("--version",), ("do", "--version")])
def test_version_is_printed_without_importing_jax(argv):
    code = (
        "import sys, experiments.common as c\n"
        f"c.main('x', '', {{}}, {list(argv)})\n"
        "assert not {'jax', 'tyro'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert re.fullmatch(r"mdm_jax \d+\.\d+\.\d+, jax \d+(\.\d+)+\n", done.stdout)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--what", "read"], 2, "No such file or directory: 'given'"),
        (["--what", "read", "--file", "deep/given"], 2, "deep/given"),
        (["--what", "a-file/x", "--file", "a-file"], 2, "Not a directory: 'a-file/x'"),
        (["--what", "full"], 1, "No space left on device"),
    ],
)
def test_file_that_a_flag_names_and_a_full_disk_are_one_line(argv, code, words, capsys):
    pathlib.Path("a-file").touch()
    with pytest.raises(SystemExit) as stop:
        main("x", "", COMMANDS, ["do", *argv])
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("argv", [["--what", "a/file/of/ours"], ["--what", "read", "--file", "."]])
def test_file_that_no_flag_names_is_a_defect_and_keeps_its_traceback(argv):
    with pytest.raises(FileNotFoundError):
        main("x", "", COMMANDS, ["do", *argv])


THREADS = """
import asyncio, sys, threading
from experiments import endings
said = []
threading.excepthook = lambda failure: said.append("thread")
sys.unraisablehook = lambda failure: said.append("rest")
endings.silence_writers()

def fail():
    raise ValueError

async def fails():
    fail()

orbax = {"__name__": "orbax.checkpoint.writer", "fail": fail}
exec("def work(): fail()", orbax)
loop = {"__name__": "asyncio.base_events"}
exec("def work(): raise RuntimeError('Event loop is closed')", loop)

class Unlucky:
    def __init__(self, work):
        self.work = work
    def __del__(self):
        self.work()

for work in (orbax["work"], loop["work"], fail, lambda: asyncio.run(fails())):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    said.append("|")
    if work is not loop["work"]:
        Unlucky(work)
    said.append("|")
print(*said)
"""


def test_threads_of_orbax_are_silent_and_those_of_the_user_are_heard():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["|", "|", "|", "|", "thread", "|", "rest", "|", "thread", "|", "rest", "|"]
