"""The processes of a benchmark: started here, measured from outside, ended here, and no others touched."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

END_TIMEOUT_S = 10.0
"""A child that has not ended by itself so long after its pipe closed is killed."""

_SPAWN = multiprocessing.get_context("spawn")
"""A fresh interpreter for each: a forked one would share grpc's threads and this one's heap."""


class ChildError(Exception):
    """A child ended, or was silent, where it had something to say."""


class Child:
    """One process, running `target(pipe, *arguments)` from `with` to its end; it ends when its pipe closes."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self._name = target.__name__
        self._pipe, self._their_pipe = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=target, args=(self._their_pipe, *arguments), name=self._name, daemon=True)

    def __repr__(self) -> str:
        return f"Child({self._name}, pid {self._process.pid})"

    def __enter__(self) -> Self:
        self._process.start()
        self._their_pipe.close()
        self.cpu_clock_id = _cpu_clock_id(self._process.pid)
        """The clock of `cpu_s`, for other processes that want to read it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(END_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None, "it has started"
        return self._process.pid

    def cpu_s(self) -> float:
        """User and system time of all its threads so far, those that have ended included; to the nanosecond, where
        /proc/PID/stat counts in hundredths of a second."""
        return time.clock_gettime(self.cpu_clock_id)

    def send(self, message: object) -> None:
        """Hands it something."""
        self._pipe.send(message)

    def receive(self, timeout_s: float) -> Any:
        """What it says next.

        Raises:
            ChildError: it ended, or said nothing in time.
        """
        if not self._pipe.poll(timeout_s):
            raise ChildError(f"{self!r} was silent for {timeout_s:g} s")
        try:
            return self._pipe.recv()
        except EOFError:
            raise ChildError(f"{self!r} ended early") from None


def _cpu_clock_id(pid: int | None) -> int:
    """The clock that counts a process's CPU time (POSIX clock_getcpuclockid, which Python does not offer)."""
    assert pid is not None, "the process has started"
    clock_id = ctypes.c_int()
    failure = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock_id))
    if failure:
        raise OSError(failure, os.strerror(failure))
    return clock_id.value


async def until_closed(pipe: Connection) -> None:
    """Within a child: until the parent has closed the pipe, or is no more."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), closed.set)
    try:
        await closed.wait()
    finally:
        loop.remove_reader(pipe.fileno())
