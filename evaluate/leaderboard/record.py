"""The record of a submission: what anyone may read about it, checked field by field.

Nothing private can be in it: a text that holds an e-mail address or looks like an access token
is refused, and paths of the machine that trained are never copied.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ...durable import digest, read_json
from ...errors import DataError
from .layout import MAX_RECORD_BYTES, RECORD

FORMAT = "datacomp-submission"
VERSION = 1
AGGREGATE_VERSION = 1
"""Which definition of the averages is meant: that of ``results.group_score``."""

TRACKS = ("filtering", "byod")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_TOKENS = ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "sk-", "xoxb-", "xoxp-",
           "AKIA", "dct_")  # fmt: skip
"""How access tokens of Hugging Face, GitHub, OpenAI, Slack, AWS and of our server begin."""
_TOKEN = re.compile(rf"\b({'|'.join(_TOKENS)})[A-Za-z0-9_-]{{12,}}", re.ASCII)


def private_matter(text: str) -> str | None:
    """Say what private matter a text holds: ``an e-mail address``, ``an access token``, None."""
    at = text.find("@")
    while at >= 0:
        # Only what stands around the sign is looked at: a search of the whole text for what may
        # stand before it would take the square of its length.
        if _ADDRESS.search(text, max(0, at - 64), at + 256):
            return "an e-mail address"
        at = text.find("@", at + 1)
    told = any(prefix in text for prefix in _TOKENS) and _TOKEN.search(text)
    return "an access token" if told else None


def _public(text: str) -> str:
    bad = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    if bad:
        raise ValueError(f"holds a character that cannot be shown (U+{ord(bad[0]):04X})")
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    private = private_matter(text)
    if private:
        raise ValueError(f"holds {private}, and what is submitted is public")
    return text


def _link(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s\"'<>\\^`{|}]{3,500}", _public(text)):
        raise ValueError("expected an http:// or https:// address")
    return text


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_public)]
Line = Annotated[str, Field(max_length=500), AfterValidator(_public)]
Link = Annotated[str, AfterValidator(_link)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=10**15, strict=True)]
Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Part):
    """A file of the submission: its size in bytes and its SHA-256."""

    path: str
    size: Count
    sha256: Digest


class TrainedRun(_Part):
    """One training run: its seed, its results, its checkpoint, its data, and what it took."""

    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)]
    results: str
    checkpoint_sha256: Digest
    checkpoint: str | None = None
    precision: Name | None = None
    device: Name | None = None
    processes: Count | None = None
    seconds: Amount | None = None
    samples: Count | None = None
    """Samples in the shards it was trained on."""
    data: list[Digest] = Field(default_factory=list, max_length=100)
    """Fingerprints of these shards."""
    aggregates: dict[Name, float] = Field(max_length=50)


class Samples(_Part):
    """A list of samples: ``count`` with repetitions, ``unique`` without.

    A subset (``.npy``) has each uid once; weights (``.parquet`` of uid, weight) say how often
    each is to be seen; captions (``.parquet`` of url, text) are the data of one's own.
    """

    file: str
    kind: Literal["subset", "weights", "captions"]
    count: Count
    unique: Count
    digest: Digest | None = None


class PoolInfo(_Part):
    """The pool filtered, and its *effective pool*: how many of its samples could be fetched.

    ``available_digest`` names the effective pool as ``digest`` names the pool: the SHA-256 over
    the sorted uids.
    """

    digest: Digest | None = None
    samples: Count | None = None
    available: Count | None = None
    available_digest: Digest | None = None


class FunnelStep(_Part):
    """What one filter left of what it was given, and how many it dropped under which reason."""

    filter: Line
    before: Count
    after: Count
    reasons: dict[Name, Count] = Field(default_factory=dict, max_length=100)


class Record(_Part):
    """All that a submission says of itself; ``id`` is its name: method and digest."""

    format: Literal["datacomp-submission"]
    version: Literal[1]
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}-[0-9a-f]{12}$")]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    track: Literal["filtering", "byod"]
    method: Name
    author: Name
    writeup: Link | None = None
    scale: dict[str, Any]
    suite: Name
    suite_version: Count
    aggregate_version: Count
    pool: PoolInfo
    dataset_size: Count
    samples: list[Samples] = Field(min_length=1, max_length=20)
    pipeline: list[Line] = Field(default_factory=list, max_length=200)
    funnel: list[FunnelStep] = Field(default_factory=list, max_length=200)
    runs: list[TrainedRun] = Field(min_length=1, max_length=20)
    hardware: Line | None = None
    energy_kwh: Amount | None = None
    datacomp: Name
    files: list[File] = Field(max_length=64)

    @property
    def scale_name(self) -> str:
        """Return the name of the scale, which the check compares with the known ones."""
        name = self.scale.get("name")
        return name if isinstance(name, str) else ""

    @property
    def samples_seen(self) -> int:
        """Return how many samples the training saw."""
        seen = self.scale.get("samples_seen")
        return seen if isinstance(seen, int) else 0


def identifier(content: dict[str, Any]) -> str:
    """Return the id that follows from a record: its method, and the digest of all but the date."""
    kept = {key: value for key, value in content.items() if key not in ("id", "created")}
    letters = unicodedata.normalize("NFKD", str(content.get("method", ""))).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:48].strip("-") or "submission"
    return f"{slug}-{digest(kept)[:12]}"


def read_record(folder: Path) -> tuple[Record, dict[str, Any]]:
    """Return the record of a submission's folder, and the plain values it was read from.

    Raises MissingError without one, DataError naming the first field that does not fit.
    """
    file = folder / RECORD
    value = read_json(file, MAX_RECORD_BYTES)
    return parse_record(value, str(file)), value


def parse_record(value: Any, where: str) -> Record:
    """Return a record from plain values; DataError names the first field that does not fit."""
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part)[:80] for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{where}: {key or 'record'}: {text}") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deep") from None
