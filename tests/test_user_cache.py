from pathlib import Path

from datacomp.user_cache import user_cache


def test_it_is_where_the_user_says_or_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "datacomp"
    for none in ("", None):
        if none is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", none)
        monkeypatch.setenv("HOME", "/home/me")
        assert user_cache() == Path("/home/me/.cache/datacomp")
    assert not (tmp_path / "datacomp").exists()
