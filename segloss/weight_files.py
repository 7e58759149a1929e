"""Which file holds the weights of a run, and whether a checkpoint is whole."""

import zipfile
from pathlib import Path

from segloss.errors import InputError

# In the run folder (segloss.run_folder).
LAST, PREVIOUS = Path("checkpoints/last.ckpt"), Path("checkpoints/last.previous.ckpt")
BEST, SHARED = Path("checkpoints/best.ckpt"), Path("checkpoints/best.safetensors")
WEIGHTS = "model.safetensors"  # in a folder that was given away (segloss.hub)
SHIPPED = Path(__file__).with_name("shipped") / "demo"  # such a folder


def weights_file(path: Path) -> Path:
    """The file itself; of a folder that was given away its weights, of a run the best or, without any, the last.
    ``demo`` is the model that ships, where nothing else is called so.

    InputError where there is none.
    """
    if path == Path(SHIPPED.name) and not path.exists():
        path = SHIPPED
    if path.is_dir():
        for candidate in (path / WEIGHTS, path / BEST, path / SHARED, path / LAST):
            if candidate.is_file():
                return candidate
        raise InputError(f"holds neither {BEST} nor {WEIGHTS}", "give a run folder or a checkpoint file", where=path)
    if not path.is_file():
        raise InputError("no such run folder or checkpoint file", where=path)
    return path


def require_whole(file: Path) -> None:
    """InputError where an entry of a checkpoint does not match its checksum: torch writes it and never looks at it.

    Raises:
        zipfile.BadZipFile: it is no archive, as torch writes them.
    """
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise InputError(f"is damaged: {damaged} does not match its checksum", "use another one", file)
