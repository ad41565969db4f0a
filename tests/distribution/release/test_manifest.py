import json

import pytest
from datacomp.distribution.release import parse_manifest, verify_manifest
from datacomp.distribution.release.manifest import check_name, encode
from datacomp.errors import DataError, IntegrityError, UnsafeInputError, UsageError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import KEY, SIZES


@pytest.fixture
def fields(publish, tmp_path):
    """The manifest of a real release, as JSON."""
    publish(mirrors=("http://h/",), trackers=("udp://t:1/announce",))
    return json.loads((tmp_path / "releases/versions/1/manifest.json").read_bytes())


def refused(fields, error, text):
    with pytest.raises(error) as caught:
        parse_manifest(encode(fields), "m.json")
    assert str(caught.value) == f"m.json: {text}"


def with_path(fields, path):
    """Give the first file another name, and keep all else in order."""
    fields["files"][0]["path"] = path
    fields["files"].sort(key=lambda file: file["path"])
    return fields


def test_every_key_is_read(fields):
    found = parse_manifest(encode(fields), "m.json")
    assert [file.path for file in found.files] == sorted(SIZES)
    assert (found.name, found.version, found.serial, found.parent) == ("ds", "1", 1, None)
    assert (found.key, found.date) == (KEY.public, "2026-11-20")
    assert found.counts == {
        "files": 9, "bytes": sum(SIZES.values()), "shards": 3, "samples": None
    }  # fmt: skip
    assert found.by_path["empty"].pieces_root is None
    assert found.mirrors == ("http://h/",)
    assert found.raw == encode(fields)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../a", "is not a plain relative path"),
        ("a/../../b", "is not a plain relative path"),
        ("a//b", "is not a plain relative path"),
        ("/etc/passwd", "is absolute"),
        ("C:/x", "is absolute"),
        ("a\\b", "has a backslash"),
        ("a\nb", "has control characters"),
        ("", "is empty or too long"),
        ("IDS.npy", "collides with 'IDS.npy'"),
        ("sub/notes.txt/x", "needs a folder where 'sub/notes.txt' is a file"),
    ],
)
def test_names_that_could_do_harm(fields, path, why):
    changed = with_path(fields, path)
    with pytest.raises(UnsafeInputError, match=r"^m\.json: file name .*; refused$") as caught:
        parse_manifest(encode(changed), "m.json")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda f: f["files"].reverse(), DataError, "the files are not sorted by path"),
        (lambda f: f["files"].pop(), IntegrityError,
         "its counts do not fit its list of files; it was altered"),
        (lambda f: f["files"][0].update(size=-1), DataError,
         "files[0].size: expected a whole number of at least 0, found '-1'"),
        (lambda f: f["files"][0].update(size=1 << 60), DataError,
         "files[0].size: expected a whole number of at least 0, found '1152921504606846976'"),
        (lambda f: f["files"][0].update(size=True), DataError,
         "files[0].size: expected a whole number of at least 0, found 'True'"),
        (lambda f: f["files"][0].update(sha256="x"), DataError,
         "files[0].sha256: expected text as [0-9a-f]{64}, found 'x'"),
        (lambda f: f.update(files={}), DataError, "files: expected a list, found '{}'"),
        (lambda f: f.update(files=[5]), DataError, "files[0].: expected an object, found '5'"),
        (lambda f: f.update(format="x"), DataError,
         "not the manifest of a release (format is not 'datacomp-release')"),
        (lambda f: f.update(format_version=2), DataError,
         "a manifest of format version 2, but this datacomp knows 1; update datacomp"),
        (lambda f: f.update(piece_length=3 << 14), DataError,
         "piece_length: expected a power of two, found '49152'"),
        (lambda f: f.update(key="k"), DataError,
         "key: a public key has 64 hex digits, not 'k'"),
        (lambda f: f.update(mirrors=["file:///etc/"]), DataError,
         "mirrors: expected a list of texts, found 'file:///etc/'"),
        (lambda f: f["torrents"]["v1"].update(file="../x.torrent"), DataError,
         "torrents.v1.file: expected text as [A-Za-z0-9][A-Za-z0-9._-]{0,140}\\.torrent, found "
         "'../x.torrent'"),
        (lambda f: f.update(serial=0), DataError,
         "serial: expected a whole number of at least 1, found '0'"),
        (lambda f: f.update(removed=[{}]), DataError,
         "removed[0].files: expected a list, found 'None'"),
    ],
)  # fmt: skip
def test_what_does_not_fit(fields, change, error, text):
    change(fields)
    refused(fields, error, text)


def test_only_canonical_json_is_a_manifest(fields):
    for data in (json.dumps(fields).encode(), encode(fields)[:-1], b" " + encode(fields)):
        with pytest.raises(DataError, match=r"^m\.json: not canonical JSON; it was not written by"):
            parse_manifest(data, "m.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"[" * 10_000, b'"x"', b"\xff", b"{}"])
def test_what_is_no_manifest(data):
    with pytest.raises(DataError, match=r"^m\.json: not "):
        parse_manifest(data, "m.json")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)  # JSON has neither
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


def places(value, path=()):
    """Yield the path of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inside in items:
        yield (*path, key)
        if isinstance(inside, dict | list):
            yield from places(inside, (*path, key))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_is_refused_or_harmless(fields, data):
    changed = json.loads(json.dumps(fields))
    *path, last = data.draw(st.sampled_from(list(places(changed))))
    inside = changed
    for key in path:
        inside = inside[key]
    inside[last] = data.draw(JSON)
    found, refused = None, "m.json: "
    try:
        found = parse_manifest(encode(changed), "m.json")
    except DataError as error:
        refused = str(error)
    assert refused.startswith("m.json: ")
    if found is not None:
        assert encode(changed) == found.raw
        assert all(".." not in file.path.split("/") for file in found.files)


def test_signatures(fields):
    data = encode(fields)
    good = KEY.sign(data)
    assert verify_manifest(data, good, "m.json", KEY.public).key == KEY.public
    with pytest.raises(IntegrityError, match=r"^m\.json: its signature is wrong; it was altered"):
        verify_manifest(data, bytes(64), "m.json")
    with pytest.raises(IntegrityError, match=r"^m\.json: its signature is wrong"):
        verify_manifest(encode({**fields, "licence": "CC0"}), good, "m.json")
    with pytest.raises(IntegrityError) as caught:
        verify_manifest(data, good, "m.json", "0" * 64)
    assert str(caught.value) == (
        f"m.json: signed with the key {KEY.public}, not with {'0' * 64} as expected; refused"
    )


@given(st.text(max_size=70))
def test_names_of_versions_are_safe_in_paths_and_urls(text):
    try:
        name = check_name(text, "version")
    except UsageError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\ %?#")
    assert name not in (".", "..")
    assert name[0] not in ".-"
