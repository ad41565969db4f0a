"""One download in one case: start the holders, get, watch, kill the origin, count."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...distribution.release import Manifest
from ...errors import RunError
from .cases import Case
from .conditions import Conditions
from .energy import Meter
from .network import HOST, Network, Relay
from .process import TICK, Process

START_SECONDS = 60.0
PATIENCE = "2"
"""Seconds that a server may be silent before ``get`` looks elsewhere."""


@dataclass(frozen=True)
class Run:
    """What one download took.

    ``seconds`` is the time of the download without the start of the program; ``bytes`` what stands
    verified at the end; ``origin_bytes`` and ``peer_bytes`` what each side sent, overhead
    included; ``cpu`` seconds by role; ``joules`` is None where nothing can estimate them.
    """

    whole: bool
    seconds: float
    bytes: int
    origin_bytes: int
    peer_bytes: int
    cpu: dict[str, float]
    joules: float | None
    trouble: str | None

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes."""
        return sum(self.cpu.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; there is no ``joules`` where they are not known."""
        found = asdict(self)
        if self.joules is None:
            del found["joules"]
        return found


@dataclass(frozen=True)
class Stage:
    """Where cases are measured: ``holders[0]`` is the folder of the origin."""

    folder: Path
    holders: tuple[Path, ...]
    manifest: Manifest
    conditions: Conditions
    meter: Meter


def measure(case: Case, stage: Stage) -> Run:
    """Measure one case once. Raises RunError where a holder does not start."""
    target = stage.folder / "got"
    shutil.rmtree(target, ignore_errors=True)
    try:
        with contextlib.ExitStack() as stack:
            conditions = stage.conditions
            network = stack.enter_context(Network(conditions.rate, conditions.ping))
            processes = [
                stack.enter_context(_hold(stage.folder, folder, web))
                for folder, web in zip(stage.holders, roles(case), strict=False)
            ]
            holders = [(process, network.relay(_port_of(process))) for process in processes]
            origin, way = holders[0]
            for process, _ in holders:
                process.mark()
            with stage.meter.measured(f"{case.name} {case.killed}") as joules:
                started = time.monotonic()
                arguments = _command(case, stage, target, [relay for _, relay in holders])
                get = stack.enter_context(Process(arguments, stage.folder / "get"))
                half = sum(f.size for f in stage.manifest.files) / 2 if case.killed else None
                overdue = _watch(get, network, origin, way, half, started + conditions.timeout)
                wall = time.monotonic() - started
            for process, _ in reversed(holders):
                process.end()
        report = _report(get)
        cpu = {
            "get": get.cpu,
            "origin": origin.cpu,
            "peers": sum(process.cpu for process, _ in holders[1:]),
        }
        trouble = f"not done after {conditions.timeout:g} s" if overdue else _trouble(report, get)
        return Run(
            report.get("whole", False), report.get("seconds", wall), _there(target, stage.manifest),
            way.sent, network.sent - way.sent, cpu, joules[0] if joules else None, trouble,
        )  # fmt: skip
    finally:
        shutil.rmtree(target, ignore_errors=True)


def roles(case: Case) -> list[bool]:
    """Return for every holder whether it is a web server; the origin is the first."""
    return [True] * case.web + [False] * case.peers


def _hold(logs: Path, folder: Path, web: bool) -> Process:
    """Start a server or a seed of a folder on a free port."""
    # What an earlier download left: whom it talked to.
    shutil.rmtree(folder / ".state" / "seed", ignore_errors=True)
    common = ["--lan", "--listen", f"{HOST}:0", "--json", "--every", "3600"]
    arguments = ["serve", str(folder), "--port", "0"] if web else ["seed", str(folder), *common]
    return Process(arguments, logs / folder.name)


def _port_of(holder: Process) -> int:
    """Wait until a holder tells its port: a server its address, a seed its status."""
    line = holder.first_line(START_SECONDS)
    try:
        port = urlsplit(line).port if holder.name == "serve" else json.loads(line)["port"]
    except (ValueError, KeyError, TypeError):
        port = None
    if not isinstance(port, int):
        raise RunError(f"datacomp {holder.name}: told no port but {line[:200]!r}")
    return port


def _command(case: Case, stage: Stage, target: Path, ways: list[Relay]) -> list[str]:
    manifest = stage.manifest
    origin = f"http://{HOST}:{ways[0].port}/"
    source, options = origin, ["--json", "--patience", PATIENCE]
    if case.channel == "ipfs":
        source = f"ipfs://{manifest.root_cid}"
        # Blocks only: a gateway that serves releases, too, would be asked for files as well.
        options += ["--gateway", origin, "--no-http"]
    elif not case.web:
        version = stage.holders[0] / "versions" / manifest.version
        source = str(version / manifest.torrents["hybrid"]["file"])
        options.append("--no-http")
    if not case.peers:
        return ["get", source, str(target), *options, "--no-bittorrent"]
    options += ["--lan", "--listen", f"{HOST}:0"]
    for way in ways[case.web :]:
        options += ["--peer", f"{HOST}:{way.port}"]
    return ["get", source, str(target), *options]


def _watch(
    get: Process, network: Network, origin: Process, way: Relay, half: float | None, until: float
) -> bool:
    """Wait for the download; kill the origin half-way. Return whether it took too long."""
    while not get.ended():
        if half is not None and network.sent >= half:
            half = None
            origin.end(signal.SIGKILL)
            network.cut(way)
        if time.monotonic() > until:
            get.end(signal.SIGKILL)
            return True
        time.sleep(TICK)
    return False


def _report(get: Process) -> dict[str, Any]:
    try:
        found = json.loads(get.output())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _trouble(report: dict[str, Any], get: Process) -> str | None:
    if report.get("whole"):
        return None
    failed = report.get("failed") or {}
    return next(iter(failed.values()), None) or get.complaint() or f"exit code {get.code}"


def _there(target: Path, manifest: Manifest) -> int:
    """Return how many bytes stand under their names, which ``get`` gives to verified files only."""
    sizes = ((target / file.path, file.size) for file in manifest.files)
    return sum(size for path, size in sizes if path.is_file())
