"""Hugging Face's ``datasets``, which a checkout's folder of that name would hide from whatever imports it."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def load_hugging_face() -> None:
    """Put it into ``sys.modules`` in place of this folder; ModuleNotFoundError where it is not installed."""
    others = [place for place in sys.path if not Path(place, "datasets", Path(__file__).name).is_file()]
    spec = PathFinder.find_spec("datasets", others)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
    sys.modules["datasets"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
