"""Replay everything about a submission that can be replayed, and refuse what does not hold.

Nothing that was sent is executed or unpickled: records and results are JSON, subsets are plain
arrays, parquet is read under a memory limit, and a checkpoint is only hashed, unless tasks are to
be evaluated again; then its tensors are read as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...durable import digest, sha256_file
from ...errors import DatacompError, DataError
from ...pools.uids import UidArray
from ..results import Result
from ..scales import SCALES
from ..tasks import load_suites
from . import result_rules
from .layout import RECORD, list_files
from .make import suite_of
from .record import AGGREGATE_VERSION, TRACKS, Record, identifier, read_record
from .samples import describe, first_foreign

MODEL_CONFIGS = {
    "datacomp-demo": ("d14c2963a6884d82c4260459da9ab3ecb82a9053d8ba39d4dffba6c0325900bc", 32),
    "ViT-B-32": ("f4f248d7794283aa4a4d3a8cc2e518785158f2fb372b7294208393b6c95f18c7", 224),
    "ViT-B-16": ("bd1d6abb1add5f00c7d69185a064e6485bf0f1d7bbf69d78fab770a97aa38090", 224),
    "ViT-L-14": ("5aa1080dcab63dcbe791ac0e4946f89635431f22b3b1fdfe0e6a5a3c82a1eccf", 224),
}
"""Digest of each scale's model configuration, and its image size. ViT-B-32-quickgelu has other
weights under the same shapes, so a mismatch gives wrong accuracies without a word."""


@dataclass(frozen=True)
class Refusal:
    """Why a submission is refused: which rule, where, and what is wrong."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.where}: {self.what}"


@dataclass
class Report:
    """What a check found: rules that hold, refusals, and what could not be replayed and why."""

    id: str | None = None
    passed: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    not_replayed: dict[str, str] = field(default_factory=dict)
    reevaluated: dict[str, tuple[float, float]] = field(default_factory=dict)
    record: Record | None = None
    results: list[dict[str, Result]] = field(default_factory=list)
    digest: str = ""
    """SHA-256 of the record that was judged; it names all files by theirs."""

    @property
    def accepted(self) -> bool:
        """Tell whether nothing was refused."""
        return not self.refused

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "id": self.id,
            "accepted": self.accepted,
            "passed": self.passed,
            "refused": [
                {"rule": one.rule, "where": one.where, "what": one.what} for one in self.refused
            ],
            "not_replayed": self.not_replayed,
            "reevaluated": {
                key: {"submitted": a, "found": b} for key, (a, b) in self.reevaluated.items()
            },
        }


Complaints = Iterable[tuple[str, str]]


def check(
    folder: Path | str, *, pool: UidArray | None = None, pool_digest: str | None = None
) -> Report:
    """Check a submission's folder rule by rule; ``pool`` are the sorted uids it chose from.

    Raises nothing for a bad submission: all that is wrong is in the report.
    """
    folder = Path(folder)
    report = Report()

    def rule(name: str, complaints: Callable[[], Complaints], where: str = RECORD) -> bool:
        """Run a rule; tell whether it holds."""
        before = len(report.refused)
        try:
            report.refused += [Refusal(name, *one) for one in complaints()]
        except DatacompError as error:
            report.refused.append(Refusal(name, where, str(error)))
        holds = len(report.refused) == before
        if holds:
            report.passed.append(name)
        return holds

    sizes: dict[str, int] = {}

    def layout() -> Complaints:
        sizes.update(list_files(folder))
        return ()

    def record_is_sound() -> Complaints:
        report.record, value = read_record(folder)
        report.id, report.digest = report.record.id, digest(value)
        right = identifier(value)
        return (
            []
            if right == report.id
            else [(RECORD, f"id is {report.id}, its content gives {right}")]
        )

    if not rule("layout", layout, str(folder)):
        return report
    rule("record", record_is_sound)
    record = report.record
    if record is None:
        return report
    if not rule("files", lambda: _files(folder, record, sizes)):
        return report
    rule("scale", lambda: _scale(record))
    rule("samples", lambda: _samples(folder, record))
    rule("sizes", lambda: _sizes(record))
    _check_pool(rule, report, folder, pool, pool_digest)
    _check_results(rule, report, folder)
    rule("checkpoint", lambda: _checkpoints(record))
    if any(run.checkpoint is None for run in record.runs):
        report.not_replayed["checkpoint"] = "not in the submission; its digest is recorded"
    return report


def files_hold(folder: Path, record: Record) -> bool:
    """Tell whether a submission has exactly the files its record lists, byte for byte.

    Raises UnsafeInputError for what has no place in a submission.
    """
    return not any(True for _ in _files(folder, record, list_files(folder)))


Rule = Callable[..., bool]


def _files(folder: Path, record: Record, sizes: dict[str, int]) -> Complaints:
    """Compare what is there with what the record lists: names, sizes, digests."""
    listed = {file.path: file for file in record.files}
    if len(listed) < len(record.files):
        yield RECORD, "files: a name stands there twice"
    for name in sorted(sizes.keys() - listed.keys() - {RECORD}):
        yield name, "is there, but the record does not list it"
    needed = [r.results for r in record.runs] + [s.file for s in record.samples]
    needed += [run.checkpoint for run in record.runs if run.checkpoint]
    for name in needed:
        if name not in listed:
            yield name[:120], "is named in the record, but not among its files"
    if len(set(needed)) < len(needed):
        yield RECORD, "a file stands for two things"
    for name, file in listed.items():
        if name not in needed:
            yield name[:120], "belongs to no run and no list of samples"
        elif name not in sizes:
            yield name[:120], "is missing"
        elif sizes[name] != file.size:
            yield name, f"has {sizes[name]:,} bytes, the record says {file.size:,}"
        elif sha256_file(folder / name) != file.sha256:
            yield name, "its SHA-256 is not that of the record"


def _scale(record: Record) -> Complaints:
    scale = SCALES.get(record.scale_name)
    if record.track not in TRACKS:
        yield RECORD, f"track is {record.track!r}"
    if scale is None:
        yield RECORD, f"scale {record.scale_name[:40]!r} is not known"
        return
    for key, value in scale.to_dict().items():
        if record.scale.get(key) != value:
            found = str(record.scale.get(key))[:40]
            yield RECORD, f"scale {scale.name} has {key} {value!r}, the run {found!r}"
    for key in record.scale.keys() - scale.to_dict().keys():
        yield RECORD, f"scale has no {key[:40]!r}"


def _samples(folder: Path, record: Record) -> Complaints:
    for one in record.samples:
        try:
            found = describe(folder / one.file, one.file)
        except DataError as error:
            yield one.file, str(error).replace(f"{folder}/", "")
            continue
        for key in ("kind", "count", "unique", "digest"):
            if getattr(found, key) != getattr(one, key):
                yield (
                    one.file,
                    (f"{key} is {getattr(found, key)}, the record says {getattr(one, key)}"),
                )
        if record.track == "filtering" and found.kind == "captions":
            yield one.file, "data of one's own belong to the track byod"
        if not found.count:
            yield one.file, "is empty"


def _sizes(record: Record) -> Complaints:
    total = sum(one.unique for one in record.samples)
    if record.dataset_size != total:
        yield RECORD, f"dataset_size is {record.dataset_size:,}, the lists have {total:,}"
    pool = record.pool
    own = sum(one.unique for one in record.samples if one.kind != "captions")
    if pool.samples is not None and own > pool.samples:
        yield RECORD, f"{own:,} samples are chosen of a pool of {pool.samples:,}"
    if pool.available is not None and pool.available > (pool.samples or 0):
        yield RECORD, f"of a pool of {pool.samples} samples {pool.available:,} are available"
    whole = pool.available is not None and pool.available == pool.samples
    if whole and pool.digest and pool.available_digest not in (None, pool.digest):
        yield RECORD, "the whole pool is available, but its digest is not the pool's"
    repeated = sum(one.count for one in record.samples)
    for run in record.runs:
        if run.samples is not None and run.samples > repeated:
            yield (
                RECORD,
                (f"seed {run.seed}: trained on {run.samples:,} samples, listed are {repeated:,}"),
            )
    for number, (step, after) in enumerate(zip(record.funnel, record.funnel[1:], strict=False)):
        if step.after > step.before:
            yield RECORD, f"funnel: step {number + 1} keeps more than it was given"
        if after.before > step.before:
            yield RECORD, f"funnel: step {number + 2} is given more than there was"
    if record.funnel and len(record.samples) == 1 and record.funnel[-1].after < own:
        yield RECORD, f"funnel: ends with {record.funnel[-1].after:,}, the subset has {own:,}"


def _check_pool(
    rule: Rule, report: Report, folder: Path, pool: UidArray | None, pool_digest: str | None
) -> None:
    record = report.record
    assert record is not None
    if pool is None:
        report.not_replayed["pool"] = (
            "no pool was given; whether the samples are in it is not known"
        )
        return

    def inside() -> Complaints:
        if pool_digest and record.pool.digest and record.pool.digest != pool_digest:
            yield RECORD, f"was chosen from pool {record.pool.digest[:12]}, not {pool_digest[:12]}"
        for one in record.samples:
            if one.kind == "captions":
                continue
            foreign = first_foreign(folder / one.file, one.kind, pool)
            if foreign is not None:
                yield one.file, f"uid {foreign} is not in the pool"

    rule("pool", inside)


def _check_results(rule: Rule, report: Report, folder: Path) -> None:
    record = report.record
    assert record is not None
    suite = suite_of(record.scale_name)

    def known() -> Complaints:
        if (record.suite, record.suite_version) != (suite.name, suite.version):
            found = f"{record.suite!r} version {record.suite_version}"
            known = ", ".join(f"{s.name} {s.version}" for s in load_suites().values())
            yield (
                RECORD,
                (
                    f"suite {found} does not judge scale {record.scale_name[:40]!r}, which "
                    f"{suite.name!r} version {suite.version} does (known: {known})"
                ),
            )
        if record.aggregate_version != AGGREGATE_VERSION:
            yield (
                RECORD,
                (f"aggregate version {record.aggregate_version}, known is {AGGREGATE_VERSION}"),
            )
        seeds = [run.seed for run in record.runs]
        if len(set(seeds)) < len(seeds):
            yield RECORD, f"two runs have the same seed ({seeds})"

    rule("suite", known)
    parsed: list[dict[str, Result]] = []

    def lines() -> Complaints:
        for run in record.runs:
            found, complaints = result_rules.read_lines(folder / run.results, run.results, suite)
            parsed.append(found)
            yield from complaints

    readable = rule("results", lines)
    if len(parsed) < len(record.runs):
        return
    report.results = parsed
    pairs = list(zip(record.runs, parsed, strict=True))
    rule("metrics", lambda: _each(pairs, lambda r, f: result_rules.metrics(r.results, f)))
    rule("provenance", lambda: _each(
        pairs, lambda r, f: result_rules.provenance(r.results, r, f, suite)))  # fmt: skip
    rule("model", lambda: _each(pairs, lambda r, f: _model(r.results, f, record)))
    rule("uncertainty", lambda: _each(pairs, lambda r, f: result_rules.uncertainty(r.results, f)))
    if readable:
        rule("aggregates", lambda: _each(
            pairs, lambda r, f: result_rules.averages(r.results, r, f, suite)))  # fmt: skip


def _each(pairs: Iterable[tuple[Any, Any]], of: Callable[[Any, Any], Complaints]) -> Complaints:
    for run, found in pairs:
        yield from of(run, found)


def _model(name: str, results: dict[str, Result], record: Record) -> Complaints:
    """Refuse a model that is not the scale's, be it by activation or by image size alone."""
    scale = SCALES.get(record.scale_name)
    if scale is None:
        return
    config, size = MODEL_CONFIGS[scale.model]
    for key, result in results.items():
        found = result.provenance
        for field_, expected in (
            ("model", scale.model), ("model_config", config), ("image_size", size),
        ):  # fmt: skip
            if found.get(field_) != expected:
                yield (
                    f"{name}: {key}",
                    (
                        f"{field_} is {str(found.get(field_))[:80]!r}, scale {scale.name} has "
                        f"{expected!r}"
                    ),
                )


def _checkpoints(record: Record) -> Complaints:
    digests = {file.path: file.sha256 for file in record.files}
    for run in record.runs:
        if run.checkpoint is not None and digests.get(run.checkpoint) != run.checkpoint_sha256:
            yield run.checkpoint, "is not the checkpoint that was evaluated (SHA-256)"
