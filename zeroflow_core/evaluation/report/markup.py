"""HTML and SVG as values: what goes into a tag is escaped, unless it came out of one."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_WITHOUT_END = {"meta", "img", "br"}


class Markup(str):
    """Text that is HTML or SVG already."""


Content = str | None | Iterable["Content"]


def tag(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """``<name …>content</name>``.

    content:    text, which is escaped, Markup, which is not, None, which is nothing, or lists of these
    attributes: `class_` is written class and `stroke_width` stroke-width; None leaves one out
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_as_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    start = f"<{name}{written}>"
    return Markup(start if name in _WITHOUT_END else f"{start}{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    """All of it, one after the other; see `tag`."""
    return Markup("".join(_written(part) for part in content))


def _written(part: Content) -> str:
    if part is None:
        return ""
    if isinstance(part, Markup):
        return part
    return escape(part, quote=False) if isinstance(part, str) else join(*part)


def _as_text(value: str | float) -> str:
    """Numbers with as many digits as a picture needs."""
    return value if isinstance(value, str) else f"{round(float(value), 2):g}"
