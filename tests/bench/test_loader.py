"""Reading the samples of a shard: ours against webdataset with open_clip's grouping."""

import pytest
from datacomp.evaluate.loader import read_shard
from datacomp.pools import tar


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "0.tar"
    with path.open("wb") as file:
        writer = tar.TarWriter(file)
        for number in range(5000):
            writer.add(f"{number:06d}.jpg", b"\xff" * 20_000)
            writer.add(f"{number:06d}.json", b"{}" * 200)
            writer.add(f"{number:06d}.txt", b"a caption of a usual length")
        writer.close()
    return str(path)


def test_reading_a_shard(shard, paired):
    from open_clip_train.data import tarfile_to_samples_nothrow

    def ours():
        return [(key, image, text) for key, image, text in read_shard(shard)]

    def theirs():
        samples = tarfile_to_samples_nothrow(iter([{"url": shard}]))
        return [(sample["__key__"], sample["jpg"], sample["txt"].decode()) for sample in samples]

    assert ours() == theirs()
    paired("read a shard of 5,000 samples", ours, theirs, against="webdataset")
