import io

import numpy as np
import pytest
from datacomp.errors import UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.pixels.near_images import PerceptualHash, first_of_each, perceptual_hash
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import to_hex
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def smooth(seed, size=(96, 72)):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def test_the_hash_is_that_of_the_common_library():
    """ImageHash's algorithm gives this; 300 random images were compared once as well."""
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([x * 4 % 256, y * 5 % 256, x * y % 256], 2).astype(np.uint8)
    assert perceptual_hash(Image.fromarray(pixels)) == 0x80031F3F3E787971
    assert perceptual_hash(Image.new("RGB", (5, 900))) == 0
    white = perceptual_hash(Image.new("RGB", (64, 64), (255, 255, 255)))
    assert white == 1 << 63


def test_small_changes_change_few_bits():
    for seed in range(5):
        whole = perceptual_hash(smooth(seed))
        buffer = io.BytesIO()
        smooth(seed).resize((60, 50)).save(buffer, "JPEG", quality=60)
        buffer.seek(0)
        assert (whole ^ perceptual_hash(Image.open(buffer))).bit_count() <= 4
        assert (whole ^ perceptual_hash(smooth(seed + 50))).bit_count() > 12


def by_definition(hashes, distance):
    group = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            if (hashes[i] ^ hashes[j]).bit_count() <= distance and group[i] != group[j]:
                low, high = sorted((group[i], group[j]))
                group = [low if g == high else g for g in group]
    return [group[i] == i for i in range(len(hashes))]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=8)), max_size=25),
    st.integers(0, 7),
)
def test_groups_are_those_of_all_pairs(drawn, distance):
    bases = [0, 2**64 - 1, 0x0F0F0F0F0F0F0F0F, 0x123456789ABCDEF0]
    hashes = [bases[base] ^ sum(1 << bit for bit in bits) for base, bits in drawn]
    found = first_of_each(np.array(hashes, np.uint64), distance)
    assert found.tolist() == by_definition(hashes, distance)


def test_a_pool(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        smooth(seed).save(folder / f"{seed}.png")
        smooth(seed).resize((48, 36)).save(folder / f"{seed}small.png")
        (folder / f"{seed}.txt").write_text("whole")
        (folder / f"{seed}small.txt").write_text("small")
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("folder", folder))
        found = run_filters(pool, [parse("near_images")])
        assert found.steps[0].reasons == {"near_duplicate": 3}
        uids = {
            shard: int(uid) for shard, uid in pool.sql("SELECT shard, uid FROM samples").fetchall()
        }
        pairs = [(uids[f"{n}.png"], uids[f"{n}small.png"]) for n in range(3)]
        assert [int(uid, 16) for uid in to_hex(found.uids)] == sorted(map(min, pairs))
        # The hashes are kept: another distance reads no image.
        (folder / "0.png").unlink()
        assert run_filters(pool, [parse("near_images:distance=0")]).unreadable is None


def test_what_cannot_be_decoded_has_no_hash(picture):
    class Batch:
        images = (b"nothing", picture(1))

    first, second = PerceptualHash().score(Batch).to_pylist()
    assert first is None
    assert 0 <= second < 2**64


def test_wrong_parameters():
    with pytest.raises(UsageError, match=r"^filter near_images: parameter distance is 8"):
        registry.create("near_images", {"distance": 8})
