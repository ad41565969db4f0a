"""Filters joined by ``and``, ``or``, ``minus``, ``then`` and ``not``, in groups within groups.

As words, ``basic_filter and not ( language:language=de or exact_dedup )``: within one pair of
parentheses all filters are joined by the same word, so that no rule of precedence need be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..errors import UsageError, suggest
from .blaming import all_of, blaming
from .contract import Filter, Scorer
from .sets import SetScorer
from .spec import NOT, FilterSpec, parse

COMBINE = ("and", "or", "then", "minus")
"""How filters join: the words are the names."""

MOST_DEEP = 16
"""How many groups may stand within each other."""


@dataclass(frozen=True)
class FilterGroup:
    """Filters that are joined into one; a ``negated`` group keeps what it would have dropped."""

    filters: tuple[FilterSpec | FilterGroup, ...]
    combine: str = "and"
    negated: bool = False

    @property
    def use(self) -> str:
        """Return what stands for the group's name in complaints: its text form."""
        return self.label()

    def label(self) -> str:
        """Return the text form, in parentheses; ``not`` before it for a negated group."""
        text = f"({f' {self.combine} '.join(member.label() for member in self.filters)})"
        return f"{NOT} {text}" if self.negated else text

    def leaves(self) -> Iterator[FilterSpec]:
        """Yield the filters, those of groups within too, in order."""
        return leaves_of(self.filters)

    def map(self, change: Callable[[FilterSpec], FilterSpec]) -> FilterGroup:
        """Return the group with each filter changed, those of groups within too."""
        changed = (m.map(change) if isinstance(m, FilterGroup) else change(m) for m in self.filters)
        return replace(self, filters=tuple(changed))


Node = FilterSpec | FilterGroup
"""One filter, or several joined."""


def leaves_of(nodes: Sequence[Node]) -> Iterator[FilterSpec]:
    """Yield the filters of nodes, those of groups too, in order."""
    for node in nodes:
        if isinstance(node, FilterGroup):
            yield from node.leaves()
        else:
            yield node


# -- words -----------------------------------------------------------------------------------


def parse_all(words: Sequence[str], combine: str | None = None) -> FilterGroup:
    """Read filters and the words that join them; without any, ``combine`` or else ``and`` does.

    Raises UsageError where it is not clear what is meant.
    """
    if combine is not None:
        check_combine(combine)
    reader = _Words(list(words))
    group = reader.group(0, combine)
    if reader.left:
        raise UsageError("')' closes what no '(' opens")
    return group


class _Words:
    """Words that are read from the first to the last."""

    def __init__(self, words: list[str]) -> None:
        self.left = words

    def group(self, depth: int, combine: str | None) -> FilterGroup:
        """Read filters until a parenthesis closes or the words end."""
        check_depth(depth)
        members: list[Node] = []
        joined = combine
        while self.left and self.left[0] != ")":
            if members:
                word = self.left.pop(0) if self.left[0] in COMBINE else None
                joined = self._same(joined, word)
            members.append(self._member(depth))
        if not members:
            where = "between '(' and ')'" if depth else "given; 'no_filter' keeps everything"
            raise UsageError(f"no filter {where}")
        return FilterGroup(tuple(members), joined or COMBINE[0])

    def _same(self, joined: str | None, word: str | None) -> str:
        """Return what joins the group; raise UsageError if a word says otherwise."""
        if word is None:
            return joined or COMBINE[0]
        if joined not in (None, word):
            raise UsageError(
                f"{word!r} joins filters where {joined!r} does already; put some of them in "
                "'(' and ')'"
            )
        return word

    def _member(self, depth: int) -> Node:
        negated = False
        word = self._next()
        while word == NOT:
            negated, word = not negated, self._next(NOT)
        if word in COMBINE:
            raise UsageError(f"{word!r} joins filters, but none comes before it")
        if word == "(":
            member: Node = self.group(depth + 1, None)
            if not self.left:
                raise UsageError("'(' opens what no ')' closes")
            self.left.pop(0)
            if len(member.filters) == 1:
                member = member.filters[0]
        else:
            member = parse(word)
        return replace(member, negated=member.negated != negated)

    def _next(self, before: str | None = None) -> str:
        if self.left and (self.left[0] != ")"):
            return self.left.pop(0)
        if before is not None:
            raise UsageError(f"{before!r} stands before a filter, but none comes after it")
        raise UsageError("a filter must come after the word that joins it")


# -- what is made of them --------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A filter that was made, or a group whose ``members`` are, in the order of judging."""

    node: Node
    made: Filter | None = None
    members: list[Prepared] = field(default_factory=list)

    def cost(self) -> int:
        """Return a rank of what scores cost: none, columns, features, images, whole sets."""
        if self.made is None:
            return max(member.cost() for member in self.members)
        with blaming(self.node, self.made):
            scorers = all_of(Scorer, self.made.scorers())
        ranks = [
            4 if isinstance(s, SetScorer) else 3 if s.images else 2 if s.features else 1
            for s in scorers
        ]
        return max(ranks, default=0)


def filters_of(prepared: Iterable[Prepared]) -> Iterator[tuple[FilterSpec, Filter]]:
    """Yield the filters that were made, those of groups too, in the order of judging."""
    for one in prepared:
        if one.made is not None:
            assert isinstance(one.node, FilterSpec)
            yield one.node, one.made
        yield from filters_of(one.members)


def every_scorer(node: Node, made: Filter) -> Iterator[Scorer]:
    """Yield a filter's scorers, and those whose values these take."""
    with blaming(node, made):
        waiting = all_of(Scorer, made.scorers())
    while waiting:
        scorer = waiting.pop(0)
        yield scorer
        if isinstance(scorer, SetScorer):
            waiting += scorer.scores


def check_combine(combine: str) -> None:
    """Raise UsageError for a way to join filters that there is not."""
    if combine not in COMBINE:
        raise UsageError(
            f"combine is {combine!r}{suggest(combine, list(COMBINE))}; "
            f"expected one of: {', '.join(COMBINE)}"
        )


def check_depth(depth: int) -> None:
    """Raise UsageError for more groups within each other than one can mean."""
    if depth > MOST_DEEP:
        raise UsageError(f"more than {MOST_DEEP} groups of filters stand within each other")


def prepare(nodes: Sequence[Node], combine: str, depth: int = 0) -> list[Prepared]:
    """Make the filters, cheap ones before dear ones unless they are joined by ``then``.

    Of ``minus``, all but the first are negated: the rest is as with ``and``.
    """
    check_combine(combine)
    check_depth(depth)
    if not nodes:
        raise UsageError("no filter given; 'no_filter' keeps everything")
    if combine == "minus":
        nodes = [nodes[0], *(replace(node, negated=not node.negated) for node in nodes[1:])]
    prepared = [
        Prepared(node, members=prepare(node.filters, node.combine, depth + 1))
        if isinstance(node, FilterGroup)
        else Prepared(node, node.make())
        for node in nodes
    ]
    if combine != "then":
        prepared.sort(key=Prepared.cost)
    return prepared
