"""Files that published rules need and that datacomp does not carry: models, word lists, centroids.

A parameter declared with ``asset_field`` takes the path of an asset. It can be given as any other
parameter, or once for all filters: ``--asset NAME=PATH`` on the command line, ``[assets]`` in
datacomp.toml. A file that bears a published file's name must have its bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field

from ..durable import sha256_unchanged
from ..errors import IntegrityError, MissingError, UsageError, suggest
from . import registry
from .contract import Filter
from .spec import FilterSpec

_RELEASE = "https://github.com/sagadre/datacomp_baseline_assets/releases/download/v0.1.0-alpha/"
_FASTTEXT = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/"
_DETECTOR = "ch_PP-OCRv4_det_infer.onnx"
_CENTROIDS = {
    "small": "23c66a05e49ad77283c1e2b33355c7eb088ac332a944c97ff85d5dfd48a5b251",
    "medium": "028b1721b1d0f139c565b6b0ac99f8a1756f4bae89c36b0ec6d1c6ea9b6f112d",
    "large": "04eeab1069d3540c246cf7ce69323147351a474017fc472e4c50a018ca32240b",
    "xlarge": "3f62e5f8ae3a715ce84e422846fcfce1536d184455ea234790c4a6465c4c6726",
}
_TARGETS = (
    "304990fd492f40ba90072b80af78d6e8edcab9d042476ef513e03441cf53743b",
    "72f008e6aa3bfb54174fa322963215337f843fc90fd642a9dccc815dd9e7ee76",
    "83c3cc6503b8a50a22cac7023ca6cd61b130ab9725db2a7519f1bec5cabf5493",
    "83faa289f847799ddcd438e5b74df1cb5973c345674896d10ba31ea48bc63804",
    "067a45f4a140a93371876510a2fd9198a89ac1d194ae4063a51b45a6da69cadf",
)


@dataclass(frozen=True)
class Asset:
    """What an asset is and how to get it; ``published`` maps file names to their SHA-256.

    A ``folder`` may hold it in files. ``inside`` is the place of a copy in an installed package.
    ``address`` is where the published files lie, each under its name; ``all_of_it`` says that
    they belong together.
    """

    name: str
    what: str
    get: str
    published: Mapping[str, str] = field(default_factory=dict)
    folder: bool = False
    inside: tuple[str, str] | None = None
    address: str | None = None
    all_of_it: bool = False


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "fasttext_lid",
            "fastText's language model lid.176.bin (126 MB, CC BY-SA 3.0)",
            f"{_FASTTEXT}lid.176.bin",
            {"lid.176.bin": "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e"},
            address=_FASTTEXT,
        ),
        Asset(
            "wordnet",
            "the folder of WordNet 3.0's database files (index.noun, noun.exc, ...)",
            "apt-get install wordnet-base (/usr/share/wordnet), or nltk's data package wordnet",
            folder=True,
        ),
        Asset(
            "imagenet21k_synsets",
            "a text file of WordNet synsets, one such as n02084071 a line",
            f"{_RELEASE}imagenet21k_wordnet_ids.txt, or install timm, which carries it",
            dict.fromkeys(
                ("imagenet21k_wordnet_ids.txt", "imagenet21k_goog_synsets.txt"),
                "66362bdedf36d933382edca5493fc562dcc17128ce36403c9e730a75f48cb2f2",
            ),
            inside=("timm", "data/_info/imagenet21k_goog_synsets.txt"),
            address=_RELEASE,
        ),
        Asset(
            "pool_centroids",
            "the centroids of the pool's image features, shape (clusters, dimension)",
            f"{_RELEASE}SCALE_centroids_l14.pt with SCALE one of {', '.join(_CENTROIDS)}",
            {f"{scale}_centroids_l14.pt": digest for scale, digest in _CENTROIDS.items()},
            address=_RELEASE,
        ),
        Asset(
            "target_embeddings",
            "the image features of the target set (ImageNet-1k), shape (images, dimension), "
            "in one file or in a folder of files",
            f"{_RELEASE}in1k_clip_vit_l14_N.pt for N from 0 to 4, together in a folder",
            {f"in1k_clip_vit_l14_{n}.pt": digest for n, digest in enumerate(_TARGETS)},
            folder=True,
            address=_RELEASE,
            all_of_it=True,
        ),
        Asset(
            "text_detector",
            "a network that finds text in images: ONNX, of the DB family",
            "the wheel of rapidocr-onnxruntime (4.7 MB, Apache 2.0), which carries one: "
            "pip install --no-deps rapidocr-onnxruntime==1.4.4",
            {_DETECTOR: "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"},
            inside=("rapidocr_onnxruntime", f"models/{_DETECTOR}"),
        ),
        Asset(
            "evaluation_features",
            "the features of the evaluation sets' images, by the model of the pool's features, "
            "shape (images, dimension), in one file or in a folder of files",
            "your evaluation sets: embed their images with that model",
            folder=True,
        ),
    )
}


def asset_field(name: str, default: str | None = None, *, optional: bool = False) -> Any:
    """Declare a parameter that takes the path of an asset; an optional one need not be given."""
    return Field(
        default,
        description=f"path of the asset {name}" if default is None
        else f"'{default}', or the path of the asset {name}",
        json_schema_extra={"asset": name, "optional": optional},
    )  # fmt: skip


def assets_of(model: type[Filter]) -> dict[str, str]:
    """Return which parameters of a filter take which asset."""
    found = {}
    for name, about in model.model_fields.items():
        extra = about.json_schema_extra
        if isinstance(extra, dict) and "asset" in extra:
            found[name] = str(extra["asset"])
    return found


def given_assets(made: Filter) -> dict[str, str]:
    """Return those parameters of a filter that name an asset's path, with the path."""
    fields = type(made).model_fields
    values = {name: getattr(made, name) for name in assets_of(type(made))}
    return {name: value for name, value in values.items() if value != fields[name].default}


def parse_assets(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=PATH`` texts; raises UsageError for an unknown name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = (part.strip() for part in pair.partition("="))
        if not equals or not path:
            raise UsageError(f"asset {pair!r}: expected NAME=PATH")
        if name in found:
            raise UsageError(f"asset {name} is given twice")
        found[check_name(name)] = path
    return found


def check_name(name: str) -> str:
    """Return the name of an asset, or raise UsageError for one that there is not."""
    if name not in ASSETS:
        known = list(ASSETS)
        raise UsageError(
            f"unknown asset {name!r}{suggest(name, known)}; there are: {', '.join(known)}"
        )
    return name


def with_assets(spec: FilterSpec, assets: Mapping[str, str]) -> FilterSpec:
    """Return a filter with the assets it takes and was not given; its title stays."""
    taken = {
        parameter: assets[name]
        for parameter, name in assets_of(registry.get(spec.use)).items()
        if name in assets and parameter not in spec.parameters
    }
    return replace(
        spec, parameters={**spec.parameters, **taken}, title=replace(spec, negated=False).label()
    )


def needing(name: str) -> list[str]:
    """Return the names of the built-in filters that take an asset."""
    return [use for use in registry.BUILT_IN if name in assets_of(registry.get(use)).values()]


def locate(use: str, name: str, path: str | None) -> Path:
    """Return where an asset of the filter ``use`` lies; None is a copy in an installed package.

    Raises MissingError, which says what it is and how to get it.
    """
    asset = ASSETS[name]
    if path is None:
        found = None if asset.inside is None else _in_package(*asset.inside)
        return found or _missing(use, asset, "needs")
    found = Path(path)
    if not (found.is_file() or (asset.folder and found.is_dir())):
        _missing(use, asset, f"finds nothing at {path} for")
    return found


def check_assets(use: str, made: Filter) -> None:
    """Raise MissingError if an asset that a filter needs is neither given nor installed."""
    for parameter, name in assets_of(type(made)).items():
        extra = type(made).model_fields[parameter].json_schema_extra
        optional = isinstance(extra, dict) and extra.get("optional")
        if getattr(made, parameter) is None and not optional:
            locate(use, name, None)


def _in_package(package: str, place: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / place
    return path if path.is_file() else None


def digest_of(name: str, path: Path) -> str:
    """Return the SHA-256 of an asset; of a folder, that of its files' digests in order of name.

    Raises IntegrityError for a file that is not the published one whose name it bears.
    """
    digests = []
    for file in parts(path):
        found = sha256_unchanged(file)
        expected = ASSETS[name].published.get(file.name, found)
        if found != expected:
            raise IntegrityError(
                f"{file}: not the {file.name} that was published (SHA-256 {expected}); get it "
                "again, or rename a file of your own"
            )
        digests.append(found)
    if path.is_file():
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def parts(path: Path) -> list[Path]:
    """Return a file, or the files of a folder by name."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file())


def _by_command(asset: Asset) -> str:
    return "" if asset.address is None else f" ('datacomp filter assets {asset.name} -o DIR' does)"


def _missing(use: str, asset: Asset, what: str) -> NoReturn:
    raise MissingError(
        f"{use} {what} the asset {asset.name}: {asset.what}; get it from {asset.get}"
        f"{_by_command(asset)}; give it as "
        f"--asset {asset.name}=PATH, or under [assets] in datacomp.toml (it serves "
        f"{', '.join(needing(asset.name))})"
    )
