"""``datacomp pool fetch`` and what ``pool info`` says afterwards."""

import hashlib
import json

import duckdb
import numpy as np
import pytest
from datacomp.curate.fetching import spread
from datacomp.pools import Pool
from datacomp.pools.uids import UID_DTYPE, digest_of_uids, load_subset


@pytest.fixture
def _in_this_process(monkeypatch):
    def local(job, rows, processes):
        yield from map(job, rows)

    monkeypatch.setattr(spread, "_local", local)


@pytest.mark.usefixtures("_in_this_process")
def test_fetch_and_info(command, web, urls_pool, tmp_path):
    pool = urls_pool([f"{web.url}/{kind}/{i}.jpg" for i, kind in enumerate(["img", "img", "no"])])
    out = tmp_path / "out"
    code, printed, _ = command("pool", "info", pool)
    assert (code, "effective" in printed) == (0, False)
    code, printed, err = command("pool", "fetch", pool, out, "--allow-private", "--threads", 4)
    assert code == 3, err
    lines = printed.splitlines()
    assert lines[0].startswith(f"{out}: 2 of 3 URLs fetched into 1 new shard in ")
    assert lines[1:] == ["  failed: 1 http_404", "2 of 3 samples at hand"]
    code, printed, _ = command("pool", "fetch", pool, out, "--json")
    told = json.loads(printed)
    assert (code, told["fetched"], told["shards"], told["available"]) == (0, 0, 0, 2)
    assert told["before"] == 2
    lines = command("pool", "fetch", pool, out)[1].splitlines()
    again = "; what failed before is fetched again with --retry REASON,..."
    assert lines == [f"{out}: no URL left to fetch{again}", "2 of 3 samples at hand"]

    effective = tmp_path / "effective.npy"
    with Pool.open(pool) as opened:
        np.save(tmp_path / "one.npy", np.array(opened.uids()[:1], UID_DTYPE))
    code, printed, _ = command("pool", "info", pool, "--at-hand", effective, "--subset",
                               tmp_path / "one.npy")  # fmt: skip
    digest = digest_of_uids(load_subset(effective))
    lines = printed.split("\neffective pool: ")[1].splitlines()
    assert lines[:2] == ["2 of 3 samples at hand (66.7%)", f"digest {digest}"]
    words = [line.split() for line in lines]
    assert ["http_404", "1"] in words
    assert ["127.0.0.1", "3", "2", "1", "http_404"] in words
    assert [str(tmp_path / "one.npy"), "1"] == words[5][:2]
    code, printed, _ = command("pool", "info", pool, "--json", "--subset", tmp_path / "one.npy")
    told = json.loads(printed)["effective"]
    assert (told["digest"], told["samples"], told["available"]) == (digest, 3, 2)
    assert told["reasons"] == {"http_404": 1}
    assert told["subsets"][str(tmp_path / "one.npy")]["samples"] == 1


@pytest.mark.usefixtures("_in_this_process")
def test_what_verify_did_not_compare_is_told(command, web, urls, urls_pool, jpeg, tmp_path):
    digest = hashlib.sha256(jpeg(2)).hexdigest()
    pool, out = urls_pool(urls(3), sha256=["0" * 64, None, digest]), tmp_path / "out"
    with Pool.open(pool) as opened:
        np.save(tmp_path / "one.npy", opened.uids(f"url = '{web.url}/img/0.jpg'"))
    fetch = ("pool", "fetch", pool, out, "--allow-private", "--threads", 2)
    assert command(*fetch, "--subset", tmp_path / "one.npy")[0] == 0
    code, printed, _ = command(*fetch, "--verify", "sha256")
    assert (code, printed.splitlines()[1:]) == (
        0, ["2 of 3 samples at hand", "  1 before; --verify compares only what it fetches"]
    )  # fmt: skip
    # As the documentation says, the digests of what came are there to be compared.
    with duckdb.connect(str(pool), read_only=True) as opened:
        others = opened.execute(
            f"SELECT samples.url FROM samples JOIN read_parquet('{out}/[0-9]*.parquet') AS came "
            "ON samples.uid = ('0x' || came.uid)::UHUGEINT "
            "WHERE status = 'success' AND came.sha256 <> lower(samples.sha256)"
        ).fetchall()
    assert others == [(f"{web.url}/img/0.jpg",)]


def test_hosts_that_are_not_printed_are_counted(command, urls_pool, tmp_path):
    pool = urls_pool([f"http://h{i:02d}.invalid/1.jpg" for i in range(12)])
    np.save(tmp_path / "none.npy", np.empty(0, UID_DTYPE))
    info = ("pool", "info", pool, "--subset", tmp_path / "none.npy")
    code, printed, _ = command(*info)
    lines = printed.splitlines()
    assert (code, lines[-1], lines[-2].split()[0]) == (0, "and 2 more hosts", "h09.invalid")
    told = json.loads(command(*info, "--json")[1])["effective"]
    assert (len(told["hosts"]), told["host_count"]) == (12, 12)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--retry", "tiemout"], 2, "--retry 'tiemout': no such reason (did you mean 'timeout'?)"),
        (["--subset", "none.npy"], 1, "none.npy: no such subset file"),
        (["--verify", "md5"], 2, "'md5' is not 'sha256'"),
        (["--engine", "spark"], 2, "engine 'spark' is not known"),
    ],
)
def test_wrong_use(command, urls_pool, tmp_path, options, code, message):
    pool = urls_pool(["http://x.invalid/1.jpg"])
    found, _, err = command("pool", "fetch", pool, tmp_path / "out", *options)
    assert (found, message in err) == (code, True), err
    assert not (tmp_path / "out").exists()
