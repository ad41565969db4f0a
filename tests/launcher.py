"""Start Python programs in processes of their own that have torch and open_clip at hand.

An interpreter takes ten seconds of a processor to import them. Here one does, and every program
runs in a fork of it, in which nothing has run yet: with arguments, environment, folder, output,
session and end of its own, to be killed like any other.
"""

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = {"OMP_NUM_THREADS": "1"}
"""torch asks for this when it is imported; torchrun sets it, too."""


class Launcher:
    """The process that is forked; it ends with its owner."""

    def __init__(self):
        self._server = subprocess.Popen(
            [sys.executable, "-P", __file__], text=True, env={**os.environ, **THREADS},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, **question):
        """Return the answer of the server: a process number, or how a process ended."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(question), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def start(self, *arguments, session=False, **environment):
        """Start ``python ARGUMENTS``, which begin with ``-m MODULE``, ``-c CODE`` or a script."""
        return Program(self, list(map(str, arguments)), session, environment)

    def run(self, *arguments, timeout=200, **environment):
        """Run ``python ARGUMENTS`` to its end; return what ``subprocess.run`` returns."""
        with self.start(*arguments, **environment) as program:
            return program.finish(timeout)

    def run_together(self, count, *arguments, timeout=240):
        """Run ``python ARGUMENTS`` in processes that know of each other as torchrun's do."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with contextlib.ExitStack() as stack:
            programs = [
                stack.enter_context(self.start(
                    *arguments, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count),
                    LOCAL_WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                    TORCHELASTIC_RUN_ID="none",
                ))
                for rank in range(count)
            ]  # fmt: skip
            return [program.finish(timeout) for program in programs]

    def stop(self):
        """End the server."""
        self._server.communicate()


class Program:
    """A process that was started, as ``subprocess.Popen`` has it; it is killed on the way out."""

    def __init__(self, launcher, arguments, session, environment):
        self._launcher, self._arguments = launcher, arguments
        self._folder = tempfile.TemporaryDirectory()
        self._told = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        for path in self._told:
            path.touch()
        self.returncode = None
        self.pid = launcher.ask(
            start=arguments, session=session, folder=os.getcwd(), told=list(map(str, self._told)),
            environment={**os.environ, **THREADS, **environment},
        )  # fmt: skip

    def poll(self):
        """Return how it ended, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._launcher.ask(poll=self.pid)
        return self.returncode

    def finish(self, timeout):
        """Wait for it; return its code and what it wrote."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(self._arguments, timeout)
            time.sleep(0.01)
        out, err = (path.read_text() for path in self._told)
        return subprocess.CompletedProcess(self._arguments, self.returncode, out, err)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.poll() is None:
            os.kill(self.pid, 9)
            while self.poll() is None:
                time.sleep(0.01)
        self._folder.cleanup()


def serve():
    """Answer until the owner is gone, in the server; return what to start, in a fork of it."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            ready, begun = os.pipe()
            answer = os.fork()
            if answer == 0:
                if asked["session"]:
                    os.setsid()
                os.close(begun)
                os.close(ready)
                return asked
            os.close(begun)
            os.read(ready, 1)  # until it has a session of its own
            os.close(ready)
        else:
            pid, status = os.waitpid(asked["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)
    sys.exit()


def become(asked):
    """Run what was asked for as the interpreter would."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, path in enumerate(asked["told"], 1):
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    how, *rest = asked["start"]
    if how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = asked["start"]
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    import torch  # noqa: F401

    sys.modules["wandb"] = None  # as ``train`` does
    import open_clip_train.main  # noqa: F401

    del sys.modules["wandb"]
    become(serve())
