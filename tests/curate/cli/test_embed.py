import json

import pytest
from datacomp.pools import tar


@pytest.fixture
def pool(tmp_path, picture, command):
    with (tmp_path / "a.tar").open("wb") as file:
        writer = tar.TarWriter(file)
        for n in range(5):
            image = picture(n)
            writer.add(f"{n}.png", image[:200] if n == 3 else image)
            writer.add(f"{n}.txt", f"number {n}".encode())
        writer.close()
    pool = tmp_path / "pool.duckdb"
    code, _, err = command("pool", "add", pool, tmp_path / "a.tar", "--kind", "webdataset",
                           "--option", "verify=false")  # fmt: skip
    assert (code, err) == (0, "")
    return pool


def test_embed_tells_what_became_of_every_sample(pool, command, tiny, tmp_path):
    words = ["pool", "embed", pool, "--checkpoint", tiny(0).checkpoint, "--model",
             tiny(0).model_config, "--device", "cpu"]  # fmt: skip
    code, out, err = command(*words)
    assert (code, err) == (3, "")
    folder = tmp_path / "pool.duckdb.features" / "tiny"
    assert out == (
        f"features tiny: 4 embedded, 0 known before\n  set aside: 1 image_broken\nin {folder}\n"
    )
    code, out, _ = command(*words, "--json")
    found = json.loads(out)
    assert (code, found["embedded"], found["known"]) == (3, 0, 4)
    assert (found["set_aside"], found["drift"]) == ({"image_broken": 1}, None)
    code, out, _ = command("pool", "info", pool)
    assert "\nfeatures\n" in out
    assert "tiny_img" in out
    code, out, err = command(*words, "--precision", "bf16", "--name", "tiny")
    assert code == 2
    assert err == (
        f"error: {pool}: its features 'tiny' were made with precision fp32, now it is bf16; "
        "features of two kinds are not mixed, give these another --name\n"
    )
    half = tmp_path / "half.npy"
    code, _, err = command(
        "filter", "run", pool, "clip_score:features=tiny,fraction=0.5", "-o", half
    )
    assert code == 0
    assert "score clip_score: tiny" in err
    code, out, _ = command(
        "filter", "run", pool, "clip_score:features=tiny", "--explain", "-o", half
    )
    assert code == 0
    assert "what pool embed wrote" in out
    code, out, err = command(*words, "--tome", "1")
    assert code == 3
    assert "\ntoken merging, 1 a layer, on 4 images: " in out
