"""The processes of a training run that Lightning starts end together; those of a launcher do so by themselves."""

import os

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from segloss.errors import InputError, told
from segloss.launchers import meet
from segloss.ranks import Ranks


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
