"""An average of the weights, which is what is validated and kept, while training goes on with its own.

Lightning's own averaging (2.6) leaves weights-only checkpoints without the average, keeps it on the CPU beside a GPU
and forgets which weights are which when a run is stopped in a validation.
"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

PREFIX = "model."  # of the network in the state of a task
OWN = "training_weights"  # key of a checkpoint: the weights that training goes on with


class AveragedWeights(Callback):
    r"""Mean of the weights and of the statistics of norms over steps (EMA) or epochs (SWA).

    .. math::
        \text{EMA, after step } n: \; a \leftarrow d_n a + (1 - d_n) w, \quad d_n = \min(d, (1 + n) / (10 + n));
        \qquad \text{SWA, after epoch } n: \; a \leftarrow a + (w - a) / n

    The first steps of an EMA follow the weights closely, so that it does not remember where they began.

    Args:
        decay: d; 0: SWA.
        first_epoch: of SWA, from 0.
        share: of SWA, the last part of the time of a run that ``--trainer.max_time`` ends sooner.

    Attributes:
        average: of the tensors of the network by name; those of whole numbers are not averaged.
        seen: n.
        validated: n in the last validation of an average.
        swapped: the network holds the average, and ``average`` the weights of the training: during a validation.
    """

    def __init__(self, decay: float, first_epoch: int = 0, share: float = 0.0):
        self.decay, self.first_epoch, self.share = decay, first_epoch, share
        self.average: dict[str, Tensor] = {}
        self.seen = self.step = self.validated = 0
        self.swapped = False

    def state_dict(self) -> dict[str, Any]:
        how = {"decay": self.decay, "first_epoch": self.first_epoch}
        return {"seen": self.seen, "step": self.step, "validated": self.validated, **how}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        # The mean is begun anew where it was of the other kind, or of epochs that are not the last ones any more.
        same_kind = bool(state.get("decay", self.decay)) == bool(self.decay)
        if same_kind and (self.decay or state.get("first_epoch", self.first_epoch) == self.first_epoch):
            self.seen = state["seen"]
            self.validated = state.get("validated", self.seen)

    def _tensors(self, task: L.LightningModule) -> dict[str, Tensor]:
        model: Any = task.model
        return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        started = self.average or self._tensors(task)
        self.average = {name: tensor.to(task.device, copy=True) for name, tensor in started.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.global_step == self.step:
            return  # micro-batches of this step are to come
        self.step = trainer.global_step
        if not self.decay:
            if index + 1 != trainer.num_training_batches:
                return
            if not self._is_one_of_the_last(trainer, task):
                self.seen = self.validated = 0  # of a run that was given more time since they are of other epochs
                return
        self.seen += 1
        share = 1 - min(self.decay, (1 + self.seen) / (10 + self.seen)) if self.decay else 1 / self.seen
        torch._foreach_lerp_([*self.average.values()], [*self._tensors(task).values()], share)

    def _is_one_of_the_last(self, trainer: L.Trainer, task: Any) -> bool:
        """Whether the epoch that ends is in the share of SWA, by the epochs or by the time."""
        if trainer.current_epoch >= self.first_epoch:
            return True
        passed = torch.tensor(task.share_of_time, device=task.device)
        if trainer.world_size > 1:  # whose clocks differ
            passed = trainer.strategy.reduce(passed, reduce_op="max")
        return self.share > 0 and float(passed) >= 1 - self.share

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.seen and not self.swapped:
            self._swap(task)
            self.validated = 0 if trainer.sanity_checking else self.seen

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.swapped:
            self._swap(task)

    @torch.no_grad()
    def _swap(self, task: L.LightningModule) -> None:
        for name, tensor in self._tensors(task).items():
            held = tensor.clone()
            tensor.copy_(self.average[name])
            self.average[name].copy_(held)
        self.swapped = not self.swapped

    def write(self, checkpoint: dict[str, Any]) -> None:
        """The average in place of the weights, which are kept beside it unless only weights are saved."""
        if not self.seen:
            return
        state = checkpoint["state_dict"]
        of_network = {f"{PREFIX}{name}": tensor for name, tensor in self.average.items()}
        averages, weights = ({**state, **of_network}, state)[:: -1 if self.swapped else 1]
        checkpoint["state_dict"] = averages
        if "optimizer_states" in checkpoint:
            checkpoint[OWN] = {name: weights[name] for name in of_network}

    def on_load_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if OWN in checkpoint:
            self.average = {name: tensor.clone() for name, tensor in self._tensors(task).items()}
            task.load_state_dict({**checkpoint["state_dict"], **checkpoint[OWN]})
