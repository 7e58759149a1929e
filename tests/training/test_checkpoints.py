"""Checkpoints are whole or not there, and a damaged one is never taken for a sound one."""

import os
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_training import SmallRun

import segloss.encoder_weights
from segloss.errors import InputError
from segloss.files import write_durably
from segloss.flags import to_plain_dict
from segloss.resume import load_last, parse_train_config, used_so_far
from segloss.run_folder import CONFIG, COUNTS, FOLDER_VARIABLE, HISTORY
from segloss.runs import load_run, read_checkpoint, share_weights
from segloss.training.checkpoints import WholeCheckpoints
from segloss.weight_files import BEST, LAST, PREVIOUS, SHARED

CONTENT = {"segloss": {"format": 1}, "state_dict": {"weight": torch.arange(500.0), "bias": torch.ones(3)}}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / LAST
    WholeCheckpoints().save_checkpoint(CONTENT, path)
    return path


def weights(path: Path) -> torch.Tensor:
    return read_checkpoint(path)["state_dict"]["weight"]


def test_a_flipped_byte_never_loads_other_weights(checkpoint):
    """It loaded other weights in silence."""
    whole, refusals = checkpoint.read_bytes(), 0
    for place in random.Random(0).sample(range(len(whole)), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        checkpoint.write_bytes(bytes(damaged))
        try:
            assert torch.equal(weights(checkpoint), CONTENT["state_dict"]["weight"]), place
        except InputError as error:
            refusals += 1
            assert str(checkpoint) in str(error)
    assert refusals > 100


def test_a_flipped_byte_of_a_weight_is_named_as_damage(checkpoint):
    whole = bytearray(checkpoint.read_bytes())
    place = whole.index(torch.arange(500.0).numpy().tobytes()) + 900
    whole[place] ^= 1
    checkpoint.write_bytes(bytes(whole))
    with pytest.raises(InputError, match=r"last.ckpt: is damaged: .* does not match its checksum; use another one"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("length", [0, 1, 100, -1, -500])
def test_a_checkpoint_that_was_cut_off_is_refused(checkpoint, length):
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with pytest.raises(InputError, match=r"last\.ckpt: "):
        read_checkpoint(checkpoint)


def test_last_keeps_the_one_before_and_best_does_not(tmp_path):
    io = WholeCheckpoints()
    for epoch in range(3):
        for name in (LAST, BEST):
            io.save_checkpoint({**CONTENT, "epoch": epoch}, tmp_path / name)
    assert [read_checkpoint(tmp_path / name)["epoch"] for name in (LAST, PREVIOUS, BEST)] == [2, 1, 2]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {LAST.name, PREVIOUS.name, BEST.name}


def test_nothing_is_written_in_the_folder_of_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    WholeCheckpoints().save_checkpoint(CONTENT, tmp_path / "run" / LAST)
    assert not (tmp_path / "nowhere").exists() and len(weights(tmp_path / "run" / LAST)) == 500


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("killed")])
def test_a_write_that_fails_leaves_what_was_there(checkpoint, error):
    def half(file):
        file.write(b"half")
        raise error

    before = checkpoint.read_bytes()
    with pytest.raises(type(error)):
        write_durably(checkpoint, half, checkpoint.with_name(PREVIOUS.name))
    assert checkpoint.read_bytes() == before and [*checkpoint.parent.iterdir()] == [checkpoint]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_a_full_disk_is_an_error_of_the_system():
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb") as file:
        torch.save({"weight": torch.zeros(1_000_000)}, file)
        file.flush()


def test_a_full_disk_is_one_where_torch_says_something_else(checkpoint):
    """Its writer answers with an error of its own, for the archive is not whole."""

    def full(file):
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 77320000 vs 77319888")

    with pytest.raises(OSError, match="No space left") as raised:
        write_durably(checkpoint, full)
    assert raised.value.filename == str(checkpoint)


def test_a_killed_write_leaves_the_old_file_and_its_rubbish_is_cleared_by_the_next(checkpoint):
    before = checkpoint.read_bytes()
    child = os.fork()
    if child == 0:
        write_durably(checkpoint, lambda file: (file.write(b"half"), file.flush(), os._exit(9)))
    assert os.waitpid(child, 0)[1] >> 8 == 9
    assert checkpoint.read_bytes() == before and len([*checkpoint.parent.iterdir()]) == 2
    WholeCheckpoints().save_checkpoint(CONTENT, checkpoint)
    assert {path.name for path in checkpoint.parent.iterdir()} == {LAST.name, PREVIOUS.name}


def test_the_bytes_are_on_the_disk_before_they_have_their_name(checkpoint, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append(to.name), replace(self, to)))
    WholeCheckpoints().save_checkpoint(CONTENT, checkpoint)
    assert steps[:3] == ["fsync", PREVIOUS.name, LAST.name]


def test_training_writes_such_checkpoints(tmp_path):
    SmallRun(tmp_path, epochs=2).fit()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {LAST.name, PREVIOUS.name, BEST.name}
    for name in (LAST, PREVIOUS, BEST):
        assert zipfile.ZipFile(tmp_path / name).testzip() is None


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with two checkpoints of a real, small network."""
    from segloss.datasets.tables import CAMVID_11
    from segloss.run_folder import Used
    from segloss.runs import checkpoint_content

    folder = tmp_path_factory.mktemp("run")
    options = ["--encoder", "tu-mobilenetv3_small_050", "--encoder-weights", "none", "--loss", "outlying_mse"]
    config = parse_train_config([*options, "--data-path", str(folder), "--output-dir", str(folder / "run")])
    model = config.build(11)
    counts = segloss.count_labels([torch.arange(11).view(1, 11)], 11)
    content = checkpoint_content(config, Used((64, 64), "32-true", 0, None, None), CAMVID_11, counts, model)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state |= {"criterion.label_values": torch.arange(1.0, 12)}
    for epoch in range(2):
        WholeCheckpoints().save_checkpoint({"segloss": content, "state_dict": state, "epoch": epoch}, folder / LAST)
    return folder


@pytest.mark.parametrize("harm", ["flipped", "empty", "gone", "half"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(run, tmp_path, harm):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    last = folder / LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 8
    if harm == "gone":
        last.unlink()
    else:
        last.write_bytes({"flipped": bytes(content), "empty": b"", "half": content[: len(content) // 2]}[harm])
    said: list[str] = []
    taken = load_last(folder, said.append)
    assert taken is not None and taken.path == folder / PREVIOUS
    assert said[-1] == ("warning: last.ckpt is no use; going on with the checkpoint before it, last.previous.ckpt")
    assert len(said) == (1 if harm == "gone" else 2) and all(line.startswith("warning: ") for line in said)


def test_a_sound_checkpoint_is_taken_in_silence_and_none_is_none(run, tmp_path):
    said: list[str] = []
    taken = load_last(run, said.append)
    assert taken is not None and (taken.path, said) == (run / LAST, [])
    assert load_last(tmp_path, said.append) is None


def test_two_damaged_checkpoints_are_refused(run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    for name in (LAST, PREVIOUS):
        (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.previous\.ckpt: cannot be read as a checkpoint"):
        load_last(folder, lambda line: None)


HISTORY_OF = {rows: "epoch\n" + "".join(f"{row + 1}\n" for row in range(rows)) for rows in range(3)}


def without_last(run: Path, folder: Path, rows: int, epoch: int | None, *more: str) -> Path:
    """A run folder whose last checkpoints are gone, with so many rows of history and the best of an epoch."""
    (folder / BEST).parent.mkdir(parents=True)
    (folder / HISTORY).write_text(HISTORY_OF[rows])
    if epoch is not None:
        torch.save({**torch.load(run / LAST, weights_only=True), "epoch": epoch}, folder / BEST)
    for name in more:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("rows", "epoch", "more", "held"),
    [
        (2, 1, [], "best.ckpt, history.csv"),
        (2, 0, [], "best.ckpt, history.csv"),
        (0, 1, [], "best.ckpt"),
        (2, None, [], "history.csv"),
        (1, 0, [SHARED], "best.ckpt, best.safetensors, history.csv"),
        (0, None, ["checkpoints/other.ckpt"], "other.ckpt"),
    ],
)
def test_a_trained_run_without_last_is_not_begun_anew(run, tmp_path, rows, epoch, more, held):
    folder = without_last(run, tmp_path / "run", rows, epoch, *map(str, more))
    with pytest.raises(InputError) as error:
        load_last(folder, print)
    assert str(error.value).startswith(f"{folder / LAST}: is gone, of a run that holds {held}; restore last.ckpt, or")
    assert (f"--init-from {folder}" in str(error.value)) == ("best" in held)


@pytest.mark.parametrize(("rows", "epoch"), [(0, 0), (1, 0), (1, None), (0, None)])
def test_what_a_kill_in_the_first_epoch_leaves_is_trained_again(run, tmp_path, rows, epoch):
    """best.ckpt and a row of the history come before the first last.ckpt."""
    folder, said = without_last(run, tmp_path / "run", rows, epoch), []
    assert load_last(folder, said.append) is None
    assert len(said) == bool(rows or epoch is not None)


def test_a_run_without_its_best_weights_says_whose_they_are(run, tmp_path, capsys):
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    assert load_run(folder).path == folder / LAST
    assert f"warning: {folder} holds no best.ckpt; these are the weights of last.ckpt\n" in capsys.readouterr().err
    load_run(folder / LAST)  # which was asked for
    (folder / LAST).rename(folder / BEST)
    load_run(folder)
    assert "holds no" not in capsys.readouterr().err


# ---- weights to give away


@pytest.fixture
def shared(run, tmp_path) -> Path:
    return share_weights(Path(shutil.copytree(run, tmp_path / "copy")) / LAST)


def test_shared_weights_are_those_of_the_checkpoint(run, shared):
    ours, theirs = load_run(run / LAST), load_run(shared)
    assert shared.name == "last.safetensors" and theirs.weights == ours.weights
    kept = replace(ours.config, data_path=None, output_dir=None)
    assert (theirs.config, theirs.classes, theirs.bands) == (kept, ours.classes, ours.bands)
    assert str(run).encode() not in shared.read_bytes()
    assert theirs.counts.pixels == ours.counts.pixels
    assert torch.equal(theirs.criterion.label_values, ours.criterion.label_values)


def test_a_folder_of_shared_weights_alone_is_a_run(run, shared, tmp_path):
    target = tmp_path / "given" / SHARED
    target.parent.mkdir(parents=True)
    shutil.copy(shared, target)
    assert load_run(tmp_path / "given").weights == load_run(run / LAST).weights


def test_a_flipped_byte_of_shared_weights_never_loads(shared):
    whole = shared.read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        shared.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"last\.safetensors: "):
            read_checkpoint(shared)


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_shared_weights_that_were_cut_off_are_refused(shared, length):
    shared.write_bytes(shared.read_bytes()[:length])
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        read_checkpoint(shared)


def test_safetensors_of_others_are_no_run(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: is no checkpoint of segloss"):
        load_run(tmp_path / "other.safetensors")


def test_shared_weights_need_no_warning_of_an_old_torch(shared, capsys, monkeypatch):
    monkeypatch.setattr(segloss.encoder_weights.torch, "__version__", "2.5.1")
    load_run(shared)
    assert capsys.readouterr().err == ""


# ---- torch that can be fooled


@pytest.mark.parametrize(
    ("version", "warned"), [("2.4.0", True), ("2.9.1+cu128", True), ("2.10.0", False), ("2.14.1+cu130", False)]
)
def test_an_old_torch_is_warned_of_when_it_reads_what_others_wrote(run, capsys, monkeypatch, version, warned):
    monkeypatch.setattr(segloss.encoder_weights.torch, "__version__", version)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    load_run(run / LAST)
    printed = capsys.readouterr().err
    assert printed.count("\n") == warned
    assert ("a forged checkpoint can run code under torch " + version in printed) == warned
    assert ("load only files you trust, or update torch to 2.10" in printed) == warned


def test_a_run_does_not_warn_of_its_own_checkpoints(run, capsys, monkeypatch):
    monkeypatch.setattr(segloss.encoder_weights.torch, "__version__", "2.6.0")
    monkeypatch.setenv(FOLDER_VARIABLE, str(run))
    load_run(run / LAST)
    assert capsys.readouterr().err == ""


def test_an_old_torch_is_warned_of_before_it_reads_weights_of_an_encoder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(segloss.encoder_weights.torch, "__version__", "2.5.1")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "w.pth")
    segloss.encoder_weights._read_weights(tmp_path / "w.pth")
    assert f"warning: {tmp_path / 'w.pth'}: a forged checkpoint" in capsys.readouterr().err


# ---- killed before the run had its config


@pytest.mark.parametrize(
    "left",
    [[COUNTS], [COUNTS, "used.yaml"], [".pixel_counts.json.123"], [COUNTS, ".config.yaml.77"], ["augmentations.yaml"]],
)
def test_a_run_killed_before_its_config_was_written_just_starts(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("half")
    argv = ["--resume", "--output-dir", str(tmp_path), "--lr", "0.5", "--crop-size", "64", "64"]
    config = parse_train_config(argv)
    assert config.lr == 0.5
    assert used_so_far(config).crop_size == (64, 64)
    fresh = to_plain_dict(parse_train_config(argv[1:]))
    assert {**to_plain_dict(config), "resume": False} == fresh


@pytest.mark.parametrize("held", [[LAST], [PREVIOUS], [BEST], [SHARED], [LAST, BEST], [HISTORY]], ids=str)
def test_a_trained_run_without_its_config_is_not_barely_begun(tmp_path, held):
    """Whatever its options were, those given now may be others."""
    (tmp_path / COUNTS).write_text("")
    for name in held:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("epoch\n1\n")
    with pytest.raises(InputError) as error:
        parse_train_config(["--resume", "--output-dir", str(tmp_path), "--lr", "0.5"])
    listed = ", ".join(sorted(Path(name).name for name in held))
    assert str(error.value).startswith(
        f"{tmp_path / CONFIG}: is gone, of a run that holds {listed}; restore config.yaml"
    )


@pytest.mark.parametrize("left", [[], ["notes.txt"], ["checkpoints"]])
def test_a_folder_that_no_run_began_in_is_refused(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=rf"{CONFIG}: is missing, so .* is no run folder"):
        parse_train_config(["--resume", "--output-dir", str(tmp_path)])
