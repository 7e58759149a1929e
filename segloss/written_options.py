"""Options as they are written: files and values in YAML, and paths as a shell would have read them."""

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from segloss.errors import InputError

OCTAL = re.compile(r"[-+]?0[0-7_]+")  # of YAML 1.1; the command line counts them by ten
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # YAML 1.1 wants a point and a sign


def read_options_file(path: Path, where: str | Path, texts: Collection[str] = ()) -> dict[str, Any]:
    """A YAML file of options; InputError if it is something else, or holds a key twice.

    Args:
        texts: options whose values are as they are written, as on the command line; to YAML 001 is 1, and no a switch.
    """
    try:
        values = _loaded(path.read_text(encoding="utf-8"), texts)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read as YAML: {' '.join(str(error).split())}", where=where) from error
    if values is None:
        raise InputError("holds no option, expected options, one 'name: value' a line", where=where)
    if not isinstance(values, dict):
        raise InputError(f"expected options, one 'name: value' a line, got {values!r:.60}", where=where)
    return values


def _loaded(text: str, texts: Collection[str]) -> Any:
    loader = _OptionsLoader(text)
    try:
        node = loader.get_single_node()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            for part in [value, *value.value] if isinstance(value, yaml.SequenceNode) else [value]:
                if key.value in texts and isinstance(part, yaml.ScalarNode) and not part.tag.endswith(":null"):
                    part.tag = "tag:yaml.org,2002:str"
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


class _OptionsLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Plain YAML that refuses a key given twice, and reads 1e-3 as a number, to YAML 1.1 a text, and 1:00:00 and 010 as
    text, to YAML 1.1 numbers of base 60 and 8."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]:
            first, line = lines.get((key.tag, key.value)), key.start_mark.line + 1
            if first is not None:
                raise yaml.YAMLError(f"{key.value} is given twice, in lines {first} and {line}")
            lines[key.tag, key.value] = line
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        if kind is yaml.ScalarNode and implicit[0] and EXPONENT.fullmatch(value):  # not in quotes
            return "tag:yaml.org,2002:float"
        is_number = tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        return "tag:yaml.org,2002:str" if is_number and (":" in value or OCTAL.fullmatch(value)) else tag


def yaml_value(text: str, where: str) -> Any:
    """What a text means in a file of options; here 010 and a number in quotes are numbers too."""
    try:
        read = yaml.load(text, _OptionsLoader)
    except yaml.YAMLError as error:
        raise InputError(f"cannot be read as YAML: {text}", where=where) from error
    with suppress(ValueError, TypeError):
        return float(read) if isinstance(read, str) else read
    return read


def meant_path(text: str, flag: str, where: str | Path | None = None) -> str:
    """A path as a shell would have read it: in a file, and behind ``--flag=``, ``~`` and ``$NAME`` stand as written.

    What is there by the very name that is written stays it, up to the last part with a ``$``.

    Raises:
        InputError: an address such as ``s3://``, or a variable that is not set.
    """
    if re.match(r"(?!hf:)[A-Za-z][\w+.-]+://", text):  # that of the hub is looked at where it is fetched
        what = f"{flag} must be a path of this machine, got {text}"
        raise InputError(what, "give a folder or file here, such as where that is mounted", where)
    path = text
    if text.startswith("~"):
        with suppress(RuntimeError):  # there is no such user
            path = str(Path(text).expanduser())
    parts = Path(path).parts
    last = max((i for i, part in enumerate(parts) if "$" in part), default=None)
    if last is None or Path(*parts[: last + 1]).exists():
        return path
    for name in re.findall(r"\$(\w+|\{[^}]*\})", path):
        if (variable := name.strip("{}")) not in os.environ:
            what = f"{flag} {text} names ${variable}, which is not set"
            raise InputError(what, "set it, or make the folder that is really called so first", where)
    return os.path.expandvars(path)
