"""The effective pool: which samples are at hand, on which hosts, and why others are not."""

import numpy as np
from datacomp.pools import Pool
from datacomp.pools.fetches import available_uids, effective_pool
from datacomp.pools.uids import digest_of_uids, to_hex


def test_the_effective_pool(web, urls, urls_pool, fetch, tmp_path):
    pool = urls_pool([*urls(6, bad=(1, 2)), "http://Other.invalid/1.jpg", None])
    with Pool.open(pool) as opened:
        nothing = effective_pool(opened)
        assert nothing.reasons == {"pending": 7, "no_url": 1}
        assert nothing.total.share == 0
    fetch(pool, tmp_path / "out")
    with Pool.open(pool) as opened:
        half = opened.uids()[:4]
        found = effective_pool(opened, {"half": half, "double": np.repeat(half, 2)})
        available = available_uids(opened)
    assert (found.total.samples, found.total.available) == (8, 4)
    assert found.reasons == {"http_404": 2, "dns": 1, "no_url": 1}
    assert found.digest == digest_of_uids(available)
    in_half = len(set(to_hex(half)) & set(to_hex(available)))
    assert [(one.samples, one.available) for one in found.subsets.values()] == [
        (4, in_half), (8, 2 * in_half),
    ]  # fmt: skip
    assert [(h.host, h.samples, h.available, h.failed, h.most) for h in found.hosts] == [
        ("127.0.0.1", 6, 4, 2, "http_404"), ("other.invalid", 1, 0, 1, "dns"),
    ]  # fmt: skip


def test_hosts_are_cut_out_of_urls_and_counted(urls_pool):
    names = {
        "http://[2001:db8::1]:80/a": "[2001:db8::1]", "http://u:p@[2001:DB8::1]/": "[2001:db8::1]",
        "http://a.org?x=1": "a.org", "http://a.org#b/c": "a.org",
        "http://A.org:8080?u=me@b.org": "a.org",
        "http://me@c.org/x@y": "c.org",
    }  # fmt: skip
    with Pool.open(urls_pool(list(names))) as pool:
        found = effective_pool(pool)
        assert [(one.host, one.samples) for one in found.hosts] == [
            ("a.org", 3), ("[2001:db8::1]", 2), ("c.org", 1),
        ]  # fmt: skip
        few = effective_pool(pool, hosts=1)
    assert ([one.host for one in few.hosts], few.host_count) == (["a.org"], 3)
    assert few.to_dict()["host_count"] == 3


def test_a_pool_that_came_with_images_is_at_hand(pool_of):
    pool = pool_of(uid=[f"{i:032x}" for i in range(4)])
    pool.sql("UPDATE samples SET shard = 'x.tar' WHERE url LIKE '%/1'")
    assert effective_pool(pool).total.available == 1
