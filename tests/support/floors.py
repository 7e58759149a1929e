"""The oldest versions that setup.cfg allows, as constraints of pip: python tests/support/floors.py > floors.txt"""

import re
from configparser import ConfigParser
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "setup.cfg"
REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)(?:>=(?P<floor>[\w.]+))?")


def floors(*extras: str) -> dict[str, str | None]:
    """Package -> oldest version, None where there is none: of the core and of what these extras name themselves."""
    setup = ConfigParser(interpolation=None)
    setup.read(SETUP)
    lists = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)]
    lines = [line for text in lists for line in text.split("\n") if line and not line.startswith("%(")]
    return {(found := REQUIREMENT.match(line))["name"]: found["floor"] for line in lines}


if __name__ == "__main__":
    for name, floor in floors("train").items():
        print(f"{name}=={floor}")
