# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The same work on many inputs: in this process, on local processes, or on a Dask cluster.

What is done to one input is a function of a module with one argument, which travels to the worker; so does what it
returns. Models stay in the worker (`kept`). Where there is one worker and no scheduler nothing of Dask is imported.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from hri_emo_ros import __version__
from hri_emo_ros.errors import HriEmoError

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

_CONNECT = 10.0
"""Seconds that a scheduler may take to answer, and its first worker to be there."""
_one_at_a_time = threading.Lock()
"""A cluster's worker may have several threads; a recogniser and a model serve one."""
_kept: tuple[Callable[..., Any], Any, Any] | None = None


def kept(make: Callable[[I], R], of: I) -> R:
    """`make(of)`, made once in this process as long as nothing else is asked for."""
    global _kept
    if _kept is None or _kept[0] is not make or _kept[1] != of:
        _kept = None  # Before the next one is loaded: memory holds one.
        _kept = (make, of, make(of))
    found: R = _kept[2]
    return found


class Fleet:
    """Workers that stay until the end of the ``with``.

    A worker that is lost (killed, out of memory, its machine gone) has its part done again by another; a part that
    ends three workers more is given up.

    Args:
        workers: local processes with a thread each; 1 works in this process, 0 takes as many as there are cores.
        scheduler: ``tcp://HOST:PORT`` of a Dask cluster instead. Its workers need this version of the package and
            the same paths.

    Raises:
        HriEmoError: `workers` is negative.
    """

    def __init__(self, workers: int = 1, scheduler: str = "") -> None:
        if workers < 0:
            raise HriEmoError(f"--workers is {workers}, must be at least 1, or 0 for all cores")
        self.workers = workers or os.cpu_count() or 1
        self.scheduler = scheduler
        self._client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()
        self._client = self._cluster = None

    def map(
        self, do: Callable[[I], R], items: Sequence[I],
        done: Callable[[int, R | HriEmoError], None] = lambda number, result: None,
    ) -> list[R | HriEmoError]:  # fmt: skip
        """`do` of every item, in the order of the items.

        Args:
            do: may raise HriEmoError, which is then that item's result: the others go on.
            done: called with the number and the result of each as soon as it is there, in any order.

        Raises:
            HriEmoError: no cluster, or it is lost.
            Exception: what else `do` raises.
        """
        results: dict[int, R | HriEmoError] = {}
        alone = not self.scheduler and min(self.workers, len(items)) < 2
        found = _here(do, items) if alone else self._there(do, items)
        for number, result in found:
            results[number] = result
            done(number, result)
        return [results[number] for number in range(len(items))]

    def _there(
        self, do: Callable[[I], R], items: Sequence[I]
    ) -> Iterator[tuple[int, R | HriEmoError]]:
        from distributed import KilledWorker, as_completed
        from distributed.client import FutureCancelledError

        client = self._client or self._open()
        waiting = iter(enumerate(items))
        at_work: dict[str, int] = {}
        """Numbers of the items by their futures' keys."""
        futures = as_completed()

        def hand_out() -> None:
            # One for each thread: what is queued in a worker behind the part that kills it is blamed for that too.
            room = max(1, sum(client.nthreads().values())) - len(at_work)
            for number, item in islice(waiting, max(0, room)):
                future = client.submit(_attempt, do, item, pure=False)
                at_work[future.key] = number
                futures.add(future)

        hand_out()
        for future in futures:
            number = at_work.pop(future.key)
            try:
                yield number, future.result()
            except KilledWorker as error:
                died = error.allowed_failures + 1
                yield number, HriEmoError(f"{died} workers died of it: is there too little memory?")
            except (FutureCancelledError, OSError) as error:
                raise HriEmoError(f"the Dask scheduler is gone: {error}") from error
            hand_out()

    def _open(self) -> Any:
        from distributed import Client, LocalCluster

        try:
            if self.scheduler:
                self._client = Client(self.scheduler, timeout=_CONNECT)
                self._client.wait_for_workers(1, timeout=_CONNECT)
            else:
                from distributed.security import Security

                self._cluster = LocalCluster(
                    n_workers=self.workers,
                    threads_per_worker=1,
                    memory_limit=0,  # The system's own limit counts.
                    dashboard_address=None,
                    silence_logs=50,
                    # Whoever reaches a scheduler runs code as its user, and others may use this computer.
                    security=Security.temporary(),
                )
                self._client = Client(self._cluster)
        except (OSError, TimeoutError, ValueError) as error:
            raise HriEmoError(
                f"no worker answers at --scheduler '{self.scheduler}' within {_CONNECT:g} s: {error}"
            ) from error
        others = set(self._client.run(_version).values()) - {__version__}
        if others:
            raise HriEmoError(
                f"a worker at '{self.scheduler}' has hri_emo_ros {others.pop()}, this is {__version__}: "
                "install the same on all machines"
            )
        return self._client


def add_fleet_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """``--workers`` and ``--scheduler`` of a command that takes many inputs."""
    group = parser.add_argument_group("many inputs")
    group.add_argument(
        "--workers", type=int, default=0, metavar="N",
        help=f"processes that share {what}; 1 stays in this one (default: one for each core)",
    )  # fmt: skip
    group.add_argument(
        "--scheduler", default="", metavar="tcp://HOST:PORT",
        help="Dask cluster to work on instead; its workers need this package and the same paths",
    )  # fmt: skip


def _version() -> str:
    return __version__


def _here(do: Callable[[I], R], items: Sequence[I]) -> Iterator[tuple[int, R | HriEmoError]]:
    for number, item in enumerate(items):
        yield number, _attempt(do, item)


def _attempt(do: Callable[[I], R], item: I) -> R | HriEmoError:
    try:
        with _one_at_a_time:
            return do(item)
    except HriEmoError as error:
        return error
