"""Lightning's checkpoint callbacks for the run folder, and how their files are written."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from segloss.files import write_durably
from segloss.runs import BEST, LAST, PREVIOUS
from segloss.training.reported import best_is_least


class WholeCheckpoints(TorchCheckpointIO):
    """Written beside their place and flushed to the disk before they get their name; the last but one is kept.

    Lightning's own writes in TMPDIR: on another file system its move is a copy, and a kill leaves half of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises OSError where the disk is full; what was there stays."""
        path = Path(path)
        previous = path.with_name(PREVIOUS.name) if path.name == LAST.name else None
        write_durably(path, partial(torch.save, checkpoint), previous)


class MovableCheckpoint(ModelCheckpoint):
    """A checkpoint callback that still knows its best score when the run folder was moved or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here(value) if key in paths else value for key, value in state_dict.items()}
        moved["dirpath"] = self.dirpath
        moved["best_k_models"] = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(moved)


def checkpoint_callbacks(folder: Path, monitor: str) -> list[ModelCheckpoint]:
    """best.ckpt (weights, by validation score) before last.ckpt (everything), which then knows of the best."""
    common: dict[str, Any] = {
        "dirpath": folder / LAST.parent,
        "enable_version_counter": False,
        "auto_insert_metric_name": False,
    }
    best = MovableCheckpoint(
        filename=BEST.stem,
        monitor=f"val_{monitor}",
        mode="min" if best_is_least(monitor) else "max",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        **common,
    )
    last = MovableCheckpoint(filename=LAST.stem, save_on_train_epoch_end=True, **common)
    return [best, last]
