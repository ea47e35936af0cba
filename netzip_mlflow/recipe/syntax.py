"""A recipe's YAML: plain values, bounded in size and depth, each fault one line.

Of YAML's tags those of plain values are read, and nothing is built but texts, numbers, booleans,
lists and mappings of texts; dates stay texts. A bound stands on what aliases expand to: a few
hundred bytes of them can stand for more than any memory holds.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

__all__ = ["DEPTH", "LIMIT", "NO_TEXT", "Dumper", "Unreadable", "parse"]

LIMIT = 2**20  # bytes of a file
VOLUME = 100_000  # characters of all values and keys, and one for each, aliases expanded
DEPTH = 40  # of values within values
DIGITS = 250  # of a number, in whatever base: a float holds it

NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no file's name and no database takes
_TAG = "tag:yaml.org,2002:"


class Unreadable(ValueError):
    """Why a text cannot be read, in one line."""


def parse(text: str | bytes) -> Any:
    """The one document of a text (or of UTF-8) as plain values, none of them shared.

    Raises:
        Unreadable: the text is not YAML, holds what a recipe cannot, or more than a bound allows.
    """
    if len(text) > LIMIT:
        raise Unreadable(f"is larger than {LIMIT:,} bytes")
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        return _unshared(yaml.load(text, Loader=_Loader))  # noqa: S506 (a SafeLoader)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not text in UTF-8: {error.reason} at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise Unreadable(f"is not valid YAML: {_said(error)}") from None


def _said(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the lines that PyYAML shows of the text."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).partition("\n")[0].split())
    parts = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    return f"{parts} (line {mark.line + 1}, column {mark.column + 1})" if mark else parts


def _unshared(value: Any) -> Any:
    """A copy in which two aliases are two values: a change to one leaves the other."""
    if isinstance(value, dict):
        return {key: _unshared(part) for key, part in value.items()}
    return [_unshared(part) for part in value] if isinstance(value, list) else value


def _refused(place: yaml.Node | yaml.Event, reason: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=place.start_mark)


def _check(volume: int, depth: int, place: yaml.Event) -> None:
    if depth > DEPTH:
        raise _refused(place, f"nested over {DEPTH} deep")
    if volume > VOLUME:
        raise _refused(place, f"over {VOLUME:,} characters, aliases expanded")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e-3 as a number."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._read = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}  # volume and depth of complete nodes

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        start = self.peek_event()
        self._depth += 1
        self._read += 1 + len(getattr(start, "value", ""))
        _check(self._read, self._depth, start)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or node in self._extents:
            return node
        if isinstance(start, yaml.AliasEvent):
            raise _refused(start, "an alias that contains itself")
        if isinstance(node, yaml.MappingNode):
            self._name_keys(node)
        parts = [self._extents[part] for part in _parts(node)]
        text = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        extent = 1 + text + sum(v for v, _ in parts), 1 + max((d for _, d in parts), default=0)
        _check(*extent, start)
        self._extents[node] = extent
        return node

    def _name_keys(self, node: yaml.MappingNode) -> None:
        """Every key is the text that stands there: `1` and `"1"` are one key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused(key, "a key must be a text")
            if key.tag == f"{_TAG}merge":
                continue
            if key.value in seen:
                raise _refused(key, f"key {key.value!r} is given twice")
            seen.add(key.value)
            key.tag = f"{_TAG}str"

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > DIGITS + 1:
            raise _refused(node, f"a number of over {DIGITS} digits")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError):
            kind = node.tag.removeprefix(_TAG)
            raise _refused(node, f"{str(node.value)[:100]!r} is not {kind}") from None
        if isinstance(value, str) and NO_TEXT.search(value):
            raise _refused(node, "a text with a zero byte, or half of a surrogate pair")
        if isinstance(value, int) and abs(value) >= 10**DIGITS:  # it is written in another base
            raise _refused(node, f"a number of over {DIGITS} digits")
        if isinstance(value, float) and math.isinf(value) and "inf" not in node.value.lower():
            raise _refused(node, f"{node.value[:100]!r} is larger than any number")
        return value


class Dumper(yaml.SafeDumper):
    """Safe YAML that quotes the texts which `parse` would read as numbers."""


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in _PLAIN
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, text) for tag, text in kinds if tag.removeprefix(_TAG) in (*_PLAIN, "merge")]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind in (_Loader, Dumper):
    _kind.add_implicit_resolver(
        f"{_TAG}float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )
