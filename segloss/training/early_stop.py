"""Lightning's early stopping, which says that it stops and does not train on when such a run is resumed."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

from segloss.training.reported import best_is_least


class EarlyStop(EarlyStopping):
    """Ends a run after ``patience`` validations in a row whose monitored score is no better than the best before.

    A score without a value, as the precision of a class that is not predicted yet, is no better; Lightning would stop
    there without a word. It also counts a stale score again in epochs without validation where it looks at their ends,
    and a resumed run trains an epoch before it looks, and takes the patience that it began with.
    """

    def __init__(self, monitor: str, patience: int, say: Callable[[str], None]):
        mode = "min" if best_is_least(monitor) else "max"
        how = {"check_finite": False, "check_on_train_epoch_end": False}
        super().__init__(f"val_{monitor}", patience=patience, mode=mode, **how)
        self.say = say

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.wait_count >= self.patience and trainer.is_global_zero:
            score, count = self.monitor.removeprefix("val_"), self.wait_count
            better = f"better {score} than {self.best_score:.4g}" if self.best_score.isfinite() else score
            self.say(
                f"stopped early: no {better} in {count} validations; "
                f"to train on: --resume --override --early-stop {count + self.patience}"
            )
