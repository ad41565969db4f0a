"""Read a numpy array out of a pickle without unpickling: nothing that it names is called.

``torch.save`` writes a numpy array as a pickle, which ``torch.load(weights_only=True)`` refuses
in the protocol of DataComp's centroids. A pickle is a program of opcodes; the few that
describe an array are followed here on plain values, and everything else is an error.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPE = re.compile(r"f[248]")
_RECONSTRUCT = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")
}  # fmt: skip


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass
class _Call:
    """A call that the pickle wants, and the state that the result would be given."""

    function: _Name
    arguments: tuple[Any, ...]
    state: Any = None


class _Mark:
    """Where the values of a tuple begin."""


def holds_tensors(data: bytes) -> bool:
    """Tell whether a pickle of ``torch.save`` refers to tensors stored beside it."""
    try:
        return any(op.name in ("BINPERSID", "PERSID") for op, _, _ in pickletools.genops(data))
    except Exception as error:  # noqa: BLE001 - pickletools raises anything on damaged input
        raise ValueError(f"not a pickle: {error}") from None


def read_pickled_array(data: bytes) -> NDArray[np.floating[Any]]:
    """Return the array of floating-point numbers that a pickle consists of.

    Raises ValueError for any other pickle.
    """
    try:
        return _array(_follow(data))
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"not a pickled array: {error}") from None


def _follow(data: bytes) -> Any:
    """Return what the opcodes describe, in plain values, names and calls."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for op, argument, _ in pickletools.genops(data):
        name = op.name
        if name == "STOP":
            return stack.pop()
        if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _VALUES:
            stack.append(_VALUES[name](argument))
        elif name in _TUPLES:
            size = _TUPLES[name]
            stack[len(stack) - size :] = [tuple(stack[len(stack) - size :])]
        elif name == "TUPLE":
            first = max(n for n, value in enumerate(stack) if value is _Mark)
            stack[first:] = [tuple(stack[first + 1 :])]
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Name(*stack[-2:])]
        elif name == "REDUCE":
            stack[-2:] = [_Call(*stack[-2:])]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"not a pickled array: it has the opcode {name}")
    raise ValueError("not a pickled array: it has no end")


_VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE",
         "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        lambda argument: argument,
    ),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _Mark,
    "GLOBAL": lambda argument: _Name(*argument.split(" ")),
}  # fmt: skip
"""What an opcode puts on the stack."""

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _array(found: Any) -> NDArray[Any]:
    if not (isinstance(found, _Call) and found.function.pair in _RECONSTRUCT):
        raise ValueError("not a pickled array, but something else")
    _, shape, kind, fortran, data = found.state
    if kind.function.pair != ("numpy", "dtype") or not _TYPE.fullmatch(kind.arguments[0]):
        raise ValueError("not an array of floating-point numbers")
    if kind.state[1] not in ("<", "="):
        raise ValueError("not little-endian")
    if isinstance(data, _Call) and data.function.pair == ("_codecs", "encode"):
        text, encoding = data.arguments  # how protocol 2 keeps bytes
        data = text.encode("latin1") if encoding == "latin1" else None
    if not isinstance(data, bytes):
        raise ValueError("its numbers are not there")
    numbers = np.frombuffer(data, np.dtype(f"<{kind.arguments[0]}"))
    return numbers.reshape(shape, order="F" if fortran else "C")
