import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.filters import parse, run_filters
from datacomp.pools.uids import to_hex

INK = [0.0, 0.004999, 0.009999, 0.01, 0.2, 1.0, None]


@pytest.mark.parametrize(
    ("text", "kept"), [("min_ink", [3, 4, 5]), ("min_ink:share=0.2", [4, 5]),
                       ("min_ink:share=0", [0, 1, 2, 3, 4, 5])],
)  # fmt: skip
def test_the_images_that_show_enough_are_kept(pool_of, text, kept):
    pool = pool_of(ink=INK)
    found = run_filters(pool, [parse(text)])
    assert [int(uid, 16) for uid in to_hex(found.uids)] == kept
    assert found.steps[0].reasons == {
        reason: count
        for reason, count in (("ink_unknown", 1), ("too_little_ink", 6 - len(kept)))
        if count
    }


def test_a_pool_without_ink_is_told(pool_of):
    with pytest.raises(MissingError, match=r"no column 'ink'; .*; it comes with sources of synth"):
        run_filters(pool_of(text=["a photo"]), [parse("min_ink")])
    with pytest.raises(UsageError, match=r"parameter share is 2"):
        run_filters(pool_of("inked", ink=INK), [parse("min_ink:share=2")])
