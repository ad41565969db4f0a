"""A build holds what DataComp's own resharder wrote; parity/make_vectors.py says how that was made.

Where the two differ on purpose: ours are plain ustar with a fixed time (the original's PAX headers
add 1 KiB a member, and its times are those of the run), ours has files more, ``subset_file`` names
the copy that lies in the folder, what is of the run and not of the data (processes, paths, times)
is not in ``meta.json``, a uid that no tar has is an error, or listed, and a face of less than a
pixel is blurred. The original has this
order and these full shards with one worker only; ours always.
"""

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from datacomp.curate.shards.build import build_shards
from PIL import Image

HERE = Path(__file__).parent / "parity"
VECTORS = json.loads((HERE / "vectors.json").read_text())
SHARD_SIZE = 5
TINY = "6128df5783b2cd11a656d60ded7aa701"
"""Its only box is smaller than a pixel: the original writes it anew without a blur."""
LEVELS = 4
"""Of 255, by which decoded pixels may differ: decoders and encoders of other versions round
otherwise. With the versions that the vectors were made with, none differs."""


@pytest.fixture
def source(tmp_path):
    """What the original read: tars, a subset, face boxes and the map that names them."""
    with tarfile.open(HERE / "source.tar.xz") as file:
        file.extractall(tmp_path / "source", filter="data")
    return tmp_path / "source"


@pytest.fixture(params=["plain", "blur"])
def both(request, source, out):
    """What the original wrote, and our report of the same build."""
    blur = source / "map.json" if request.param == "blur" else None
    report = build_shards(
        source / "shards", source / "subset.npy", out, shard_size=SHARD_SIZE, workers=1,
        blur=blur, keep_going=True,
    )  # fmt: skip
    return VECTORS[request.param], report


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int64)


def test_the_same_samples_names_and_payloads(both, out, make):
    theirs, _ = both
    assert sorted(path.name for path in out.glob("*.tar")) == sorted(theirs["tars"])
    for name, expected in theirs["tars"].items():
        found = make.contents(out / name)
        assert [member for member, _ in found] == [member for member, _ in expected]
        for (member, data), (_, sha256) in zip(found, expected, strict=True):
            if not member.endswith(".webp"):  # an encoder's; compared as pixels
                assert hashlib.sha256(data).hexdigest() == sha256, member


def test_the_same_files_beside_them(both, out):
    theirs, report = both
    ours = {"build.json", "manifest.json", "missing.txt"}
    assert {path.name for path in out.iterdir()} == set(theirs["files"]) | ours
    for name, text in theirs["stats"].items():
        assert (out / name).read_text() == text
    ids = (out / "sample_ids.npy").read_bytes()
    assert hashlib.sha256(ids).hexdigest() == theirs["sample_ids"]
    meta = json.loads((out / "meta.json").read_text())
    assert meta.pop("subset_file") == "sample_ids.npy"
    assert meta.pop("shuffle") == "None"  # ours is another shuffle, of all samples
    # The trainer reads output_shard_count and output_shard_format.
    assert meta == {name: theirs["meta"][name] for name in meta}
    assert {"output_shard_count", "output_shard_format", "blur_count"} <= set(meta)
    assert report.samples == theirs["meta"]["output_count"] == 17


def test_a_uid_that_no_tar_has_is_named(both, out):
    _, report = both
    assert (report.selected, sum(report.missing.values())) == (18, 1)
    assert (out / "missing.txt").read_text()[:32] == hashlib.md5(b"sample 1000000").hexdigest()


def test_headers_are_those_of_the_original_but_plain(both, out):
    for path in out.glob("*.tar"):
        with tarfile.open(path) as file:
            for info in file:
                assert (info.mode, info.uname, info.gname) == (0o444, "bigdata", "bigdata")
                assert (info.mtime, info.pax_headers) == (0, {})


@pytest.mark.parametrize("both", ["blur"], indirect=True)
def test_the_same_faces_are_blurred_as_much(both, source, out, make):
    theirs, report = both
    found = {name: data for path in out.glob("*.tar") for name, data in make.contents(path)}
    before = {
        json.loads(data)["uid"]: dict(sample)["jpg"]
        for path in (source / "shards").glob("*.tar")
        for sample in by_sample(make.contents(path))
        for name, data in sample
        if name == "json"
    }
    assert len(theirs["images"]) == theirs["meta"]["blur_count"] == 7
    assert report.blurred == sum(name.endswith(".webp") for name in found) == 10
    assert any(pixels(data).std(axis=2).max() == 0 for data in before.values())  # one is grey
    changes = []
    for name, data in theirs["images"].items():
        expected = pixels(base64.b64decode(data))
        ours = pixels(found[name])
        if name.startswith(TINY):
            assert np.abs(ours - expected)[16, 25].max() > LEVELS
            expected = ours  # around it the encoder does as it likes
        assert np.abs(ours - expected).max() <= LEVELS, name
        changes.append(np.abs(pixels(before[name[:32]]) - expected).max())
        for copy in (name.replace("-0.", f"-{j}.") for j in (1, 2)):
            assert found.get(copy, found[name]) == found[name]
    assert min(changes) > 10 * LEVELS  # so that an image passed through would not pass


def by_sample(members):
    """Group the members of a tar by key: extension, in lower case, and data."""
    samples = {}
    for name, data in members:
        key, _, extension = name.partition(".")
        samples.setdefault(key, []).append((extension.lower(), data))
    return samples.values()
