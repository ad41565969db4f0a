"""Features that filters of a study ask of one of its runs: the pool is embedded with its model."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...filters.expression import FilterGroup, Node, leaves_of
from ...filters.spec import FilterSpec
from ...pools.engine import Engine
from ...pools.pool import Pool
from .config import Study, features_of_runs, run_of

_LONGEST = 32


def embedded(
    study: Study, pool: Pool, nodes: Sequence[Node], cluster: Callable[[], Engine | None]
) -> list[Node]:
    """Return filters that name features where they named a run; those are computed if missing.

    That is done on the study's ``cluster`` if it has one, which is asked for only then. Raises
    what ``embed_pool`` raises.
    """
    if not any(features_of_runs(spec) for spec in leaves_of(nodes)):
        return list(nodes)

    @functools.cache
    def features(dataset: str) -> str:
        return _embed(study, pool, dataset, cluster())

    def change(spec: FilterSpec) -> FilterSpec:
        named = {
            parameter: features(run_of(value)) + ("_img" if images else "")
            for parameter, (value, images) in features_of_runs(spec).items()
        }
        return replace(spec, parameters={**spec.parameters, **named})

    return [n.map(change) if isinstance(n, FilterGroup) else change(n) for n in nodes]


def _embed(study: Study, pool: Pool, dataset: str, engine: Engine | None) -> str:
    """Embed the pool with the model of a dataset's run; return what the features are called.

    Features of a name are of one model for good, so the name has some of the weights' digest.
    """
    from ...pools.clip_runs import model_of
    from ...pools.embedding.embed import embed_pool
    from ...pools.embedding.recipe import Recipe

    recipe = Recipe(model_of(study.run_dir(dataset, study.train.seeds[0]), use="features"))
    weights = recipe.identity()["weights_sha256"][:8]
    stem = re.sub(r"[^a-z0-9]+", "_", dataset.lower()).strip("_")[:_LONGEST]
    return embed_pool(pool, recipe, f"{stem or 'run'}_{weights}", engine=engine).name
