"""A small release on this disk."""

import random

import pytest
from datacomp.distribution.release import Plan, SigningKey, Source, create_version

SIZES = (2 << 20, 2 << 20, 2 << 20, 1234)


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Four files, and a mirror that nobody may ask."""
    folder = tmp_path_factory.mktemp("published")
    sources = []
    for number, size in enumerate(SIZES):
        path = folder / f"{number:05d}.tar"
        path.write_bytes(random.Random(number).randbytes(size))
        sources.append(Source(path.name, path))
    plan = Plan("birds", "1", mirrors=("http://192.0.2.1/",), trackers=("http://192.0.2.1/a",))
    create_version(folder / "releases", sources, plan, SigningKey.from_seed(b"k" * 32))
    return folder / "releases"
