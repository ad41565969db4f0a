"""``datacomp submit``: put a dataset's runs on a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from .common import emit_json, examples, json_option


@click.command(
    epilog=examples(
        "datacomp submit runs/clip30 --track filtering --method 'CLIP score, top 30 %' "
        "--author 'A. Person' --samples clip30.npy --to leaderboard",
        "datacomp submit runs/seed0 runs/seed1 --method mine --author 'A. Person' "
        "--samples mine.npy --pool small.duckdb --to https://board.example --token-file token.txt",
    )
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--track", type=click.Choice(["filtering", "byod"]), default="filtering",
              show_default=True, help="Chosen from the pool, or data of your own.")  # fmt: skip
@click.option("--method", required=True, help="The name of what you did.")
@click.option("--author", required=True, help="Who is to be named.")
@click.option("--samples", multiple=True, required=True, metavar="FILE[,FILE]",
              help="The subset (.npy), or a parquet of uid, weight or url, text.")  # fmt: skip
@click.option("--writeup", metavar="URL", help="Where the method is described.")
@click.option("--pool", type=click.Path(path_type=Path),
              help="The pool chosen from: its digest and how much of it is at hand.")  # fmt: skip
@click.option("--available", type=click.IntRange(0), metavar="N",
              help="How many samples of the pool could be fetched.")  # fmt: skip
@click.option("--hardware", metavar="TEXT", help="What it ran on, such as '4 x A100'.")
@click.option("--energy", type=click.FloatRange(0), metavar="KWH", help="Energy, if measured.")
@click.option("--checkpoint", is_flag=True, help="Send the checkpoints too.")
@click.option("--to", "target", required=True, metavar="TARGET",
              help="A leaderboard's folder, its server, or hf://USER/REPOSITORY.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path),
              help="A file with the server's token; else $DATACOMP_TOKEN, $HF_TOKEN.")  # fmt: skip
@json_option
def submit(
    *,
    runs: tuple[Path, ...],
    track: str,
    method: str,
    author: str,
    samples: tuple[str, ...],
    writeup: str | None,
    pool: Path | None,
    available: int | None,
    hardware: str | None,
    energy: float | None,
    checkpoint: bool,
    target: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Submit the RUNs of one dataset, seeds of one recipe, to a leaderboard.

    All that is sent is public, so an e-mail address or a token in it is an error. The submission
    is checked like a stranger's before it is sent: what would be refused there is refused here.
    """
    from ...evaluate.leaderboard.make import Statement
    from ..leaderboard.sending import describe_samples, send, to_folder

    files = [Path(name) for given in samples for name in given.split(",") if name]
    if not files:
        raise UsageError("--samples names no file")
    told: dict[str, Any] = describe_samples(files, pool)
    if available is not None and available != told["pool"].get("available"):
        told["pool"]["available"] = available
        told["pool"].pop("available_digest", None)
    statement = Statement(
        track, method, author, writeup, told["pool"], told["pipeline"], told["funnel"],
        hardware, energy,
    )  # fmt: skip
    if target.startswith(("http://", "https://", "hf://")):
        answer = send(target, runs, files, statement, checkpoint, token_file)
    elif "://" in target:
        raise UsageError(f"--to {target}: expected a folder, https:// or hf://USER/REPOSITORY")
    else:
        answer = to_folder(Path(target), runs, files, statement, checkpoint)
    if as_json:
        emit_json(answer)
        return
    click.echo(f"{answer['id']}: {'submitted' if answer['new'] else 'was there already'}")
    for key in ("place", "page", "next"):
        if answer.get(key):
            click.echo(f"{key + ':':7}{answer[key]}")
