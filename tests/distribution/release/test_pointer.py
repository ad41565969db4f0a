import json
from datetime import timedelta

import pytest
from datacomp.distribution.ipfs import ipns
from datacomp.distribution.release import Releases, SigningKey, read_pointer, renew, sign_pointer
from datacomp.durable import canonical_json
from datacomp.errors import DataError, IntegrityError, UnsafeInputError, UsageError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import KEY, NOW


@pytest.fixture
def releases(publish, tmp_path):
    publish("1")
    publish("2", mirrors=("http://h/",))
    return Releases(tmp_path / "releases")


@pytest.fixture
def latest(releases):
    return (releases.folder / "latest.json").read_bytes()


def test_it_names_the_newest_version(releases, latest):
    found = read_pointer(latest, "latest.json", KEY.public, NOW)
    newest = releases.latest.manifest
    assert (found.name, found.version, found.serial) == ("ds", "2", 2)
    assert found.manifest_sha256 == newest.sha256
    assert found.manifest_size == len(newest.raw)
    assert (releases.folder / found.manifest_path).read_bytes() == newest.raw
    assert found.root_cid == newest.root_cid
    assert found.infohash_v2 == newest.torrents["hybrid"]["infohash_v2"]
    assert (found.issued, found.expires) == (NOW, NOW + timedelta(days=30))


def test_ipns_says_the_same(releases):
    data = (releases.folder / "latest.ipns").read_bytes()
    found = ipns.read_record(data, ipns.name_of(KEY.public), NOW)
    assert found.value == f"/ipfs/{releases.latest.manifest.root_cid}"
    assert found.sequence == 2
    assert found.expires == NOW + timedelta(days=30)


def test_an_expired_pointer_is_refused(latest):
    with pytest.raises(IntegrityError) as caught:
        read_pointer(latest, "latest.json", now=NOW + timedelta(days=30))
    assert str(caught.value) == (
        "latest.json: expired on 2026-12-20 12:00 UTC; the mirror is stale or holds newer "
        "versions back; try another, or ask the keeper to renew it"
    )


def test_rollback_is_refused(releases, latest):
    newest = read_pointer(latest, "a", now=NOW)
    old = sign_pointer(releases.version("1").manifest, KEY, NOW)
    with pytest.raises(IntegrityError) as caught:
        read_pointer(old, "latest.json", now=NOW, seen=newest)
    assert str(caught.value) == (
        "latest.json: names version 1 (number 1), older than 2 (number 2) seen before; refused"
    )
    assert read_pointer(latest, "a", now=NOW, seen=newest) == newest


def test_two_manifests_of_one_number_are_refused(publish, tmp_path, latest):
    publish("1", folder=tmp_path / "other")
    publish("2b", folder=tmp_path / "other")
    other = (tmp_path / "other" / "latest.json").read_bytes()
    seen = read_pointer(latest, "a", now=NOW)
    with pytest.raises(IntegrityError, match=r"names another manifest of number 2 than the one"):
        read_pointer(other, "latest.json", now=NOW, seen=seen)


def test_another_key_is_refused(latest):
    other = SigningKey.from_seed(bytes(32))
    value = json.loads(latest)
    value["signed"]["key"] = other.public
    data = canonical_json(value) + b"\n"
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        read_pointer(data, "latest.json", now=NOW)
    with pytest.raises(IntegrityError, match=r"signed with the key .*, not with .* as expected"):
        read_pointer(latest, "latest.json", other.public, NOW)


def test_a_key_that_changes_is_refused(publish, tmp_path, latest):
    other = SigningKey.from_seed(bytes(32))
    publish("9", folder=tmp_path / "other", key=other)
    data = (tmp_path / "other" / "latest.json").read_bytes()
    seen = read_pointer(latest, "latest.json", now=NOW)
    with pytest.raises(IntegrityError) as caught:
        read_pointer(data, "l", now=NOW, seen=seen)
    assert str(caught.value) == (
        f"l: signed with the key {other.public}, but {KEY.public} was seen before; refused"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("serial", 9), ("expires", "2099-01-01T00:00:00Z"), ("root_cid", "b" + "a" * 58),
     ("version", "1")],
)  # fmt: skip
def test_whatever_is_altered_breaks_the_signature(latest, name, value):
    found = json.loads(latest)
    found["signed"][name] = value
    found["signed"]["manifest"]["path"] = f"versions/{found['signed']['version']}/manifest.json"
    with pytest.raises(IntegrityError, match=r"^l: its signature is wrong; it was altered or is"):
        read_pointer(canonical_json(found) + b"\n", "l", now=NOW)


def test_the_path_of_the_manifest_cannot_lead_astray(latest):
    found = json.loads(latest)
    found["signed"]["manifest"]["path"] = "../../etc/passwd"
    with pytest.raises(UnsafeInputError, match=r"path '\.\./\.\./etc/passwd' is not its own; ref"):
        read_pointer(canonical_json(found) + b"\n", "l", now=NOW)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"[" * 9999, b'{"signed": 1, "signature": "AA=="}',
             b'{"signed": {}, "signature": "?"}', b'{"signed": {}, "signature": "AA=="}']
)  # fmt: skip
def test_what_is_no_pointer(data):
    with pytest.raises(DataError, match=r"^l: "):
        read_pointer(data, "l", now=NOW)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_is_refused(latest, data):
    at = data.draw(st.integers(0, len(latest) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = latest[:at] + bytes([byte]) + latest[at + 1 :]
    if changed != latest:
        with pytest.raises(DataError, match=r"^l: "):
            read_pointer(changed, "l", now=NOW)


def test_a_pointer_is_small():
    with pytest.raises(UnsafeInputError, match="larger than 65,536 bytes; refused"):
        read_pointer(bytes(65_537), "l")


def test_renewing(releases, latest):
    later = NOW + timedelta(days=20)
    renew(releases.folder, KEY, 7, later)
    found = read_pointer(
        (releases.folder / "latest.json").read_bytes(), "l", KEY.public, later,
        read_pointer(latest, "l", now=NOW),
    )  # fmt: skip
    assert (found.serial, found.expires) == (2, later + timedelta(days=7))
    with pytest.raises(UsageError, match=r"readers trust the first one only$"):
        renew(releases.folder, SigningKey.from_seed(bytes(32)))
