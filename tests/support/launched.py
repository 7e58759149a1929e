"""Commands as several processes, started with the variables that launchers set."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")


def free_port() -> str:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return str(door.getsockname()[1])


def started(size: int, *command: object, **environment: str) -> list[subprocess.Popen]:
    """All processes of a job; what they say is piped."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                **environment,
                **{"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            },
        )
        for rank in range(size)
    ]


def ended(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Status, output and errors of each."""
    found = []
    for process in processes:
        try:
            said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            raise
        found.append((process.returncode, *said))
    return found
