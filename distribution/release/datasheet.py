"""The datasheet of a version (Gebru et al., "Datasheets for Datasets", 2021), in Markdown.

Counts come from the shards and the pool. What only the keeper can answer is quoted, or said to
be unanswered: nothing is made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .about import QUESTIONS, About, Facts
from .manifest import Manifest

UNANSWERED = "*Not stated.*"


def datasheet(manifest: Manifest, about: About) -> str:
    """Return the text."""
    return "\n".join(_lines(manifest, about)) + "\n"


def _lines(manifest: Manifest, about: About) -> Iterator[str]:
    yield f"# {manifest.name} {manifest.version}"
    yield ""
    yield manifest.description or "A datasheet, made from what is known of the dataset."
    yield ""
    yield from _table(
        ("published", manifest.date),
        ("licence", manifest.licence or UNANSWERED),
        ("authors", ", ".join(manifest.authors) or UNANSWERED),
        ("page", manifest.url or UNANSWERED),
        ("samples", _number(manifest.counts["samples"])),
        ("files", f"{_number(manifest.counts['files'])} ({_bytes(manifest.counts['bytes'])})"),
        ("shards", _number(manifest.counts["shards"])),
    )
    yield from _answered("Motivation", "motivation", about)
    yield "## Composition"
    yield ""
    yield from _composition(about.facts)
    yield from _answered("Collection", "collection", about)
    yield from _origin(about.facts)
    yield "## Preprocessing and labelling"
    yield ""
    yield QUESTIONS["labeling"]
    yield ""
    yield about.answers.get("labeling", UNANSWERED)
    yield ""
    yield from _selection(about.facts)
    yield from _answered("Uses", "uses", about)
    yield from _scores(manifest)
    yield from _distribution(manifest)
    yield from _answered("Citation", "citation", about)
    yield from _answered("Maintenance", "maintenance", about)
    yield from _history(manifest)


def _answered(title: str, name: str, about: About) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield f"{QUESTIONS[name]}"
    yield ""
    yield about.answers.get(name, UNANSWERED)
    yield ""


def _composition(facts: Facts) -> Iterator[str]:
    if facts.samples is None:
        yield "The files hold no WebDataset shards, so their samples were not counted."
        yield ""
        return
    yield f"{_number(facts.samples)} samples, each an image with what belongs to it."
    yield ""
    if facts.members:
        yield "| file of a sample | how many |"
        yield "|---|---:|"
        for extension, count in sorted(facts.members.items()):
            yield f"| .{_cell(extension)} | {count:,} |"
        yield ""
    if facts.blurred is not None:
        yield f"Faces were blurred in {facts.blurred:,} images."
        yield ""
    if facts.missing:
        yield "Samples that were selected but are not in the shards:"
        yield ""
        for reason, count in sorted(facts.missing.items()):
            yield f"- {count:,}: {_cell(reason)}"
        yield ""


def _origin(facts: Facts) -> Iterator[str]:
    if facts.pool is None:
        return
    yield f"The samples were chosen from a pool of {_number(facts.pool['samples'])}:"
    yield ""
    yield "| source | samples | duplicates | set aside |"
    yield "|---|---:|---:|---:|"
    for source in facts.pool["sources"]:
        counts = [_number(source[name]) for name in ("samples", "duplicates", "set_aside")]
        yield f"| {_cell(source['kind'])} | {' | '.join(counts)} |"
    yield ""
    for entry in facts.pool["set_aside"]:
        yield f"- set aside: {entry['count']:,} {_cell(entry['reason'])}"
    if facts.pool["set_aside"]:
        yield ""
    yield f"Digest of the pool: `{facts.pool['digest']}`"
    yield ""


def _selection(facts: Facts) -> Iterator[str]:
    if not isinstance(facts.funnel, list) or not facts.funnel:
        return
    yield "How the samples were chosen, filter by filter:"
    yield ""
    yield "| filter | before | after |"
    yield "|---|---:|---:|"
    for step in facts.funnel:
        if isinstance(step, dict):
            name = step.get("filter") or step.get("name") or "?"
            yield (
                f"| {_cell(name)} | {_number(step.get('before'))} | {_number(step.get('after'))} |"
            )
    yield ""


def _scores(manifest: Manifest) -> Iterator[str]:
    if manifest.scores is None:
        return
    yield "What training on it was measured to be worth:"
    yield ""
    yield "| task | main metric |"
    yield "|---|---:|"
    tasks = manifest.scores.get("tasks", manifest.scores)
    for name, score in sorted(tasks.items() if isinstance(tasks, dict) else ()):
        if isinstance(score, int | float):
            yield f"| {_cell(name)} | {score:.4f} |"
    yield ""


def _distribution(manifest: Manifest) -> Iterator[str]:
    yield "## Distribution"
    yield ""
    for mirror in manifest.mirrors:
        yield f"- HTTP: <{mirror}versions/{manifest.version}/manifest.json>"
    yield f"- BitTorrent, any client: `{manifest.torrents['v1']['file']}`"
    yield f"- BitTorrent v2: `{manifest.torrents['hybrid']['file']}`"
    yield f"- IPFS: `ipfs://{manifest.root_cid}` ({manifest.cid_profile})"
    yield f"- Signed with the key `{manifest.key}`"
    yield ""


def _history(manifest: Manifest) -> Iterator[str]:
    before = manifest.parent
    if before is not None:
        yield f"The version before is {before.version}, manifest `{before.sha256}`."
        yield ""
    if not manifest.removed:
        return
    yield "Samples that were taken back (`tombstones.tsv` lists them):"
    yield ""
    for removal in manifest.removed:
        yield f"- {len(removal.uids):,} in version {removal.version}: {_cell(removal.reason)}"
    yield ""
    yield (
        "Copies that others hold of older versions are beyond reach; `datacomp get` removes what "
        "was taken back from a copy that it updates."
    )


def _table(*rows: tuple[str, str]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in rows:
        yield f"| {name} | {_cell(value)} |"
    yield ""


def _cell(value: Any) -> str:
    """Return text that stays in its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not counted"


def _bytes(value: int | None) -> str:
    return f"{(value or 0) / 1e6:,.1f} MB"
