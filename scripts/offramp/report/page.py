"""The summary as one page that carries its figures with it: to open, to print, to mail."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARTS = Path(__file__).parent / "page"
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
NUMBER = re.compile(r"[-+]?\d[\d,.]*(%|x| [^\d\[(]+)?( [\[(].*)?")
NO_NUMBER = ("", "all", "nobody", "none", "off")
INTERVAL = re.compile(r"\[[-+]?[\d.]+, [-+]?[\d.]+\]")


def as_page(markdown: str, folder: Path, links: Mapping[str, str]) -> str:
    """HTML of a Markdown page with a first heading and sections below it; pictures, whose paths are
    relative to ``folder``, lie inside. ``links`` are further pages by what they are called."""
    first, *others = re.split(r"^## ", markdown, flags=re.MULTILINE)
    title = first.splitlines()[0].lstrip("# ")
    sections = [f'<section class="answer">\n{_render(first, folder)}</section>']
    entries = [f'<a href="{html.escape(to)}">{html.escape(what)}</a>' for what, to in links.items()]
    for part in others:
        heading = part.splitlines()[0]
        anchor = re.sub(r"\W+", "-", heading.lower()).strip("-")
        entries.append(f'<a href="#{anchor}">{html.escape(heading.split(":")[0])}</a>')
        sections.append(f'<section id="{anchor}">\n{_render("## " + part, folder)}</section>')
    return Template((PARTS / "page.html").read_text()).substitute(
        title=html.escape(title),
        style=(PARTS / "page.css").read_text(),
        script=(PARTS / "sort.js").read_text(),
        contents="\n".join(entries),
        body="\n".join(sections),
    )


def _render(markdown: str, folder: Path) -> str:
    # Without raw HTML: a model's or a class's name is text.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for place, token in enumerate(tokens):
        if token.type == "inline":
            _mark(tokens[place - 1], token, folder)
        elif token.type == "table_open":
            _align(tokens[place : _end(tokens, place)])
    text = parser.renderer.render(tokens, parser.options, {})
    text = text.replace("<table>", '<div class="table">\n<table>')
    text = text.replace("</table>", "</table>\n</div>")
    return INTERVAL.sub(lambda found: f'<span class="interval">{found[0]}</span>', text)


def _mark(before: Token, inline: Token, folder: Path) -> None:
    """Say of a paragraph, opened by ``before``, what it holds, and take pictures in."""
    pictures = [token for token in inline.children or [] if token.type == "image"]
    for picture in pictures:
        picture.attrSet("src", _data_uri(folder / str(picture.attrGet("src"))))
    if pictures:
        before.attrSet("class", "figure")
    elif inline.content.startswith("**Warning"):
        before.attrSet("class", "warning")


def _end(tokens: Sequence[Token], place: int) -> int:
    return next(i for i in range(place, len(tokens)) if tokens[i].type == "table_close")


def _align(table: Sequence[Token]) -> None:
    """Say of a column of numbers that it is one."""
    cells = [
        (token, table[i + 1].content)
        for i, token in enumerate(table)
        if token.type in ("th_open", "td_open")
    ]
    width = sum(token.type == "th_open" for token, _ in cells)
    for column in range(width):
        _, *values = (content for _, content in cells[column::width])
        if all(NUMBER.fullmatch(value) or value in NO_NUMBER for value in values) and any(values):
            for token, _ in cells[column::width]:
                token.attrSet("class", "number")


def _data_uri(path: Path) -> str:
    coded = base64.b64encode(path.read_bytes()).decode()
    return f"data:{KINDS[path.suffix]};base64,{coded}"
