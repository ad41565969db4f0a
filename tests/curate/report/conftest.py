import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.pools import Pool
from datacomp.pools.sources.base import Record, RecordSource
from datacomp.pools.uids import from_hex, save_subset, uid_of_bytes
from PIL import Image

VOID = {"br", "col", "hr", "img", "link", "meta", "wbr"}
HOSTILE = '<script>alert(1)</script> & "quoted" \u202e\x00\''


@dataclass
class Node:
    """An element of a parsed page."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def walk(self) -> Iterator["Node"]:
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()

    def all(self, tag: str, class_: str | None = None, **attributes: str) -> list["Node"]:
        return [
            node
            for node in self.walk()
            if node.tag == tag
            and (class_ is None or class_ in (node.attributes.get("class") or "").split())
            and all(node.attributes.get(k) == v for k, v in attributes.items())
        ]

    def one(self, tag: str, class_: str | None = None, **attributes: str) -> "Node":
        found = self.all(tag, class_, **attributes)
        assert len(found) == 1, f"{len(found)} of <{tag}> {class_} {attributes}"
        return found[0]


class TreeBuilder(HTMLParser):
    """Builds the tree and fails on a tag that is not closed where it should be."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("root")]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse_html(text: str) -> Node:
    builder = TreeBuilder()
    builder.feed(text)
    builder.close()
    assert len(builder.open) == 1, f"<{builder.open[-1].tag}> is never closed"
    return builder.open[0]


@pytest.fixture
def parse() -> Callable[[str], Node]:
    return parse_html


@dataclass(frozen=True)
class Bytes(RecordSource):
    """Samples that lie one after another in one file."""

    kind = "bytes"
    samples: tuple[tuple[bytes | None, str, str | None], ...] = ()

    def option_names(self):
        return []

    def records(self):
        offset = 0
        for image, caption, truth in self.samples:
            extra = {} if truth is None else {"truth": truth}
            if image is None:
                uid = uid_of_bytes(b"", caption.encode())
                yield Record(uid, None, caption, None, None, None, extra=extra)
                continue
            width, height = size_of(image)
            uid = uid_of_bytes(image, caption.encode())
            yield Record(
                uid, None, caption, width, height, None, self.path.name, offset, len(image), extra
            )
            offset += len(image)


def size_of(image: bytes) -> tuple[int | None, int | None]:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return opened.size
    except OSError:
        return None, None


def picture(width: int, height: int, seed: int = 0, kind: str = "PNG") -> bytes:
    noise = random.Random(seed)
    image = Image.new("RGB", (width, height), (noise.randrange(256), 90, 200))
    image.putpixel((0, 0), (255, 255, noise.randrange(256)))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def make_pool(folder: Path, samples: list[tuple[bytes | None, str, str | None]]) -> Pool:
    file = folder / "samples.bin"
    file.write_bytes(b"".join(image for image, _, _ in samples if image is not None))
    pool = Pool.create(folder / "pool.duckdb")
    pool.add(Bytes(file, tuple(samples)))
    return pool


@pytest.fixture
def samples() -> list[tuple[bytes | None, str, str | None]]:
    made: list[tuple[bytes | None, str, str | None]] = [
        (picture(40 + i, 30, i), f"caption number {i}", "clean" if i % 2 else "mismatched")
        for i in range(40)
    ]
    made.append((picture(400, 100, 50, "JPEG"), "a wide one", "clean"))
    made.append((b"not an image at all", "broken", "clean"))
    made.append((picture(64, 64, 51)[:-30], "truncated", "clean"))
    made.append((None, "no bytes", "clean"))
    made.append((picture(20, 20, 52), HOSTILE, "mismatched"))
    return made


@pytest.fixture
def pool(tmp_path: Path, samples) -> Iterator[Pool]:
    with make_pool(tmp_path, samples) as made:
        yield made


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., tuple[str, Path, Path]]:
    """Write a subset and its reasons as the filters do."""

    def write(name: str, kept: list[str], dropped: list[tuple[str, str, str]]):
        subset, reasons = tmp_path / f"{name}.npy", tmp_path / f"{name}.parquet"
        save_subset(subset, from_hex(kept))
        columns = zip(*dropped, strict=True) if dropped else ([], [], [])
        arrays = [pa.array(list(column), pa.string()) for column in columns]
        pq.write_table(pa.table(arrays, names=["uid", "filter", "reason"]), reasons)
        return name, subset, reasons

    return write


def score(values: list[float]) -> dict[str, Any]:
    import statistics

    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "spread": spread, "values": values}


def results_of(
    names: list[str], tasks: int = 2, seeds: int = 2, groups: int = 1, truth: bool = True
) -> dict[str, Any]:
    """Results whose first dataset is the best; no two are tied."""
    rows = []
    listed = [
        {
            "key": f"t{i}", "name": f"Task {i}", "main_metric": "acc1",
            "chance": 0.1 if i % 2 == 0 else None, "near_chance": i % 3 == 2,
            "group": f"group {i * groups // tasks}", "best": names[:1] if len(names) > 1 else [],
        }
        for i in range(tasks)
    ]  # fmt: skip
    for number, name in enumerate(names):
        base = 0.9 - 0.03 * number
        values = [base + 0.002 * seed for seed in range(seeds)]
        size = 1000 - 40 * number
        rows.append(
            {
                "name": name, "filters": ["basic_filter:min_side=32", "exact_dedup"],
                "combine": "and", "size": size, "share": size / 1000,
                "funnel": [
                    {"filter": "basic_filter:min_side=32", "before": 1000, "after": size + 5,
                     "reasons": {"too_small": 995 - size} if size < 995 else {}},
                    {"filter": "exact_dedup", "before": size + 5, "after": size,
                     "reasons": {"duplicate": 5}},
                ],
                "precision": 0.5 + 0.01 * number if truth else None,
                "recall": 1.0 - 0.02 * number if truth else None,
                "kept_defects": {"clean": size - 100, "mismatched": 100} if truth else None,
                "scores": {task["key"]: score([v - 0.01 * i for v in values])
                           for i, task in enumerate(listed)},
                "average": score(values), "rank": number + 1, "tied_with": [],
                "seconds": {"scoring": 0.0, "filter": 1.0, "shards": 2.0, "train": 60.0 + number,
                            "evaluate": 4.0, "total": 67.0 + number},
                "used": {"runs": [], "seconds": 0.0},
            }
        )  # fmt: skip
    return {
        "format": "datacomp-results", "version": 1,
        "study": {
            "name": "A study", "datacomp": "0.1.0",
            "scale": {"name": "demo", "model": "tiny", "samples_seen": 122880, "batch_size": 256},
            "seeds": list(range(seeds)), "suite": "demo",
            "pool": {"samples": 1000, "digest": "ab" * 32, "set_aside": {"broken_image": 3},
                     "defects": {"clean": 600, "mismatched": 400} if truth else None},
        },
        "tasks": listed, "datasets": rows, "best": names[0],
        "verdict": f"Curation won: {names[0]} is ahead.",
    }  # fmt: skip


@pytest.fixture
def make_results() -> Callable[..., dict[str, Any]]:
    return results_of


@pytest.fixture
def hostile() -> str:
    return HOSTILE
