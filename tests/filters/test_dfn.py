import pytest
from datacomp.errors import MissingError
from datacomp.filters import parse, registry, run_filters
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import to_hex


def test_the_best_of_the_network_stay_and_scores_are_those_of_clip_score(tmp_path, picture, tiny):
    folder, model = tmp_path / "photos", tiny()
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.png").write_bytes(picture(i, width=40, height=30))
        (folder / f"{i}.txt").write_text(f"caption {i}")
    weights = f"checkpoint={model.checkpoint},model=tiny,model_config_file={model.model_config}"
    with Pool.create(tmp_path / "photos.duckdb") as pool:
        pool.add(open_source("folder", folder))
        found = run_filters(pool, [parse(f"dfn:{weights},device=cpu")])
        assert found.steps[0].reasons == {"low_clip_score": 17}  # 15 % of twenty stay
        best = pool.sql(
            "SELECT printf('%032x', uid) FROM score_values_1 ORDER BY value DESC LIMIT 3"
        ).fetchall()
        assert sorted(uid for (uid,) in best) == to_hex(found.uids)
        again = run_filters(pool, [parse(f"clip_score:{weights},device=cpu,fraction=0.5")])
        assert again.scoring_now == 0
        assert again.scores[0]["digest"] == found.scores[0]["digest"]


def test_a_network_must_be_there():
    with pytest.raises(MissingError, match=r"^dfn: no checkpoint at /none"):
        registry.create("dfn", {"checkpoint": "/none"}).scorers()
