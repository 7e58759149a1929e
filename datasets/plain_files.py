"""YAML and JSON that say each thing once: what people write about a data set."""

import json
from typing import Any

import yaml

DEEPEST = 20  # levels of a file that people write


class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses what no such file needs: many levels, aliases of what holds aliases, and a key twice."""

    deep = aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        self.deep += 1
        if self.deep > DEEPEST:
            raise yaml.YAMLError(f"has more than {DEEPEST} levels")
        before = self.aliases
        node = super().compose_node(parent, index)
        self.deep -= 1
        if is_alias:
            self.aliases += 1
            if id(node) in self.holders:
                raise yaml.YAMLError("has aliases of aliases")
        elif self.aliases > before:
            self.holders.add(id(node))
        return node

    def __init__(self, stream: Any):
        super().__init__(stream)
        self.holders: set[int] = set()  # nodes, which live as long as the loader, with an alias in them

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"has the key {twice!r} twice")
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """As ``yaml.safe_load``; YAMLError for :class:`PlainLoader`'s reasons too."""
    return yaml.load(text, PlainLoader)


def read_json(text: str) -> Any:
    """As ``json.loads``; ValueError for a key twice."""
    return json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"has the key {twice!r} twice")
    return dict(pairs)
