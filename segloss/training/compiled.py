"""torch.compile for the network."""

import os
import shutil
from importlib.util import find_spec

import torch
from torch import nn

from segloss.errors import InputError


def compile_network(model: nn.Module, device: torch.device) -> None:
    """Compile in place what is inside the normalisation and the padding, names of weights staying as they are.

    InputError where there is no compiler: torch says so only in the first step, in a traceback.
    """
    compiler = os.environ.get("CXX") or next((name for name in ("g++", "clang++") if shutil.which(name)), None)
    if device.type == "cpu" and (compiler is None or shutil.which(compiler) is None):
        raise InputError("--compile needs a C++ compiler", "install g++, or leave it out")
    if device.type == "cuda" and find_spec("triton") is None:
        raise InputError("--compile needs Triton", "pip install triton, or leave it out")
    network = model.network
    assert isinstance(network, nn.Module)
    network.compile()
