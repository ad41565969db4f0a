import sys
import threading

import numpy as np
import pytest
from datacomp.errors import MissingError
from datacomp.filters import products as module
from datacomp.filters.products import products
from threadpoolctl import threadpool_limits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (1, 1), (512, 4096), (1100, 4100)])
def test_products_are_products(dtype, rows, columns):
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((n, 7)).astype(dtype) for n in (rows, columns))
    found = products(a, b)
    assert found.dtype == dtype
    assert found.shape == (rows, columns)
    assert np.allclose(found, a.astype(float) @ b.T.astype(float), atol=1e-5)


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((n, 768)).astype(np.float32) for n in (1500, 5000))
    found = set()
    for threads in (1, 2, 4):
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _, n=threads: range(n))
        module._workers.cache_clear()
        with threadpool_limits(threads, "blas"):
            found.add(products(a, b).tobytes())
    module._workers.cache_clear()
    assert len(found) == 1


def test_two_at_once_do_not_disturb_each_other():
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((n, 64)).astype(np.float32) for n in (1500, 900))
    expected, found = products(a, b).tobytes(), []
    threads = [threading.Thread(target=lambda: found.append(products(a, b))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.tobytes() for one in found] == [expected] * 4


def test_what_is_missing_is_named(monkeypatch):
    module._blas.cache_clear()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(MissingError, match="need threadpoolctl: pip install it"):
        products(np.ones((1, 1)), np.ones((1, 1)))
