"""Docstrings as the site shows them: equations become MathML, roles become links; an extension of griffe."""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

DISPLAYED = re.compile(r"^(?P<indent> *)\.\. math::(?P<first>[^\n]*)\n(?P<rest>(?:(?P=indent) +[^\n]*\n|\s*\n)*)", re.M)
INLINE = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":(?:func|class|meth|attr|data|mod):`([~!]?)([^`]+)`")
EXAMPLE = re.compile(r"^(?P<indent> *)>>> [^\n]*\n(?:(?P=indent)\S[^\n]*\n)*", re.M)
TABLE = re.compile(r"^(?P<indent> *)=+(?: +=+)+\n(?:[^\n]*\n)*?(?P=indent)=+(?: +=+)+\n(?=\s*(?:\n|$))", re.M)
BEFORE_CODE = re.compile(r"::$", re.M)


def as_markdown(text: str, scope: griffe.Object | griffe.Alias) -> str:
    """A docstring's reStructuredText as Markdown: equations, examples, tables, links to what the site has."""

    def displayed(match: re.Match[str]) -> str:
        formula = " ".join(textwrap.dedent(f"{match['first'].strip()}\n{match['rest']}").split())
        return f"{match['indent']}{as_mathml(formula, display='block')}\n\n"

    def linked(match: re.Match[str]) -> str:
        tilde, name = match.groups()
        shown = name.rsplit(".", 1)[-1] if tilde == "~" else name.removeprefix("segloss.")
        path = _path_of(name, scope)
        # Optional: what is public but on no page stays a name.
        return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>' if path else f"`{shown}`"

    def fenced(match: re.Match[str]) -> str:
        kind = "pycon" if ">>>" in match[0] else "text"
        return f"{match['indent']}```{kind}\n{match[0]}{match['indent']}```\n"

    text = TABLE.sub(fenced, EXAMPLE.sub(fenced, DISPLAYED.sub(displayed, f"{text}\n")))
    text = INLINE.sub(lambda match: as_mathml(match[1]), text)
    return BEFORE_CODE.sub(":", ROLE.sub(linked, text)).rstrip()


def as_mathml(formula: str, display: str = "inline") -> str:
    """An equation for browsers, which need nothing else to draw it."""
    return convert(formula.replace("\\arg", "\\operatorname{arg}"), display=display)


def _path_of(name: str, scope: griffe.Object | griffe.Alias) -> str | None:
    """Where a name of a docstring leads to, if it is public and of ours."""
    try:
        path = name if name.startswith("segloss.") else scope.resolve(name)
        found = scope.modules_collection[path]
        path = found.canonical_path
    except (KeyError, griffe.NameResolutionError, griffe.AliasResolutionError):
        return None
    return path if path.startswith("segloss.") and not path.rsplit(".", 1)[-1].startswith("_") else None


class Docstrings(griffe.Extension):
    """Turns each docstring once its package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._walk(pkg)

    def _walk(self, scope: griffe.Object) -> None:
        if scope.docstring is not None:
            scope.docstring.value = as_markdown(scope.docstring.value, scope)
        for member in scope.members.values():
            if not member.is_alias:
                self._walk(member)  # type: ignore[arg-type]
