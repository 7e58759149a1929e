"""What the site has beside the files of docs/, and its links that lead out of docs/: a hook of mkdocs.

Made while it is built: ``reference/MODULE.md`` for each that the navigation names; the notebook as a page; the
contributor's page and the changes, which stand at the top of the repository. Links are written for GitHub, so those to
what the site has elsewhere are turned there, and those to sources lose their link unless ``repo_url`` is set.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("doctor", "frequency", "plan", "rasterise", "export", "demo")
# Files of the repository -> their pages.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/quickstart.ipynb": "quickstart.md",
}
COMMANDS = ("train_seg.py", "eval_seg.py", *(f"-m segloss.{name}" for name in TOOLS))
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", flags=re.DOTALL | re.MULTILINE)
log = get_plugin_logger("pages")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that are made."""
    for page in _named(config.nav):
        if page.startswith("reference/"):
            made = commands() if page == "reference/commands.md" else reference(page)
            files.append(File.generated(config, page, content=made))
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            files.append(File.generated(config, page, content=notebook_as_markdown(text)))
        elif page not in files.src_uris:
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the site, and code in tables as GitHub shows it."""
    sources = {page: source for source, page in ELSEWHERE.items()}
    source = f"docs/{page.file.src_uri}" if page.file.src_uri == "index.md" else sources.get(page.file.src_uri)
    at = Path(source or f"docs/{page.file.src_uri}").parent

    def turned(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups()
        path = os.path.normpath(at / target).replace(os.sep, "/")
        if not (ROOT / path).exists():
            log.warning(f"{page.file.src_uri}: there is no {path}")
        here = ELSEWHERE.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(here) is not None and (path in ELSEWHERE or path.startswith("docs/")):
            relative = os.path.relpath(here, Path(page.file.src_uri).parent).replace(os.sep, "/")
            return f"{picture}[{text}]({relative}{anchor or ''})"
        if config.repo_url:
            return f"{picture}[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor or ''})"
        return text

    parts = CODE.split(markdown)
    text = "".join(part if part.startswith("`") else LINK.sub(turned, part) for part in parts)
    return re.sub(r"^\|.*\|$", _pipes_in_code, text, flags=re.MULTILINE)


def reference(page: str) -> str:
    """The page of a module: its docstring and its public members; of the package, where these are documented."""
    module = page.removeprefix("reference/").removesuffix(".md")
    text = f"---\ntitle: {module}\n---\n\n::: {module}\n"
    if module != "segloss":
        return text
    package = griffe.load("segloss", search_paths=[ROOT])
    paths = {name: package[name].canonical_path for name in sorted(package.exports or ())}
    links = [f'- <autoref identifier="{path}" optional><code>{name}</code></autoref>' for name, path in paths.items()]
    return f"{text}    options: {{members: false}}\n\nIts names:\n\n" + "\n".join(links) + "\n"


def commands() -> str:
    """What each command says of itself."""
    width = {**os.environ, "COLUMNS": "82", "PYTHONPATH": str(ROOT)}

    def section(command: str) -> str:
        asked = [sys.executable, *command.split(), "--help"]
        text = subprocess.run(asked, cwd=ROOT, env=width, capture_output=True, text=True, check=True).stdout
        return f"## python {command}\n\n```text\n{text.rstrip()}\n```\n"

    with ThreadPoolExecutor(2) as pool:
        return "# Commands\n\n" + "\n".join(pool.map(section, COMMANDS))


def notebook_as_markdown(text: str) -> str:
    """Cells one after another; of the outputs what is text or a picture."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", ())})
            if "image/png" in data:
                parts.append(f"![output](data:image/png;base64,{''.join(data['image/png']).replace(chr(10), '')})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _named(nav: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(entry)


def _pipes_in_code(row: re.Match[str]) -> str:
    """GitHub takes the backslash off a bar in code; Python's tables need none there."""
    return re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), row[0])
