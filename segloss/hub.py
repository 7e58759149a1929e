"""A run that is given away: safetensors and JSON, numbers and text alone, which no version of torch can be made to run.

In one file, ``best.safetensors`` of a run folder, or as a folder that Hugging Face's hub takes:

model.safetensors   the weights, with the SHA-256 of these and of what config.json says of them
config.json         ``segloss``: what a checkpoint holds beside its weights; ``decision``: what decision.json holds
README.md           the model card, which is not read
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segloss.errors import InputError
from segloss.files import as_json, write_folder
from segloss.weight_files import WEIGHTS as WEIGHTS

CONFIG, CARD = "config.json", "README.md"
CONTENT, DECISION = "segloss", "decision"  # keys of config.json
ON_HUB = "hf:"
REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
# Options that name files of one machine: gone, or their last part.
GONE = {"data_path": None, "output_dir": None, "resume": False, "override": False}
SHORTENED = ("augmentations", "class_file", "encoder_weights", "init_from")


def is_given(folder: Path) -> bool:
    """Whether it is a folder that was given away."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def name_of(folder: Path) -> str:
    """What a folder that was given away is called; one that was fetched, as on the hub."""
    folder = folder.resolve()
    fetched = folder.parent.name == "snapshots"  # models--OWNER--NAME/snapshots/REVISION
    return folder.parent.parent.name.rpartition("--")[2] if fetched else folder.name


def without_paths(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds beside its weights, without the paths of the machine it was trained on."""
    config = {**content["config"], **GONE}
    config |= {name: Path(config[name]).name for name in SHORTENED if config.get(name)}
    used = {**content["used"], "data_path": None, "augmentations": None, "class_file": None}
    return {**content, "config": config, "used": used}


def to_safetensors(state: Mapping[str, Tensor], text: str, **metadata: str) -> bytes:
    """The weights as a file, with the checksum of both."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    return save(tensors, {**metadata, "format": "pt", "sha256": _checksum(text, tensors)})


def shared_file(content: Mapping[str, Any], state: Mapping[str, Tensor]) -> bytes:
    """Weights and what is said of them in one file, for :func:`read_shared`."""
    text = json.dumps(without_paths(content))
    return to_safetensors(state, text, **{CONTENT: text})


def read_shared(file: Path) -> dict[str, Any]:
    """A checkpoint from one file, or from that of a folder that was given away; empty for safetensors of others.

    Raises:
        InputError: it is damaged, or config.json is missing or of another model.
    """
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() or {}
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
    in_folder = file.name == WEIGHTS and CONTENT not in metadata
    text = json.dumps(read_config(file.parent).get(CONTENT)) if in_folder else metadata.get(CONTENT, "null")
    if text == "null":
        return {}
    if _checksum(text, state) != metadata.get("sha256"):
        beside = f" and {CONFIG}" if in_folder else ""
        raise InputError(f"is damaged: its weights{beside} do not match its checksum", "use another one", file)
    return {"segloss": json.loads(text), "state_dict": state}


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder that was given away; InputError if it is missing or no JSON object."""
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"is missing beside {WEIGHTS}", "use the whole folder", path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read as JSON ({str(error)[:100]})", "use another copy", path) from error
    return content if isinstance(content, dict) else {}


def _checksum(content: str, state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the text and of each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(content.encode())
    for name, tensor in sorted(state.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_free(folder: Path) -> None:
    """InputError unless a folder can be made there: nothing is there, or an empty folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", "choose another --hub", folder)
    if folder.is_dir() and (held := sorted(path.name for path in folder.iterdir())):
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        raise InputError(f"already holds {held[0]}{more}", "choose another --hub, or empty it", folder)


def give_away(
    folder: Path, content: Mapping[str, Any], state: Mapping[str, Tensor], weights: str, decision: Any, card: str
) -> None:
    """Write the folder, whole or not at all.

    Args:
        content, state: what a checkpoint holds beside its weights, and these.
        weights: their fingerprint.
        decision: what the run's decision.json holds for them, or None.
        card: Markdown.
    """
    require_free(folder)
    told = without_paths(content)
    kept = {} if decision is None else {weights: {**_shown(decision), "checkpoint": WEIGHTS}}
    config = {"library_name": "segloss", "weights": weights, CONTENT: told, DECISION: kept}
    tensors = to_safetensors({name: tensor.cpu() for name, tensor in state.items()}, json.dumps(told))
    write_folder(folder, {WEIGHTS: tensors, CONFIG: as_json(config).encode(), CARD: card.encode()})


def _shown(decision: Mapping[str, Any]) -> dict[str, Any]:
    """A decision without the paths of lists that its point was chosen on."""
    if "choose_on" not in (point := decision.get("point", {})):
        return dict(decision)
    words = [Path(word).name if Path(word).is_absolute() else word for word in point["choose_on"]]
    return {**decision, "point": {**point, "choose_on": words}}


def is_on_hub(name: object) -> bool:
    return str(name).startswith(ON_HUB)


def fetched(name: str) -> Path:
    """The folder of ``hf:OWNER/NAME``, or of ``hf:OWNER/NAME@REVISION``, from Hugging Face's hub or its cache here.

    Nothing but the files of such a folder is fetched.

    Raises:
        InputError: there is no such model, or it cannot be reached.
    """
    parts = REPOSITORY.fullmatch(name)
    if parts is None:
        raise InputError("is no name on the hub", "write hf:OWNER/NAME", name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        what = "needs huggingface_hub, which is not installed"
        raise InputError(what, "pip install huggingface_hub", name) from error
    try:
        folder = snapshot_download(parts[1], revision=parts[2], allow_patterns=[WEIGHTS, CONFIG, CARD])
    except Exception as error:  # its own kinds and those of what it sends requests with
        said = re.split(r"\.\s|\n", str(error).strip())[0][:200]  # its first sentence
        what = f"cannot be fetched from the hub ({type(error).__name__}: {said})"
        raise InputError(what, "check name and network, or give a folder that holds it", name) from error
    if not is_given(Path(folder)):
        raise InputError(f"holds no {WEIGHTS} with {CONFIG}, so it is no model of segloss", "check the name", name)
    return Path(folder)
