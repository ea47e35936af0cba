"""HTML that is escaped by construction: every text that is not `Markup` is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = [
    "NOTHING",
    "Child",
    "Markup",
    "badge",
    "clip",
    "listed",
    "pairs",
    "sentence",
    "tag",
    "tags",
]

_VOID = {"br", "hr"}
_GRADES = {"good", "mixed", "poor", "failed"}


class Markup(str):
    """Text that already is HTML."""

    __slots__ = ()


Child = str | Markup
NOTHING = Markup("")


def tag(name: str, *children: Child | Iterable[Child], **attributes: str) -> Markup:
    """One element. A trailing underscore of an attribute is dropped, others become hyphens.

    >>> tag("p", "1 < 2", tag("b", "!"), class_="note")
    '<p class="note">1 &lt; 2<b>!</b></p>'
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{tags(*children)}</{name}>")


def tags(*children: Child | Iterable[Child]) -> Markup:
    """Several elements and texts, one after the other."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(child if isinstance(child, Markup) else html.escape(child))
        else:
            parts.append(tags(*child))
    return Markup("".join(parts))


def badge(grade: str) -> Markup:
    """A verdict as a coloured word; nothing for an empty one."""
    known = grade if grade in _GRADES else ""
    return tags(" ", tag("span", grade, class_=f"badge {known}".strip())) if grade else NOTHING


def pairs(items: Iterable[tuple[str, str]]) -> Markup:
    """A list of labels and values."""
    return tag("dl", [tags(tag("dt", label), tag("dd", clip(value))) for label, value in items])


def clip(words: str, most: int = 300) -> str:
    """Words cut to `most` characters: a page has no room for a whole traceback.

    >>> clip("a long tale", 7)
    'a long…'
    """
    return words if len(words) <= most else f"{words[: most - 1].rstrip()}…"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names in a sentence, the first of them where they are many.

    >>> listed(["a", "b"]), listed(["a", "b", "c"], 1)
    ('a, b', 'a and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def sentence(words: str) -> str:
    """Words with a capital at the start and a full stop at the end."""
    return f"{words[:1].upper()}{words[1:]}."
