"""The machines of a cluster: can they do this work, and do they see what this one sees?

What asks them travels as code, not by name, for a machine may have no datacomp to look a name
up in.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import MissingError, RunError, UsageError

_ASK_SECONDS = 120
_READ_SECONDS = 3600
"""For a question whose answer takes reading files."""


def check_nodes(ray: Any) -> dict[str, str]:
    """Return the machines, id to name; raise RunError for those that cannot do the work.

    Each must have the same version of datacomp, and of Python but for its last number.
    """
    nodes = {node["NodeID"]: _name(node) for node in alive(ray)}
    python = platform.python_version_tuple()[:2]
    trouble = []
    for node, found in _ask(ray, nodes, _versions()).items():
        if found["error"]:
            trouble.append(
                f"{nodes[node]} cannot import datacomp ({found['error']}); install "
                f"datacomp[ray]=={__version__} there"
            )
        elif found["datacomp"] != __version__:
            trouble.append(
                f"{nodes[node]} has datacomp {found['datacomp']}, but this machine {__version__}"
            )
        elif tuple(found["python"]) != python:
            trouble.append(
                f"{nodes[node]} has Python {'.'.join(found['python'])}, but this machine "
                f"{'.'.join(python)}"
            )
    if trouble:
        raise RunError(f"machines of the cluster that cannot do this work: {'; '.join(trouble)}")
    return nodes


def check_room(ray: Any, memory: int | None, gpu: bool = False) -> None:
    """Raise an error unless some machine has room for a worker of this memory: Ray would wait.

    RunError where none has a processor (or none with a GPU), UsageError for too many bytes.
    """
    if has_room(ray, memory, gpu):
        return
    least = {"CPU": 1, **({"GPU": 1} if gpu else {})}
    able = [node for node in alive(ray) if _offers(node, least)]
    if memory is None or not able:
        what = "a GPU and a processor" if gpu else "processors"
        raise RunError(
            f"no machine of the cluster offers {what} for work; start Ray with "
            f"{' and '.join(f'--num-{kind.lower()}s' for kind in least)} above 0 on some"
        )
    largest = max(able, key=lambda node: node["Resources"].get("memory", 0))
    offers = int(largest["Resources"].get("memory", 0))
    others = "those with a GPU" if gpu else "the machines of the cluster"
    raise UsageError(too_much(memory, f"{_name(largest)}, the largest of {others},", offers))


def has_room(ray: Any, memory: int | None, gpu: bool = False) -> bool:
    """Tell whether any machine of the cluster, were it idle, could take a worker."""
    wanted = {"CPU": 1, **({"GPU": 1} if gpu else {}), **({"memory": memory} if memory else {})}
    return any(_offers(node, wanted) for node in alive(ray))


def too_much(memory: int, name: str, offers: int) -> str:
    """Say that a worker may take more than a machine has."""
    return (
        f"each worker would have {memory / 1e9:,.1f} GB of memory, but {name} has "
        f"{offers / 1e9:,.1f} GB for them; give the engine's workers less memory"
    )


def alive(ray: Any) -> list[dict[str, Any]]:
    """Return what Ray knows of the machines that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _offers(node: dict[str, Any], wanted: dict[str, int]) -> bool:
    return all(node["Resources"].get(kind, 0) >= amount for kind, amount in wanted.items())


def check_extra(ray: Any, nodes: dict[str, str], extra: str, modules: Sequence[str]) -> None:
    """Raise MissingError for machines that lack some modules."""
    for node, lacking in _ask(ray, nodes, _lacks(), modules).items():
        if lacking:
            what = extra if [extra] == lacking else f"'datacomp[{extra}]'"
            raise MissingError(f"{nodes[node]} lacks {', '.join(lacking)}; install {what} there")


def check_places(
    ray: Any, nodes: dict[str, str], places: list[Path], contents: bool = False
) -> None:
    """Raise MissingError unless all machines see the same at these paths as this one.

    Files are the same by size and time or, if asked for, by their ``contents``.
    """
    names = [str(place) for place in places]
    look = _looks()
    here = look(names, contents)
    seconds = _READ_SECONDS if contents else _ASK_SECONDS
    for node, found in _ask(ray, nodes, look, names, contents, seconds=seconds).items():
        for name, ours, theirs in zip(names, here, found, strict=True):
            if ours != theirs:
                what = "does not see" if theirs is None else "sees something else at"
                need = "a file system that they share, or an object store (s3://...)"
                if contents:
                    need = "the same file there"
                raise MissingError(
                    f"{nodes[node]} {what} {name}; the machines of a cluster need {need}"
                )


def _ask(
    ray: Any, nodes: dict[str, str], question: Callable[..., Any], *about: Any,
    seconds: float = _ASK_SECONDS,
) -> dict[str, Any]:  # fmt: skip
    """Put a question to every machine, all at once."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {
        node: ray.remote(question)
        .options(
            num_cpus=0, max_retries=2,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(*about)
        for node in nodes
    }  # fmt: skip
    answers = {}
    for node, reference in asked.items():
        try:
            answers[node] = ray.get(reference, timeout=seconds)
        except ray.exceptions.RayError as error:
            text = " ".join(str(error).split())[:200]
            raise RunError(f"{nodes[node]} does not answer: {text}") from None
    return answers


def _versions() -> Callable[[], dict[str, Any]]:
    # A function inside a function is sent as its code.
    def versions() -> dict[str, Any]:
        import importlib
        import platform

        found: dict[str, Any] = {"python": platform.python_version_tuple()[:2], "error": None}
        try:
            found["datacomp"] = importlib.import_module("datacomp").__version__
        except Exception as error:  # noqa: BLE001  whatever keeps it from being there
            found["error"] = f"{type(error).__name__}: {error}"
        return found

    return versions


def _lacks() -> Callable[[Sequence[str]], list[str]]:
    def lacks(modules: Sequence[str]) -> list[str]:
        import importlib.util

        return [name for name in modules if importlib.util.find_spec(name) is None]

    return lacks


def _looks() -> Callable[[list[str], bool], list[Any]]:
    def look(names: list[str], contents: bool) -> list[Any]:
        """Tell what is at each path: nothing, a folder (its names), or a file (size, and time or
        digest).
        """
        import hashlib
        import os
        import stat

        found: list[Any] = []
        for name in names:
            try:
                status = os.stat(name)
                if stat.S_ISDIR(status.st_mode):
                    inside = hashlib.sha256("\0".join(sorted(os.listdir(name))).encode())
                    found.append(["folder", inside.hexdigest()])
                elif contents:
                    with open(name, "rb") as file:
                        known = hashlib.file_digest(file, "sha256").hexdigest()
                    found.append(["file", status.st_size, known])
                else:
                    found.append(["file", status.st_size, status.st_mtime_ns])
            except OSError:
                found.append(None)
        return found

    return look
