"""An InputError is the same value wherever it arises: copied, pickled, or met by a loader's process."""

import copy
import pickle

import lightning as L
import pytest
import torch
from data_trees import random_image, random_mask, write_png

from segloss.datasets import MissingSplitError, NoDataError, SegmentationDataset
from segloss.datasets.loading import evaluation_loader, training_loader
from segloss.datasets.pairing import Pairing
from segloss.datasets.tables import CAMVID_11
from segloss.errors import InputError, exit_on_input_error


@pytest.mark.parametrize("kind", [InputError, NoDataError, MissingSplitError])
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_of_an_error_has_its_kind_and_parts(kind, again, tmp_path):
    error = again(kind("lists a: b; c", "write x; or y", tmp_path))
    assert type(error) is kind
    assert (error.what, error.cure, error.where) == ("lists a: b; c", "write x; or y", tmp_path)
    assert str(error) == f"{tmp_path}: lists a: b; c; write x; or y"


def two_images(root) -> SegmentationDataset:
    pairs = []
    for name in "ab":
        write_png(root / f"{name}.png", random_image(ord(name), (32, 32)))
        write_png(root / f"{name}_mask.png", random_mask(ord(name), (32, 32), range(11)))
        pairs.append((root / f"{name}.png", root / f"{name}_mask.png"))
    return SegmentationDataset("two", "train", Pairing("", pairs, ["a", "b"]), CAMVID_11)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("make", [evaluation_loader, lambda *given, **named: training_loader(*given, seed=0, **named)])
def test_an_error_of_a_loader_process_arrives_as_itself_and_the_loader_goes_on(tmp_path, start, make):
    dataset = two_images(tmp_path)
    whole, path = (tmp_path / "b_mask.png").read_bytes(), tmp_path / "b_mask.png"
    loader = make(dataset, 1, workers=1)
    loader.multiprocessing_context = start
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError) as raised:
        list(loader)
    assert type(raised.value) is InputError
    assert (raised.value.what, raised.value.where) == ("is cut off", path)
    assert raised.value.cure.startswith("replace the file")
    path.write_bytes(whole)
    assert len(list(loader)) == 2  # the same processes, kept


class OneWeight(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch, place):
        return self.weight * batch["image"].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_ends_with_the_error_of_a_loader_process_as_one_line(tmp_path, capsys, workers):
    dataset = two_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    still = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **still)
    loader = training_loader(dataset, 2, seed=0, workers=workers)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        exit_on_input_error(lambda: trainer.fit(OneWeight(), loader))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert stop.value.code == 2
    cure = "replace the file or remove it with its partner"
    assert lines == [f"error: {tmp_path / 'a.png'}: is not a readable image; {cure}"]
