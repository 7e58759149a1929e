"""Write ``described.json``, from which commands answer before torch is loaded: ``python -m segloss.described``."""

import json
from pathlib import Path
from typing import Any

import segloss.config
from segloss.commands import COMMANDS
from segloss.config.data import DataOptions
from segloss.datasets import FORMATS
from segloss.datasets.formats import missing_place
from segloss.early import DESCRIBED, describe, sources_digest


def described_commands() -> dict[str, Any]:
    """All commands by their ``prog``, as :func:`segloss.early.describe` tells of each."""
    places = {
        name: {"variable": form.variable, "what": (error := missing_place(form)).what, "cure": error.cure}
        for name, form in FORMATS.items()
        if not form.made_up
    }
    found = {}
    for command in COMMANDS.values():
        kind = getattr(segloss.config, command.config)
        found[command.prog] = describe(kind, places if issubclass(kind, DataOptions) else {}, command.without_data)
    return found


def written() -> str:
    """The text of ``described.json``."""
    return json.dumps({"sources": sources_digest(), **described_commands()}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name(DESCRIBED).write_text(written(), encoding="utf-8")
