"""Hooks of MkDocs: pages that come from outside of docs/, and what Markdown writes differently.

README.md, CONTRIBUTING.md and CHANGELOG.md lie where people look for them on a code host; here they
become pages of the site, with their links rewritten. The diagram in lifecycle.md is drawn by the
code host; here the drawing of the same table takes its place, so that nothing has to be loaded from
elsewhere.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the top level, and the pages that they become."""

FIGURE = "[![the stages of a slot and every move between them](figures/lifecycle.svg)]" + (
    "(figures/lifecycle.svg)"
)
_LINK = re.compile(r"(\]\()([^)\s#]+)")
_MERMAID = re.compile(r"^```mermaid\n(?:.*\n)*?```$", re.MULTILINE)
_MARKED = re.compile(r"^```python continued$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """List every decision in the navigation, in the order of their numbers."""
    docs = Path(config.docs_dir)
    for entry in config.nav:
        for title, folder in entry.items():
            if isinstance(folder, str) and (docs / folder).is_dir():
                pages = sorted((docs / folder).glob("*.md"))
                entry[title] = [str(page.relative_to(docs)) for page in pages]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that come from the top level."""
    for source, page in PAGES.items():
        text = _LINK.sub(_inside, (ROOT / source).read_text())
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put the drawing in place of the diagram; point to pages instead of files above docs/."""
    folders = page.file.src_uri.count("/")
    for source, target in PAGES.items():
        markdown = markdown.replace(
            f"]({'../' * (folders + 1)}{source}", f"]({'../' * folders}{target}"
        )
    return _MARKED.sub("```python", _MERMAID.sub(FIGURE, markdown))


def _inside(link: re.Match[str]) -> str:
    """A link of a file of the top level, as a link of a page in docs/."""
    target = link[2]
    return link[1] + PAGES.get(target, target.removeprefix("docs/"))
