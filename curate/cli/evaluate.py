"""``datacomp evaluate`` and ``datacomp evalsets``: measure models, list and build test sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ...errors import MissingError, UsageError
from ...progress import say
from .common import PLACE, SET_ASIDE, emit_json, emit_table, examples, json_option
from .download import evalsets_download
from .engines import engine_option

if TYPE_CHECKING:
    from ...evaluate.evalsets import EvalSet
    from ...evaluate.harness import Evaluation, Examination
    from ...evaluate.results import Result
    from ...evaluate.witness import Witness
    from ...pools.engine import Engine


@click.command(
    epilog=examples(
        "datacomp evaluate runs/baseline",
        "datacomp evaluate runs/baseline --data evalsets --suite datacomp --tasks 'vtab/*,mnist'",
        "datacomp evaluate --model ViT-B-32 --checkpoint b32.pt --data evalsets -o b32.jsonl",
        "datacomp evaluate runs/visualatom --data evalsets --tasks demo/digits --probe knn",
        "datacomp evaluate runs/baseline --corrupt gaussian_noise:3",
        "datacomp evaluate runs/baseline --tasks mnist --pages mistakes --keep-embeddings kept",
        "datacomp evaluate --embeddings kept -o again.jsonl",
        "datacomp evaluate runs/baseline --data hub --suite datacomp",
        "torchrun --nproc_per_node 8 -m datacomp.curate.cli evaluate runs/baseline",
    )
)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME_OR_CONFIG.json",
              help="Architecture, instead of a run; timm:NAME for a vision encoder.")  # fmt: skip
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Its weights.")
@click.option("--data", default="evalsets", show_default=True, metavar="DIR_OR_URL",
              help="Folder of evaluation sets (wds_..._test), its URL, or hub: streamed from the "
              "Hugging Face Hub.")  # fmt: skip
@click.option("--tasks", metavar="GLOB,...", help="Only tasks whose keys match.")
@click.option("--suite", help="All tasks of a suite: demo or datacomp. "
              "Without it, those whose folders lie in the data.")  # fmt: skip
@click.option("--probe", type=click.Choice(["knn", "linear"]),
              help="Measure the image features by class labels, instead of zero-shot.")  # fmt: skip
@click.option("--corrupt", metavar="KIND:SEVERITY",
              help="Corrupt every image first, as ImageNet-C does; severities 1 to 5.")  # fmt: skip
@click.option("--keep-embeddings", "keep", type=click.Path(path_type=Path), metavar="DIR",
              help="Keep all embeddings, so that metrics can be computed anew.")  # fmt: skip
@click.option("--embeddings", "kept", type=click.Path(path_type=Path), metavar="DIR",
              help="Compute metrics from kept embeddings, without run and model.")  # fmt: skip
@click.option("--pages", type=click.Path(path_type=Path), metavar="DIR",
              help="A page for each task: confusions, worst mistakes, ranks, groups.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, bf16 or fp16.")
@click.option("--workers", type=click.IntRange(1),
              help="Threads that decode images, and without a GPU embed them "
              "[default: all processors].")  # fmt: skip
@engine_option
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Results file; by default eval_results.jsonl (knn_results.jsonl, "
              "gaussian_noise-3_results.jsonl) in the run, or beside the checkpoint.")  # fmt: skip
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    *,
    run: Path | None,
    model: str | None,
    checkpoint: Path | None,
    data: str,
    tasks: str | None,
    suite: str | None,
    probe: str | None,
    corrupt: str | None,
    keep: Path | None,
    kept: Path | None,
    pages: Path | None,
    device: str,
    precision: str,
    workers: int | None,
    engine: Engine | None,
    batch_size: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Evaluate a RUN, or a --model with a --checkpoint, zero-shot or with a --probe.

    Each result is appended to the results file at once; run the same command again to go on
    where it stopped. Exit code 3 if samples were set aside or some tasks failed, 1 if all did.
    Under torchrun the tasks are divided among the processes, and 3 is 0.
    """
    from ...evaluate.corruptions import Corruption
    from ...evaluate.harness import evaluate as evaluate_model
    from ...evaluate.harness import recompute
    from ...evaluate.models import resolve_model
    from ...evaluate.spread import Processes, evaluate_together
    from ...evaluate.tasks import select_tasks

    given = sum(value is not None for value in (run, model, kept))
    if given != 1 or (model is None) != (checkpoint is None):
        raise UsageError("give a RUN, or --model and --checkpoint, or --embeddings")
    if kept is not None:
        _refuse_beside_embeddings(ctx)
        if output is None:
            raise UsageError("name the results file with --output")
        evaluation = recompute(kept, output, _patterns(tasks), probe)
        _tell(ctx, evaluation, output, as_json)
        return
    spec = resolve_model(run if run is not None else model or "", checkpoint)
    corruption = None if corrupt is None else Corruption.parse(corrupt)
    if output is None:
        folder = run if run is not None else spec.checkpoint.parent
        output = folder / _results_name(probe, corrupt)
    processes = Processes.of_torchrun()
    if processes is not None and engine is not None:
        raise UsageError("torchrun and --engine both divide the tasks; take one of them")
    chosen = select_tasks(_patterns(tasks), suite, data)
    options = {
        "probe": probe, "corruption": corruption, "device": device, "precision": precision,
        "workers": workers, "batch_size": batch_size, "keep": keep,
        "examine": None if pages is None else _examination(pages),
    }  # fmt: skip
    if processes is None:
        evaluation = evaluate_model(spec, data, chosen, output, engine=engine, **options)
    else:
        evaluation = evaluate_together(processes, spec, data, chosen, output, **options)
        if processes.rank:
            ctx.exit(1 if evaluation.failed and not evaluation.results else 0)
    _tell(ctx, evaluation, output, as_json)


_OF_A_MODEL = (
    "data", "suite", "corrupt", "keep", "pages", "device", "precision", "workers", "engine",
    "batch_size",
)  # fmt: skip
"""What says how a model is run, or on what: it has no meaning beside kept embeddings."""


def _refuse_beside_embeddings(ctx: click.Context) -> None:
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if option.name in _OF_A_MODEL and given:
            raise UsageError(
                f"{option.opts[0]} does not go with --embeddings, which has neither model nor "
                "images; leave it out (--tasks chooses among what is kept)"
            )


def _results_name(probe: str | None, corrupt: str | None) -> str:
    from ...evaluate.results import RESULTS

    parts = [part.replace(":", "-") for part in (corrupt, probe) if part]
    return f"{'_'.join(parts)}_results.jsonl" if parts else RESULTS


def _examination(pages: Path) -> Examination:
    from ...evaluate.harness import Examination
    from ..report.task_page import page_path, write_page

    def make(evalset: EvalSet, witness: Witness, result: Result) -> None:
        say(f"{result.key}: {write_page(pages, evalset, witness, result)}")

    return Examination(make, lambda task: page_path(pages, task).is_file())


def _tell(ctx: click.Context, evaluation: Evaluation, output: Path, as_json: bool) -> None:
    """Print what came of an evaluation, and exit."""
    if as_json:
        emit_json(
            {
                "output": str(output),
                "results": [result.to_dict() for result in evaluation.results],
                "skipped": evaluation.skipped,
                "failed": evaluation.failed,
                "absent": evaluation.absent,
            }
        )
    else:
        emit_table(
            [
                (
                    result.key,
                    "-" if result.value is None else f"{result.value:.4f}",
                    "{:.4f} to {:.4f}".format(*result.interval) if result.interval else "-",
                    result.provenance.get("n", "-"),
                    result.set_aside,
                    "done before" if result.key in evaluation.skipped else "",
                )
                for result in evaluation.results
            ]
            # Why stands on standard error, where it was said at once.
            + [
                (key, "-", "-", "-", "-", "absent" if key in evaluation.absent else "failed")
                for key in evaluation.failed
            ],
            ("task", "score", "95 % interval", "samples", "set aside", ""),
        )
    ctx.exit(_exit_code(evaluation))


def _patterns(tasks: str | None) -> list[str]:
    return [pattern.strip() for pattern in (tasks or "").split(",") if pattern.strip()]


def _exit_code(evaluation: Evaluation) -> int:
    if evaluation.failed and not evaluation.results:
        return 1
    # torchrun takes any other exit code for a crash.
    partly = 0 if "TORCHELASTIC_RUN_ID" in os.environ else SET_ASIDE
    return partly if evaluation.failed or evaluation.set_aside else 0


@click.group()
def evalsets() -> None:
    """List the tasks, check their data, build the demo suite."""


@evalsets.command(
    "list", epilog=examples("datacomp evalsets list", "datacomp evalsets list --json")
)
@click.option("--suite", help="Only this suite: demo or datacomp.")
@json_option
def list_(suite: str | None, as_json: bool) -> None:
    """List every task: size, classes, main metric, chance level, licence and gate of the images."""
    from ...evaluate.tasks import folder_names, select_tasks

    tasks = select_tasks(suite=suite)
    if as_json:
        emit_json([{**task.model_dump(), "folder": folder_names(task)[0]} for task in tasks])
        return
    emit_table(
        [
            (
                task.key,
                task.suite,
                task.size,
                task.classes or "-",
                task.main_metric or "-",
                "-"
                if task.chance is None
                else f"{task.chance:.4f}" + (" (models stay near it)" if task.near_chance else ""),
                task.terms,
            )
            for task in tasks
        ],
        ("task", "suite", "images", "classes", "main metric", "chance", "licence"),
    )


@evalsets.command(
    epilog=examples(
        "datacomp evalsets check evalsets",
        "datacomp evalsets check evalsets --suite datacomp",
    )
)
@click.argument("place", metavar="DIR", type=PLACE)
@click.option("--tasks", metavar="GLOB,...", help="Only tasks whose keys match.")
@click.option("--suite", help="All tasks of a suite, also those whose folders are not there.")
@json_option
@click.pass_context
def check(
    ctx: click.Context, place: Path | str, tasks: str | None, suite: str | None, as_json: bool
) -> None:
    """Check that the sets in DIR are whole, well-formed and unchanged.

    The first time, the digest of each set is recorded in DIR/digests.jsonl; ever after, and by
    every evaluation, it is compared. Exit code 1 if anything is wrong, 3 if samples are flawed.
    """
    from dataclasses import asdict

    from ...evaluate.checking import check_sets
    from ...evaluate.evalsets import absence
    from ...evaluate.tasks import HUB, find_folder, is_url, select_tasks

    folder = Path(place)
    if is_url(place) or (str(place) == HUB and not folder.is_dir()):
        raise UsageError(
            f"{place}: check reads a folder; use 'datacomp evaluate --data', which checks what it "
            "streams, or 'datacomp evalsets download'"
        )
    chosen = select_tasks(_patterns(tasks), suite, folder)
    absent = [task for task in chosen if find_folder(folder, task) is None]
    if len(absent) == len(chosen):
        raise MissingError(absence(folder, absent, len(chosen)))
    found = check_sets(folder, [task for task in chosen if task not in absent])
    right = [one for one in found if one.error is None]
    if as_json:
        emit_json([asdict(one) for one in found])
    elif right:
        emit_table(
            [
                (one.key, one.samples, one.flawed, (one.digest or "")[:12],
                 "as recorded" if one.known else "recorded now")
                for one in right
            ],
            ("task", "samples", "flawed", "sha256", ""),
        )  # fmt: skip
    if absent:
        click.echo(f"error: {absence(folder, absent, len(chosen))}", err=True)
    for one in found:
        if one.error is not None:
            click.echo(f"error: {one.error}", err=True)
        elif one.first is not None:
            click.echo(f"warning: {one.key}: {one.flawed:,} flawed, first {one.first}", err=True)
    flawed = any(one.flawed for one in found)
    ctx.exit(1 if len(right) < len(chosen) else SET_ASIDE if flawed else 0)


@evalsets.command(epilog=examples("datacomp evalsets demo evalsets"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def demo(folder: Path, as_json: bool) -> None:
    """Build the demo suite in DIR: digits, letters and symbols, with no network.

    DIR must be new, or hold nothing but evaluation sets.
    """
    from ...evaluate.demo_suite import build_demo_suite
    from ...evaluate.tasks import folder_names, load_tasks

    known = {name for task in load_tasks().values() for name in folder_names(task)}
    foreign = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    foreign = sorted(name for name in foreign if name[0] != "." and name not in known)
    if foreign:
        raise UsageError(f"{folder}: holds {foreign[0]!r}, no evaluation set; name a new folder")
    built = build_demo_suite(folder)
    if as_json:
        emit_json({"folder": str(folder), "tasks": built})
        return
    for key, path in built.items():
        click.echo(f"{key}: {path}")


evalsets.add_command(evalsets_download, "download")
