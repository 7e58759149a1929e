"""Launchers (torchrun, srun, mpirun) start a command several times, on one machine or many: how its processes meet.

A launcher says in variables which of how many each process is, and where the first runs.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from segloss.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PATIENCE = timedelta(minutes=10)  # in which all processes must have come
# Which process, of how many, and which of its machine: as launchers say it, the first that is there.
VARIABLES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # torchrun, and whoever starts processes by hand
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),  # srun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # mpirun of Open MPI
)


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


def join(environ: Mapping[str, str]) -> tuple[int, int, int, "dict[int, Connection[Any, Any]]"]:
    """Meet the other processes that the launcher's variables tell of.

    Returns:
        Rank, number of processes, rank on this machine, and connections as of :func:`meet`; of one alone none.

    Raises:
        InputError: the variables make no sense, or a process does not come.
    """
    rank, size, local_rank = place_in(environ)
    if size == 1:
        return rank, size, local_rank, {}
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

        return rank, size, local_rank, meet(rank, size, host, exchange)
    except (RuntimeError, OSError) as error:
        what = f"process {rank} of {size} did not meet the others at {host}:{port} ({str(error).splitlines()[0]})"
        raise InputError(what, "see that all are started, or unset RANK and WORLD_SIZE to run alone") from error


def meet(rank: int, size: int, host: str, exchange: Callable[[str], str]) -> "dict[int, Connection[Any, Any]]":
    """Connect each process to the first, which runs on ``host``.

    Args:
        exchange: called by all processes; what the first gives it is what all get.

    Returns:
        Rank -> connection: of the first process to all others, of these to the first.
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
    return dict(sorted(found.items()))


def _keep_alive(connection: "Connection[Any, Any]") -> None:
    """So that a machine that lost its power is missed too, within minutes."""
    import socket

    with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):
                wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
