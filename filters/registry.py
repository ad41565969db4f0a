"""Find filters by name: built in, from installed packages, or from a file of one's own.

Nothing is imported before it is asked for. Packages register filters as entry points of the
group ``datacomp.filters``; ``path/to/file.py:Class`` names a class in a file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from ..errors import MissingError, UsageError, suggest
from ..pools.ranges import is_remote
from . import wording
from .contract import Filter

GROUP = "datacomp.filters"

BUILT_IN = {
    "no_filter": "basic:NoFilter",
    "basic_filter": "basic:BasicFilter",
    "caption_length": "basic:CaptionLength",
    "image_size": "basic:ImageSize",
    "language": "language:Language",
    "min_ink": "ink:MinInk",
    "random_subset": "sampling:RandomSubset",
    "exact_dedup": "dedup:ExactDedup",
    "clip_score": "clip_score:ClipScore",
    "dfn": "dfn:Dfn",
    "laion2b": "laion2b:Laion2b",
    "text_based": "text_based:TextBased",
    "image_based": "image_based:ImageBased",
    "image_based_intersect_clip_score": "image_based:ImageBasedIntersectClipScore",
    "neg_clip_loss": "similarity.neg_clip_loss:NegClipLoss",
    "norm_sim": "similarity.norm_sim:NormSim",
    "vas": "similarity.vas:Vas",
    "vas_d": "similarity.vas_d:VasD",
    "image_distance": "similarity.image_distance:ImageDistance",
    "decontaminate": "similarity.decontaminate:Decontaminate",
    "semdedup": "clusters.semdedup:SemDeDup",
    "ssl_prototypes": "clusters.ssl_prototypes:SslPrototypes",
    "d4": "clusters.d4:D4",
    "density": "clusters.density:Density",
    "facility_location": "clusters.facility_location:FacilityLocation",
    "hierarchical": "clusters.hierarchical:Hierarchical",
    "seeds": "similarity.seeds:Seeds",
    "metaclip": "captions.metaclip:Metaclip",
    "wfpp": "captions.wfpp:Wfpp",
    "near_captions": "captions.near_captions:NearCaptions",
    "near_images": "pixels.near_images:NearImages",
    "flipped_clip_score": "pixels.changed_clip_score:FlippedClipScore",
    "digit_masked_clip_score": "pixels.changed_clip_score:DigitMaskedClipScore",
    "text_masked_clip_score": "pixels.text_masking:TextMaskedClipScore",
    "aesthetic": "similarity.heads:Aesthetic",
    "nsfw": "similarity.heads:Nsfw",
    "soft_cap": "draws.soft_cap:SoftCap",
    "cluster_sampling": "draws.cluster_sampling:ClusterSampling",
    "text_sampling": "draws.text_sampling:TextSampling",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a filter, for people: name, type, default, meaning."""

    name: str
    type: str
    default: Any
    help: str
    required: bool = False


@functools.cache
def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in BUILT_IN or entry.name in found:
            other = found[entry.name].value if entry.name in found else "a built-in filter"
            raise UsageError(
                f"filter {entry.name!r} of {entry.value} collides with {other}; "
                "uninstall one of the packages"
            )
        found[entry.name] = entry
    return found


def names() -> list[str]:
    """Return the names of all registered filters: built in first, then plug-ins."""
    return [*BUILT_IN, *sorted(_plugins())]


def get(name: str) -> type[Filter]:
    """Return the class of a filter by name or by ``file.py:Class``."""
    if ".py:" in name:
        return _from_file(name)
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].split(":")
        return getattr(importlib.import_module(f".{module}", __package__), attribute)
    plugins = _plugins()
    if name not in plugins:
        known = names()
        raise UsageError(
            f"unknown filter {name!r}{suggest(name, known)}; there are: {', '.join(known)}, "
            "or your own as file.py:Class"
        )
    entry = plugins[name]
    try:
        found = entry.load()
    except Exception as error:
        where = _raised_in(error, entry.module.partition(".")[0])
        raise UsageError(
            f"filter {name!r} of {entry.value}: {where}{type(error).__name__}: {_one_line(error)}"
        ) from error
    return _checked(found, entry.value)


def origin(name: str) -> str:
    """Return where a filter is defined: ``built in``, a package's entry point, or file and line."""
    if name in BUILT_IN:
        return "built in"
    place = place_of(name)
    return place if ".py:" in name else f"{_plugins()[name].value} ({place})"


def place_of(name: str) -> str:
    """Return ``file:line`` of a filter's class; a file of one's own as it was named."""
    found = get(name)
    file = name.rpartition(":")[0] if ".py:" in name else inspect.getsourcefile(found)
    return f"{file}:{_first_line_of(found)}"


def create(name: str, parameters: dict[str, Any]) -> Filter:
    """Make a filter; a wrong parameter is a UsageError that says what is accepted."""
    found = get(name)
    try:
        made = found(**parameters)
        files = made.files()
    except ValidationError as error:
        raise UsageError(f"filter {name}: {explain(error, found)}") from None
    except Exception as error:
        where = f"{inspect.getsourcefile(found)}:{_first_line_of(found)}"
        raise UsageError(
            f"filter {name}: {where}: {type(error).__name__}: {_one_line(error)}"
        ) from error
    for parameter, value in files.items():
        if is_remote(str(value)):  # it would be taken for a path
            raise UsageError(
                f"filter {name}: {parameter} is {wording.found(value)}, a URL; expected a path on "
                "a file system"
            )
    return made


def explain(error: ValidationError, model: type[Filter]) -> str:
    """Return one complaint of pydantic in our words."""
    first = wording.complaint(error)
    name = ".".join(str(part) for part in first["loc"])
    known = parameters(model)
    if first["type"] == "extra_forbidden":
        listed = ", ".join(p.name for p in known)
        accepted = f"it takes: {listed}" if known else "it takes none"
        return f"unknown parameter {name!r}{suggest(name, [p.name for p in known])}; {accepted}"
    if first["type"] == "missing":
        return f"parameter {name} is required"
    if not name:
        return wording.accepted(first)
    return (
        f"parameter {name} is {wording.found(first['input'])}, expected {wording.accepted(first)}"
    )


def parameters(model: type[Filter]) -> list[Parameter]:
    """Return the parameters of a filter, for lists and pages."""
    return [
        Parameter(
            name,
            _type_name(field.annotation),
            field.get_default(call_default_factory=True),
            field.description or "",
            field.is_required(),
        )
        for name, field in model.model_fields.items()
    ]


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(
            _type_name(part) for part in get_args(annotation) if part is not type(None)
        )
    arguments = get_args(annotation)
    if arguments:
        return " | ".join(str(argument) for argument in arguments)
    return getattr(annotation, "__name__", str(annotation))


def _from_file(name: str) -> type[Filter]:
    text, _, attribute = name.rpartition(":")
    path = Path(text)
    if not path.is_file():
        raise MissingError(f"filter {name}: no such file {text}")
    try:
        code = path.read_bytes()
    except OSError as error:
        raise UsageError(f"filter {name}: {path} cannot be read: {error.strerror}") from None
    # Named by its code too: what was edited is another module, also in a process that lives on.
    known = hashlib.sha256(f"{path.resolve()}\0".encode() + code).hexdigest()
    unique = f"_datacomp_plugin_{known[:16]}"
    module = sys.modules.get(unique)
    if module is None:
        loader = SourceFileLoader(unique, str(path))
        spec = importlib.util.spec_from_file_location(unique, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[unique] = module
        try:
            # Python's own cache takes an edit within a second that keeps the size for none.
            exec(loader.source_to_code(code, str(path)), vars(module))
        except Exception as error:
            del sys.modules[unique]
            where = _raised_at(error, path) or f"{path}:1"
            raise UsageError(
                f"filter {name}: {where}: {type(error).__name__}: {_one_line(error)}"
            ) from error
    if not hasattr(module, attribute):
        classes = [
            key for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Filter) and value is not Filter
        ]  # fmt: skip
        raise UsageError(
            f"filter {name}: no class {attribute!r} there{suggest(attribute, classes)}; "
            f"filters in the file: {', '.join(classes) or 'none'}"
        )
    return _checked(getattr(module, attribute), name)


def _checked(found: Any, where: str) -> type[Filter]:
    if not (isinstance(found, type) and issubclass(found, Filter) and found is not Filter):
        raise UsageError(f"{where} is not a subclass of datacomp.filters.Filter")
    return found


def _raised_at(error: BaseException, file: Path) -> str | None:
    """Return ``file:line`` of the innermost line of ``file`` at which an exception arose."""
    place = file.resolve()  # code knows its file by an absolute path
    if isinstance(error, SyntaxError) and Path(error.filename or "").resolve() == place:
        return f"{file}:{error.lineno or 1}"
    line, trace = 0, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == place:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}:{line}" if line else None


def _raised_in(error: BaseException, package: str) -> str:
    """Return ``file:line: `` of the innermost line of a package at which an import failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}: "
    trace, where = error.__traceback__, ""
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] == package:
            where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return where


def blame(error: BaseException, instance: Filter) -> str:
    """Return ``file:line: Error: message`` of the filter's own code at which an error arose."""
    file = Path(inspect.getsourcefile(type(instance)) or "?")
    where = _raised_at(error, file) or defined_at(instance)
    return f"{where}: {type(error).__name__}: {_one_line(error)}"


def defined_at(instance: object) -> str:
    """Return ``file:line`` of the class of an object."""
    found = type(instance)
    try:
        return f"{inspect.getsourcefile(found)}:{_first_line_of(found)}"
    except (OSError, TypeError):
        return found.__qualname__


def _first_line_of(found: type) -> int:
    try:
        return inspect.getsourcelines(found)[1]
    except (OSError, TypeError):  # made without a source file
        return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
