"""The processes of a training run that Lightning starts end together; those of a launcher do so by themselves."""

import os

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segloss.config import TrainConfig
from segloss.errors import InputError, told
from segloss.launchers import meet
from segloss.ranks import Ranks, here


def require_processes(config: TrainConfig) -> None:
    """InputError where a launcher started another number of processes than the options ask for."""
    nodes, started = int(config.trainer.get("num_nodes") or 1), here().size
    if started not in (1, config.devices * nodes):
        asked = f"--devices {config.devices}" + (f" on each of {nodes} machines" if nodes > 1 else "")
        cure = "give --devices as many as there are on a machine, and --trainer.num_nodes the number of machines"
        raise InputError(f"{started} processes were started for {asked}", cure)


class EndTogether(Callback):
    """Where one of the processes of ``--devices`` ends by an error, or is killed, all end, with one line.

    Lightning looks every five seconds whether one of them has ended, and kills the first without a word. It also waits
    for what a dead one was to answer, on some devices for half an hour.
    """

    def __init__(self) -> None:
        self.ranks = Ranks()

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and "RANK" not in os.environ and trainer.world_size > 1:
            rank, size = trainer.global_rank, trainer.world_size
            peers = meet(rank, size, os.environ["MASTER_ADDR"], trainer.strategy.broadcast)
            self.ranks = Ranks(rank, size, trainer.local_rank, peers)

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, InputError | OSError):
            self.ranks.fail(*told(exception))
        elif isinstance(exception, KeyboardInterrupt | SIGTERMException):
            self.ranks.leave()  # all of them get the signal
        else:
            self.ranks.await_end()

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        self.ranks.leave()
