"""Several processes that do one job: which of them this is, what they tell each other, and that they end together.

A launcher (torchrun, srun, mpirun) starts one command several times, on one machine or on many, and says in variables
which of how many each is. All talk to the first alone, over a connection each. The system closes it when a process
ends, however it ends, so that the others know at once and end as well.
"""

import io
import os
import pickle
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import Queue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from segloss.errors import InputError, told

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import numpy as np

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)  # in which all processes must have come
HEARSAY_S = 1.0  # in which it is known here that a process has died on whose answer something waits
LAST_WORDS_S = 10.0  # in which the first process ends those that it was told an error by
# Which process, of how many, and which of its machine: as launchers say it, the first that is there.
VARIABLES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, and whoever starts processes by hand
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # mpirun of Open MPI
)


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
        """What the first process makes, on all of them."""
        if self.rank:
            made: T = self._inbox[0].get()
            return made
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


def share_no_more() -> None:
    """From now on each process works for itself; they still end together."""
    global _here
    _here = Ranks()


def together(command: Callable[[], None]) -> None:
    """Run a command as one of the processes that its launcher started; an error in one ends all, with one line."""
    global _here
    _here = joined = join(os.environ)
    try:
        if joined.rank:
            sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))  # the first speaks
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


def place_in(environ: Mapping[str, str]) -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as a launcher says them; (0, 1, 0) where none does.

    >>> place_in({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    (3, 8, 1)
    """
    for names in VARIABLES:
        if not all(name in environ for name in names[:2]):
            continue
        try:
            rank, size, local_rank = (int(environ.get(name, 0)) for name in names)
        except ValueError as error:
            raise InputError(f"{' and '.join(names)} must be whole numbers", "unset them to run alone") from error
        if not 0 <= rank < size:
            what = f"{names[0]} is {rank} and {names[1]} {size}"
            raise InputError(what, f"ranks run from 0 to {names[1]} - 1; unset both to run alone")
        return rank, size, local_rank
    return 0, 1, 0


def meeting_point(environ: Mapping[str, str]) -> tuple[str, int]:
    """Where the processes meet: what MASTER_ADDR and MASTER_PORT say, else the first node of a SLURM step.

    Raises:
        InputError: neither is there.
    """
    host, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    nodes = environ.get("SLURM_STEP_NODELIST")
    if nodes:
        host = host or first_node(nodes)
        port = port or str(20000 + (int(environ["SLURM_JOB_ID"]) + int(environ["SLURM_STEP_ID"])) % 20000)
    if not (host and port and port.isdigit()):
        what = "MASTER_ADDR and MASTER_PORT do not say where the processes meet"
        cure = "set them to the first one's machine and a free port, start them by torchrun, or unset RANK"
        raise InputError(what, cure)
    return host, int(port)


def first_node(nodes: str) -> str:
    """Of a list as SLURM writes it.

    >>> [first_node(nodes) for nodes in ("gpu07", "gpu[03-05,9],cpu1", "a,b[1-2]")]
    ['gpu07', 'gpu03', 'a']
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\d+).*?\]", r"\1", first[0] if first else nodes)


def join(environ: Mapping[str, str]) -> Ranks:
    """Meet the other processes of the launcher's variables; alone where there are none.

    Raises:
        InputError: the variables make no sense, or a process does not come.
    """
    rank, size, local_rank = place_in(environ)
    if size == 1:
        return Ranks()
    from torch import distributed

    host, port = meeting_point(environ)
    if not distributed.is_available():
        raise InputError("this PyTorch was built without torch.distributed", "unset RANK to run alone, or use --shard")
    hosted = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun listens at that port itself
    try:
        keys: Any = distributed.TCPStore(
            host, port, is_master=rank == 0 and not hosted, timeout=PATIENCE, wait_for_workers=False
        )
        keys = distributed.PrefixStore(f"segloss/{environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", keys)

        def exchange(door: str) -> str:
            if rank == 0:
                keys.set("door", door)
                keys.wait([f"came/{other}" for other in range(1, size)], PATIENCE)
                return door
            found: str = keys.get("door").decode()
            keys.set(f"came/{rank}", "")
            return found

        return meet(rank, size, local_rank, host, exchange)
    except (RuntimeError, OSError) as error:
        what = f"process {rank} of {size} did not meet the others at {host}:{port} ({str(error).splitlines()[0]})"
        raise InputError(what, "see that all are started, or unset RANK and WORLD_SIZE to run alone") from error


def meet(rank: int, size: int, local_rank: int, host: str, exchange: Callable[[str], str]) -> Ranks:
    """Connect each process to the first, which runs on ``host``.

    Args:
        exchange: called by all processes; what the first gives it is what all get.
    """
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client, Listener

    found: dict[int, Any] = {}
    if rank:
        port, key = exchange("").split()
        found[0] = Client((host, int(port)), authkey=bytes.fromhex(key))
        found[0].send(rank)
    else:
        key = secrets.token_hex(16)
        with Listener(("", 0), backlog=size, authkey=bytes.fromhex(key)) as listener:
            door: Any = listener.address
            exchange(f"{door[1]} {key}")
            while len(found) < size - 1:
                with suppress(AuthenticationError, EOFError):  # somebody else's
                    connection = listener.accept()
                    found[connection.recv()] = connection
    for connection in found.values():
        _keep_alive(connection)
    return Ranks(rank, size, local_rank, dict(sorted(found.items())))


def _keep_alive(connection: "Connection[Any, Any]") -> None:
    """So that a machine that lost its power is missed too, within minutes."""
    import socket

    with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):
                wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
