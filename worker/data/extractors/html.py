"""Web pages: the main text with its headings, without menus and footers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from worker.data.cleaning import decode, tidy
from worker.data.texts import ExtractedText, Section, SectionBuilder

_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_HEADING = re.compile(r"h([1-6])")
_NOT_TEXT = (
    *("script", "style", "noscript", "template", "head", "nav", "aside", "footer"),
    *("form", "button", "select", "svg", "iframe", "object"),
)
_INLINE = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em", "font", "hi", "i"),
        *("img", "ins", "kbd", "label", "lb", "mark", "q", "ref", "s", "samp", "small", "span", "strike", "strong"),
        *("sub", "sup", "time", "tt", "u", "var", "wbr"),
    )
)
_ITEMS = frozenset({"li", "item", "dt", "dd"})
_ROWS = frozenset({"tr", "row"})
_LISTS = frozenset({"ul", "ol", "dl", "list", "table"})


def extract_html(path: Path) -> ExtractedText:
    """What trafilatura takes for the main text; where it loses the headings or everything (short pages), the
    whole body without the parts that are never text."""
    data = path.read_bytes()
    declared = _CHARSET.search(data[:2048])
    page = _XML_DECLARATION.sub("", decode(data, declared[1].decode("ascii") if declared else None))
    if not page.strip():
        return ExtractedText()
    body = _body(page)
    main = _sections(_main(page))
    if main and (any(one.heading for one in main) or not body.xpath(".//h1|.//h2|.//h3|.//h4|.//h5|.//h6")):
        return ExtractedText(main)
    return ExtractedText(_sections(body))


def _main(page: str) -> Any:
    """The main text as trafilatura's tree, in which headings are `<head rend="h2">`; None where it finds none."""
    from trafilatura import bare_extraction

    found: Any = bare_extraction(page, include_comments=False, include_formatting=True, favor_recall=True)
    return None if found is None else found.body


def _body(page: str) -> Any:
    """The page as lxml's tree without what is never text."""
    import lxml.etree  # has no stubs
    import lxml.html

    root = lxml.html.document_fromstring(page)
    lxml.etree.strip_elements(root, lxml.etree.Comment, *_NOT_TEXT, with_tail=False)
    return root


def _sections(root: Any) -> tuple[Section, ...]:
    builder = SectionBuilder()
    if root is not None:
        _walk(root, builder)
    return builder.sections()


def _walk(node: Any, builder: SectionBuilder) -> None:
    """Adds the blocks in and below `node` in their order (libxml2 lets pages nest 256 deep, so recursion is safe)."""
    if node.tag in _ROWS:
        builder.line(" | ".join(text for text in (_text(cell) for cell in node) if text))
        return
    loose = [_spaced(node.text)]
    for child in node:
        if not isinstance(child.tag, str):
            loose.append(_spaced(child.tail))
        elif child.tag in _INLINE:
            loose += [_inline(child), _spaced(child.tail)]
        else:
            _add(builder, node, "".join(loose))
            _walk(child, builder)
            loose = [_spaced(child.tail)]
    _add(builder, node, "".join(loose))
    if node.tag in _LISTS:
        builder.end_list()


def _add(builder: SectionBuilder, node: Any, text: str) -> None:
    """Adds the text that stands directly in `node`, as what the node makes of it."""
    level = _HEADING.fullmatch(node.get("rend", "h2") if node.tag == "head" else node.tag)
    text = tidy(text).strip()
    if level:
        builder.heading(int(level[1]), text)
    elif node.tag in _ITEMS:
        builder.line(f"- {text}" if text else "")
    else:
        builder.paragraph(text)


def _text(node: Any) -> str:
    return " ".join("".join(node.itertext()).split())


def _inline(node: Any) -> str:
    if node.tag in ("br", "lb"):
        return "\n"
    inner = (_inline(child) + _spaced(child.tail) for child in node if isinstance(child.tag, str))
    return _spaced(node.text) + "".join(inner)


def _spaced(text: str | None) -> str:
    """Line ends within a paragraph are spaces; only `<br>` breaks a line."""
    return re.sub(r"\s+", " ", text or "")
