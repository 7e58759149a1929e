"""Write ``described.json``, from which commands answer before torch is loaded: ``python -m segloss.described``.

``--check`` writes nothing and ends with exit status 1 where the file is not what would be written.
"""

import json
import sys
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
    """The text of ``described.json``: an option a line."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    commands = []
    for prog, told in described_commands().items():
        groups = []
        for group in told.pop("groups"):
            keys = ",\n   ".join(line(key) for key in group["keys"])
            groups.append(f'{{"doc": {line(group["doc"])}, "keys": [\n   {keys}]}}')
        head = line(told).removesuffix("}")
        between = ",\n  ".join(groups)
        commands.append(f'{line(prog)}: {head}, "groups": [\n  {between}]}}')
    return "{" + ",\n ".join([f'"sources": {line(sources_digest())}', *commands]) + "}\n"


if __name__ == "__main__":
    described = Path(__file__).with_name(DESCRIBED)
    if sys.argv[1:] != ["--check"]:
        described.write_text(written(), encoding="utf-8")
    elif described.read_text(encoding="utf-8") != written():
        sys.exit(f"segloss/{DESCRIBED} is not that of the declared options; run python -m segloss.described")
