"""Dataclasses as command-line flags, YAML files and plain dictionaries. Knows no option by its name."""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, asdict, field, fields
from difflib import get_close_matches
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml

from segloss.errors import InputError, unknown_name

Config = TypeVar("Config")


def option(default: Any = MISSING, help: str = "", **flag: Any) -> Any:
    """A dataclass field that also says what its flag looks like (``nargs``, ``metavar``, ``type``).

    ``lone``: of a list, whose one element may stand in files without the brackets.
    """
    metadata = {"help": help, **flag}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """The command-line word of a field."""
    return "--" + name.replace("_", "-")


def require(condition: bool, flag: str, expected: str, value: Any) -> None:
    if not condition:
        raise InputError(f"--{flag} must be {expected}, got {value}")


def require_name(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(f"--{flag}", value, known)


def to_plain_dict(config: Any) -> dict:
    """Plain values, for YAML and checkpoints."""
    return asdict(config)


def from_plain_dict(kind: type[Config], values: dict, where: str) -> Config:
    """A config from a saved dictionary; InputError for a key it does not have."""
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{where}: unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
    config = kind(**values)
    check_types(config, where)
    return config


def check_types(config: Any, where: str) -> None:
    """InputError for a value of another type than its field's; YAML files can hold anything. Ints become floats."""
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("lone") and not isinstance(value, list):
            value = [value]
        item = {list[float]: float, list[int] | None: int}.get(f.type)
        if value is None and "None" in str(f.type):
            continue
        try:
            if item is not None:
                if isinstance(f.metadata["nargs"], int) and len(value) != f.metadata["nargs"]:
                    raise TypeError
                value = [_as_type(item, element) for element in value]
            elif not hasattr(f.type, "__origin__"):
                value = _as_type(f.type, value)
        except TypeError:
            expected = f"{f.metadata.get('nargs', '')} {getattr(item or f.type, '__name__', f.type)}".strip()
            raise InputError(f"{where}: {flag_of(f.name)} must be {expected}, got {value!r}") from None
        setattr(config, f.name, value)


def _as_type(kind: Any, value: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    return value


def parse_config(kind: type[Config], prog: str, argv: list[str] | None, defaults: dict | None = None) -> Config:
    """Flags over ``--config FILE`` over ``defaults`` over the class's own; checked.

    Raises:
        InputError: an unknown flag, a value of the wrong type or out of range.
    """
    parser = build_parser(kind, prog, defaults)
    words = _files_first(sys.argv[1:] if argv is None else argv)
    for flag, file in pairwise(words):
        if flag == "--config":
            _require_mapping(Path(file), kind)
    try:
        arguments = parser.parse_args(words).as_dict()
    except UnicodeDecodeError as error:
        raise InputError(f"--config: the file is not YAML text: {error}") from error
    arguments.pop("config", None)
    for f in fields(kind):
        if f.type is dict and arguments.get(f.name):
            words = arguments[f.name].items()
            arguments[f.name] = {key: _parse_value(f"{flag_of(f.name)}.{key}", value) for key, value in words}
    config = kind(**arguments)
    check_types(config, prog)
    config.validate()
    return config


def build_parser(kind: type[Config], prog: str, defaults: dict | None = None):
    """The command-line parser of a config class, by jsonargparse: one flag per field, and ``--config FILE``."""
    from jsonargparse import ArgumentParser

    class OneLineParser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> None:
            message = re.sub(r"<class '(\w+)'>", r"\1", " ".join(message.split()))
            message = re.sub(r'Parser key "(\w+)"', lambda found: flag_of(found[1]), message)
            unknown = re.match(r"(?:unrecognized arguments: --|Option ')([\w-]+)", message)
            near = get_close_matches(flag_of(unknown[1]), self._option_string_actions, 1, 0.75) if unknown else []
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{message}{hint}; see {prog} --help") from ex

    parser = OneLineParser(prog=prog, description=kind.__doc__, default_env=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    for f in sorted(fields(kind), key=lambda f: f.name not in kind.__annotations__):  # inherited flags come last
        default = f.default if f.default is not MISSING else f.default_factory()
        _add_flag(parser, f, (defaults or {}).get(f.name, default))
    return parser


def _add_flag(parser: Any, f: Any, default: Any) -> None:
    flag = flag_of(f.name)
    extra = {key: value for key, value in f.metadata.items() if key not in ("help", "lone")}
    if f.type in (bool, "bool"):
        parser.add_argument(flag, action="store_true", default=default, help=f.metadata["help"])
        return
    if "nargs" in extra:
        element = {list[float]: float, list[str]: str}.get(f.type, str)
        extra.setdefault("type", element)
    parser.add_argument(flag, default=default, help=f.metadata["help"], **{"type": f.type, **extra})


def _require_mapping(path: Path, kind: type) -> None:
    """InputError for a file that is no mapping of options, or gives one value where several belong."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # jsonargparse has a line for each of these
    if not isinstance(values, dict):
        raise InputError(f"--config {path}: expected options, one 'name: value' a line, got {values!r:.60}")
    for f in fields(kind):
        value = values.get(f.name)
        if "nargs" in f.metadata and value is not None and not isinstance(value, list):
            raise InputError(f"--config {path}: {flag_of(f.name)} must be a list, got {value!r}")


def _files_first(argv: list[str]) -> list[str]:
    """``--config FILE`` before all flags: of a flag and a file, jsonargparse believes what comes last."""
    files: list[str] = []
    flags: list[str] = []
    words: Iterator[str] = iter(argv)
    for word in words:
        if word == "--config":
            files += [word, *islice(words, 1)]
        else:
            (files if word.startswith("--config=") else flags).append(word)
    return files + flags


def _parse_value(name: str, value: Any) -> Any:
    """``--FLAG.NAME VALUE`` arrives as a string; read it as YAML would."""
    if not isinstance(value, str):
        return value
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"{name} cannot be read as YAML: {value}") from error
    with suppress(ValueError, TypeError):
        return float(read) if isinstance(read, str) else read  # 1e-3 without a point is text to YAML 1.1
    return read
