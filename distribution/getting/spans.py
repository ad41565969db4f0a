"""Arithmetic of spans: sorted lists of (start, end), end excluded, that do not touch."""

from __future__ import annotations

from collections.abc import Iterable

Spans = list[tuple[int, int]]


def size_of(spans: Spans) -> int:
    """Return how many bytes spans cover."""
    return sum(end - start for start, end in spans)


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """Return spans that may overlap or touch as a sorted list that does not."""
    found: Spans = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def both(first: Spans, second: Spans) -> Spans:
    """Return what lies in both."""
    found: Spans = []
    a = b = 0
    while a < len(first) and b < len(second):
        start = max(first[a][0], second[b][0])
        end = min(first[a][1], second[b][1])
        if start < end:
            found.append((start, end))
        if first[a][1] < second[b][1]:
            a += 1
        else:
            b += 1
    return found


def without(first: Spans, second: Spans) -> Spans:
    """Return what lies in the first and not in the second."""
    found: Spans = []
    b = 0
    for start, end in first:
        while b < len(second) and second[b][1] <= start:
            b += 1
        at, c = start, b
        while c < len(second) and second[c][0] < end:
            if at < second[c][0]:
                found.append((at, second[c][0]))
            at = max(at, second[c][1])
            c += 1
        if at < end:
            found.append((at, end))
    return found
