"""Find the sentences in the source of the rules.

A sentence is a string, an f-string or a sum of them with a word of four letters. `{}` stands where a value is. A
sentence with a choice (`'s' if many else ''`, `"at most " * many`) is one sentence for each choice.
"""

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tcpwatch.model import rules

ROOT = Path(rules.__file__).parent
HOLE = "{}"
_WORD = re.compile(r"[A-Za-z]{4}")
_FILTER = re.compile(r"^(\{\} )?[a-z]+:\S")
_VALUES = {"plural", "plural_rate", "FindingSubject", "removeprefix"}
"""Functions whose strings are no sentences: nouns of a number, names."""
_NOT_SAID = {"not asked for", "switched off"}
"""Reasons why there is no trace, which `remarks` leaves out."""
_NO_RULES = {"registry", "verdict_kinds"}
"""Modules that say nothing."""


@functools.cache
def sentences(module: Path) -> tuple[str, ...]:
    """Return the sentences of one module, in the order of its source."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return tuple(dict.fromkeys(text for text in _texts(tree) if _is_sentence(text)))


@functools.cache
def modules() -> dict[str, Path]:
    """Return the modules that have sentences, by name."""
    found = {path.stem: path for path in sorted(ROOT.rglob("*.py")) if path.stem not in _NO_RULES}
    return {name: path for name, path in found.items() if sentences(path)}


def pattern(sentence: str) -> re.Pattern[str]:
    """Return what finds the sentence, with any values, in a text."""
    begin = r"(?<!\w)" if sentence[0].isalnum() else ""
    end = r"(?!\w)" if sentence[-1].isalnum() else ""
    return re.compile(begin + ".*?".join(map(re.escape, sentence.split(HOLE))) + end)


def _is_sentence(text: str) -> bool:
    return " " in text and text not in _NOT_SAID and bool(_WORD.search(text)) and not _FILTER.match(text)


def _texts(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Constant()):  # a docstring
            return
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in _VALUES:
            return
        case ast.expr() if choices := _choices(node):
            yield from choices
            nodes: list[ast.AST] = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
        case _:
            nodes = list(ast.iter_child_nodes(node))
    for each in nodes:
        yield from _texts(each)


def _choices(node: ast.AST) -> list[str]:
    """Return the texts that an expression can be, nothing if it is none of those that make texts."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(chosen) for chosen in itertools.product(*map(_choices, parts))]
        case ast.FormattedValue(value=value):
            return _choices(value) or [HOLE]
        case ast.IfExp(body=one, orelse=other) if _choices(one) or _choices(other):
            return [*(_choices(one) or [HOLE]), *(_choices(other) or [HOLE])]
        case ast.BinOp(left=left, op=ast.Mult(), right=right) if texts := _choices(left) or _choices(right):
            return [*texts, ""]
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _choices(left) or _choices(right):
            return [one + other for one in _choices(left) or [HOLE] for other in _choices(right) or [HOLE]]
    return []
