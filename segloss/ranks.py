"""Several processes that do one job: which of them this is, what they tell each other, and that they end together.

All talk to the first alone, over a connection each (:mod:`segloss.launchers`). The system closes it when a process
ends, however it ends, so that the others know at once and end as well.
"""

import io
import json
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Queue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from segloss.errors import InputError, told
from segloss.launchers import join

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import numpy as np

T = TypeVar("T")
HEARSAY_S = 1.0  # in which it is known here that a process has died on whose answer something waits
LAST_WORDS_S = 10.0  # in which the first process ends those that it was told an error by


class Ranks:
    """The processes of a job, as one of them sees them; without arguments the only one there is.

    Args:
        rank: 0 for the first process, which writes and speaks.
        size: how many there are.
        local_rank: the same as ``rank`` among those of this machine.
        peers: rank -> connection: of the first process to all others, of these to the first.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        peers: "Mapping[int, Connection[Any, Any]] | None" = None,
    ):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._peers = dict(peers or {})
        self._sending, self._ending = Lock(), Lock()
        self._inbox: dict[int, Queue[Any]] = {peer: Queue() for peer in self._peers}
        if self._peers:
            Thread(target=self._listen, daemon=True).start()

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Those that this process looks at; :meth:`whole` puts what it finds into its place."""
        return items[self.rank :: self.size]

    def gather(self, own: T) -> list[T]:
        """What all processes hold, in their order, on the first; on the others their own alone."""
        if self.rank:
            self._send(0, own)
            return [own]
        return [own, *(self._inbox[peer].get() for peer in self._peers)]

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes by itself while the others wait, on all of them."""
        if self.rank:
            made: T = self._inbox[0].get()
            return made
        with _alone():
            made = make()
        for peer in self._peers:
            self._send(peer, made)
        return made

    def whole(self, own: Sequence[T], count: int) -> list[T]:
        """What was found in the shares of ``count`` items, in their order, on the first; on the others their own."""
        parts = self._parts(own, count)
        found: list[Any] = [None] * count
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part
        return list(own) if self.rank else found

    def whole_array(self, own: "np.ndarray", count: int) -> "np.ndarray":
        """The rows that were found in the shares of ``count`` items, in their order, on all processes."""
        parts = self._parts(own, count)

        def made() -> "np.ndarray":
            import numpy as np

            found = np.empty((count, *own.shape[1:]), own.dtype)
            for rank, part in enumerate(parts):
                found[rank :: self.size] = part
            return found

        return own if self.size == 1 else self.from_first(made)

    def _parts(self, own: Any, count: int) -> list[Any]:
        """The shares of all, on the first."""
        parts = self.gather(own)
        if self.rank:
            return []
        for rank, part in enumerate(parts):
            if len(part) != len(range(rank, count, self.size)):
                what = f"process {rank} of {self.size} sees another number of files than the first"
                raise InputError(what, "give all of them the same data")
        return parts

    def stream(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of the other processes, on the first, one at a time; these yield nothing, and are to be run
        through as well."""
        if self.rank:
            for batch in batches:
                self._inbox[0].get()  # it is asked for
                self._send(0, [batch])
            self._inbox[0].get()
            self._send(0, [])
            return
        for peer in self._peers:
            while True:
                self._send(peer, "next")
                found = self._inbox[peer].get()
                if not found:
                    break
                yield found[0]

    def _send(self, peer: int, content: object) -> None:
        try:
            with self._sending:
                self._peers[peer].send_bytes(pickle.dumps(("data", content)))
        except OSError as error:
            time.sleep(LAST_WORDS_S)  # the listening thread knows too, and ends this process
            raise InputError(f"process {peer} of {self.size} can no longer be reached") from error

    def _tell(self, peer: int, kind: str, content: object = None) -> None:
        """What no answer is waited for, as far as it still arrives."""
        if not self._sending.acquire(timeout=1):
            return
        with suppress(OSError):
            self._peers[peer].send_bytes(pickle.dumps((kind, content)))
        self._sending.release()

    def _listen(self) -> None:
        from multiprocessing.connection import wait

        of = {connection: peer for peer, connection in self._peers.items()}
        while of:
            for ready in wait([*of]):
                connection: Any = ready
                peer = of[connection]
                try:
                    kind, content = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    where = "" if peer else ", the first,"
                    self._end_all(f"error: process {peer} of {self.size}{where} has ended before its work was done", 1)
                    return
                if kind == "data":
                    self._inbox[peer].put(content)
                elif kind == "done":
                    del of[connection]
                else:
                    self._end_all(*content)
                    return

    def _end_all(self, line: str | None, status: int) -> None:
        """End the others and this process, unless it is ending already; called by the thread that listens."""
        if not self._ending.acquire(blocking=False):
            return
        if line is not None and (self.rank == 0 or self.local_rank == 0 or self.rank == 1):
            print(line, file=sys.stderr, flush=True)
        if self.rank == 0:
            for peer in self._peers:
                self._tell(peer, "end", (None, status))
        os._exit(status)

    def fail(self, line: str, status: int) -> None:
        """End the others before this process ends by an error; it is the first that says ``line``.

        Returns on the first process only, or where that is gone.
        """
        if self.rank:
            self._tell(0, "end", (line, status))
            time.sleep(LAST_WORDS_S)
        elif self._ending.acquire(blocking=False):
            for peer in self._peers:
                self._tell(peer, "end", (None, status))
        else:
            time.sleep(LAST_WORDS_S)  # another process was first

    def await_end(self) -> None:
        """Before an error is told that may be the death of another process, of which the listening thread hears."""
        if self._peers:
            time.sleep(HEARSAY_S)

    def leave(self) -> None:
        """This process has done its work; the others need it no more."""
        for peer in self._peers:
            self._tell(peer, "done")


_here = Ranks()


def here() -> Ranks:
    """The processes that :func:`together` runs its command in, while they share its work."""
    return _here


def agreed(name: str, make: Callable[[], T]) -> T:
    """What the first process makes of what each may see otherwise (memory, cores), on all: values as JSON has them.

    The processes of a launcher all call ``make``, which may share its work. Those that Lightning starts in the midst of
    the first run the command anew, and find it in the variable ``SEGLOSS_NAME``.
    """
    variable = f"SEGLOSS_{name}"
    if here().size == 1 and int(os.environ.get("LOCAL_RANK", 0)) > 0 and variable in os.environ:
        found: T = json.loads(os.environ[variable])
        return found
    own = make()
    made = here().from_first(lambda: own)
    os.environ[variable] = json.dumps(made)
    return made


def share_no_more() -> None:
    """From now on each process works for itself; they still end together."""
    global _here
    _here = Ranks()


def together(command: Callable[[], None]) -> None:
    """Run a command as one of the processes that its launcher started; an error in one ends all, with one line."""
    global _here
    _here = joined = Ranks(*join(os.environ))
    try:
        if joined.rank:
            sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8", "replace")  # the first speaks
        command()
        joined.leave()
    except SystemExit:
        joined.leave()
        raise
    except (InputError, OSError, KeyboardInterrupt) as error:
        joined.fail(*told(error))
        raise
    except BaseException:
        joined.await_end()
        if joined.rank:
            traceback.print_exc()
        joined.fail(f"error: process {joined.rank} of {joined.size} failed", 1)
        raise
    finally:
        _here = Ranks()


@contextmanager
def _alone() -> Iterator[None]:
    """Inside, nothing is shared: the others do not take part, and would take what is sent for something else."""
    global _here
    joined, _here = _here, Ranks()
    try:
        yield
    finally:
        _here = joined
