"""``datacomp pool browse``: look at a pool in a browser, live."""

from __future__ import annotations

from pathlib import Path

import click

from .common import examples


@click.command(
    epilog=examples(
        "datacomp pool browse pool.duckdb",
        "datacomp pool browse metadata --sketch l14_img --port 8000",
        "datacomp pool browse pool.duckdb --model ViT-L-14 --checkpoint openai.pt "
        "--features l14_img",
    )
)
@click.argument("pool", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on. Whoever reaches it sees the whole pool.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0,
              show_default=True, help="Longest time that a question may take.")  # fmt: skip
@click.option("--sketch", multiple=True, metavar="NAME",
              help="Make sketches of these features first, beside POOL, such as l14_img: with "
                   "them, what is like what is found among millions. Once is enough.")  # fmt: skip
@click.option("--index/--no-index", default=True, show_default=True,
              help="Make an index beside a POOL of 500,000 samples or more first, once until it "
                   "changes: words and orders then take a fraction of a second.")  # fmt: skip
@click.option("--model", help="Architecture of a model that reads images and texts to search by.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Its weights.")
@click.option("--model-config", type=click.Path(path_type=Path),
              help="Its configuration, where open_clip does not know it by name.")  # fmt: skip
@click.option("--features", metavar="NAME",
              help="Which of the pool's features the model gives images: l14_img.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--memory", metavar="SIZE", help="Most memory DuckDB may take, such as 2GB or 25%.")
@click.option("--threads", type=click.IntRange(1), help="Threads DuckDB may take; else every core.")
def browse(
    pool: Path, host: str, port: int, seconds: float, sketch: tuple[str, ...], index: bool,
    model: str | None,
    checkpoint: Path | None, model_config: Path | None, features: str | None, device: str,
    memory: str | None, threads: int | None,
) -> None:  # fmt: skip
    """Serve pages about POOL until interrupted: search captions, ask in SQL, see what is alike.

    Nothing is ever changed, no other file can be reached by a question, and no page asks anybody
    else for anything. The pool is left alone while nobody looks, so that others can write to it.
    """
    from ..browse import serve
    from ..browse.alike import embedder_of

    embedder = embedder_of(model, checkpoint, model_config, features, device)
    serve(
        pool, host, port, seconds=seconds, sketch=sketch, index=index, embedder=embedder,
        memory_limit=memory, threads=threads, ready=click.echo,
    )  # fmt: skip
