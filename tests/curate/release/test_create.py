import json

import pytest
from datacomp.curate.release.create import find_parent, read_about, read_scores
from datacomp.curate.shards.folder import entry_of
from datacomp.distribution import manifest as manifests
from datacomp.distribution.release import Releases, Removal
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError
from datacomp.pools.uids import from_hex

from .conftest import KEY, PIECE, uid_of, write_shard

FILES = [
    "00000000.tar", "00000000_stats.json", "00000001.tar", "00000001_stats.json",
    "00000002.tar", "00000002_stats.json", "index.parquet",
]  # fmt: skip


def test_a_tar_put_into_a_build_by_hand_is_told(dataset, publish, capsys):
    manifests.write(dataset / "manifest.json", manifests.manifest_of(
        [entry_of(path) for path in sorted(dataset.glob("*"))]))  # fmt: skip
    publish("1")
    assert capsys.readouterr().err == ""
    write_shard(dataset, 3, range(15, 18))
    publish("2")
    assert capsys.readouterr().err == (
        f"warning: {dataset}: 00000003.tar is not of its build, so meta.json and sample_ids.npy do "
        "not count it; grow a build with 'datacomp shards append'\n"
    )


def test_shards_are_published_with_their_index(publish, releases):
    report = publish("1")
    manifest = Releases(releases).latest.manifest
    assert [file.path for file in manifest.files] == FILES
    assert (report.samples, report.copied) == (15, 0)
    assert manifest.counts == {
        "files": 7, "shards": 3, "samples": 15, "bytes": sum(f.size for f in manifest.files)
    }  # fmt: skip


def test_what_is_ours_or_hidden_stays_here(publish, dataset, releases):
    for name in ("manifest.json", "build.json", ".hidden", "set_aside/x.bad", ".git/config"):
        (dataset / name).parent.mkdir(exist_ok=True)
        (dataset / name).write_text("{}")
    (dataset / "sub").mkdir()
    (dataset / "sub/manifest.json").write_text("{}")
    publish("1")
    paths = [file.path for file in Releases(releases).latest.manifest.files]
    assert paths == sorted([*FILES, "sub/manifest.json"])


def test_links_that_leave_the_folder_are_refused(publish, dataset, tmp_path):
    (tmp_path / "secret").write_text("x")
    (dataset / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeInputError, match=r"link: a link that leaves the folder is not publ"):
        publish("1")
    (dataset / "link").unlink()
    (dataset / "link").symlink_to(tmp_path)
    with pytest.raises(UnsafeInputError, match=r"link: a link to a folder is not published"):
        publish("1")


def test_broken_shards_are_refused(publish, dataset, releases):
    path = dataset / "00000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"truncated at byte 3000.*'datacomp shards check --repair"):
        publish("1")
    assert not releases.exists()


def test_a_folder_without_files(publish, dataset, releases):
    for path in dataset.iterdir():
        path.unlink()
    (dataset / ".hidden").write_text("x")
    with pytest.raises(DataError, match=r"/data: there is no file to publish in it$"):
        publish("1")
    assert not releases.exists()


def test_releases_inside_what_is_released(dataset):
    from datacomp.curate.release import create_release
    from datacomp.distribution.release import Plan

    with pytest.raises(UsageError, match=r"/data/r: lies inside .*/data, which is published; cho"):
        create_release(dataset, dataset / "r", Plan("cats", "1"), KEY)


def test_any_folder_of_files_will_do(publish, dataset, releases):
    for path in dataset.iterdir():
        path.unlink()
    (dataset / "a.csv").write_text("x")
    assert publish("1").samples is None
    assert [f.path for f in Releases(releases).latest.manifest.files] == ["a.csv"]


def test_one_percent_more_is_one_percent_read(publish, dataset):
    first = publish("1")
    write_shard(dataset, 3, range(15, 20))
    second = publish("2")
    shard = (dataset / "00000003.tar").stat().st_size
    index = (dataset / "index.parquet").stat().st_size
    assert second.bytes_read == shard + index + len('{"successes": 5}')
    assert second.bytes_read < first.bytes_read


def test_samples_that_were_taken_back_cannot_return(publish, dataset):
    publish("1")
    write_shard(dataset, 1, [5, 6, 8, 9])
    publish("2", removal=Removal("2", 2, "asked", (uid_of(7),), ()))
    write_shard(dataset, 1, [5, 6, 7, 8, 9])
    with pytest.raises(DataError) as caught:
        publish("3")
    assert str(caught.value) == (
        f"{dataset}: 00000001.tar holds the sample {uid_of(7)}, which was taken back; run "
        "'datacomp release revoke' with it again, or remove it"
    )


def test_the_datasheet_knows_pool_and_subset(publish, dataset, pool_of, tmp_path):
    from datacomp.curate.subset import write_subset

    pool_of("pool", truth=["x"] * 4).close()
    funnel = [{"filter": "basic", "before": 20, "after": 15, "reasons": {}}]
    uids = from_hex(sorted(uid_of(n) for n in range(15)))
    write_subset(tmp_path / "s.npy", uids, {"funnel": funnel})
    (dataset / "missing.txt").write_text(f"{uid_of(99)} no_image\n")
    publish("1", pool=tmp_path / "pool.duckdb", subset=tmp_path / "s.npy")
    text = (tmp_path / "releases/versions/1/datasheet.md").read_text().splitlines()
    for line in [
        "| parquet | 4 | 0 | 0 |", "| basic | 20 | 15 |", "- 1: no_image", "| .png | 15 |",
        "15 samples, each an image with what belongs to it.",
    ]:  # fmt: skip
        assert line in text
    assert not any("truth" in line for line in text)


def test_a_parent_by_name_or_path(publish, releases):
    publish("1")
    found = Releases(releases).latest.manifest.sha256
    for name in ("1", releases / "versions/1", releases / "versions/1/manifest.json"):
        assert find_parent(releases, str(name)).manifest.sha256 == found
    with pytest.raises(UsageError, match="no version '2'"):
        find_parent(releases, "2")


def test_about(tmp_path):
    path = tmp_path / "about.toml"
    path.write_text('licence = "CC0"\nauthors = ["A", "B"]\nuses = "Play."\nurl = "http://x"')
    about = read_about(path, {"licence": "CC-BY-4.0", "authors": [], "url": None})
    assert (about.licence, about.authors, about.url) == ("CC-BY-4.0", ("A", "B"), "http://x")
    assert about.answers == {"uses": "Play."}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('license = "x"', "'license' is not known (did you mean 'licence'?); known are licence,"),
        ('authors = "A"', "authors: expected a list of names"),
        ("licence = 5", "licence: expected text"),
        ("licence", "not TOML: "),
    ],
)
def test_about_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "about.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_about(path, {})
    assert str(caught.value).startswith(f"{path}: {message}")


def test_scores(tmp_path):
    results = tmp_path / "eval_results.jsonl"
    lines = [{"key": k, "dataset": k, "metrics": {"main_metric": v}}
             for k, v in [("mnist", 0.5), ("x", None)]]  # fmt: skip
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_scores(results) == read_scores(tmp_path) == {"tasks": {"mnist": 0.5}}
    (tmp_path / "s.json").write_text('{"average": 0.4}')
    assert read_scores(tmp_path / "s.json") == {"average": 0.4}
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object of scores"):
        read_scores(tmp_path / "s.json")
    with pytest.raises(MissingError):
        read_scores(tmp_path / "gone")


def test_the_key_is_the_one_given(publish, releases):
    publish("1")
    assert Releases(releases).pointer.key == KEY.public
    assert Releases(releases).latest.manifest.piece_length == PIECE
