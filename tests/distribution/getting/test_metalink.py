"""Metalinks as sources, signed by a manifest beside them or not at all."""

import re

import pytest
from datacomp.distribution.getting import get
from datacomp.errors import (
    DataError,
    IntegrityError,
    UnsafeInputError,
)

from .conftest import HTTP, contents, options


def test_a_metalink_beside_its_manifest_is_signed(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    publish(files | {"more.txt": b"more"}, "2", mirrors=(server.url,))
    place = folder / "versions/2/birds-2.meta4"
    report = get(str(place), tmp_path / "got", HTTP)
    assert (report.signed, report.whole) == (True, True)
    assert contents(tmp_path / "got") == files | {"more.txt": b"more"}


def test_a_metalink_of_others_is_enough(serving, publish, files, tmp_path):
    import hashlib

    server = serving(publish(files))
    digest = hashlib.sha256(files["00000.tar"]).hexdigest()
    text = (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="00000.tar">'
        f'<size>{len(files["00000.tar"])}</size><hash type="sha-256">{digest}</hash>'
        f"<url>{server.url}versions/1/birds/00000.tar</url></file></metalink>"
    )
    (tmp_path / "one.meta4").write_text(text)
    report = get(str(tmp_path / "one.meta4"), tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == {"00000.tar": files["00000.tar"]}
    assert not report.signed
    # A gateway is of no use: nobody has told the CID.
    gateway = options(gateways=(server.url,))
    assert get(str(tmp_path / "one.meta4"), tmp_path / "again", gateway).channels["ipfs"] == 0
    alone = options(gateways=(server.url,), http=False)
    report = get(str(tmp_path / "one.meta4"), tmp_path / "never", alone)
    assert "nobody has told the file's CID" in report.failed["00000.tar"]


def test_a_metalink_that_contradicts_the_manifest_is_refused(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    publish(files | {"more.txt": b"more"}, "2", mirrors=(server.url,))
    text = (folder / "versions/2/birds-2.meta4").read_text()
    digest = re.search(r'type="sha-256">([0-9a-f]{64})', text)[1]
    (tmp_path / "bad.meta4").write_text(text.replace(digest, "0" * 64))
    with pytest.raises(IntegrityError, match="is another file than in the signed manifest"):
        get(str(tmp_path / "bad.meta4"), tmp_path / "got", HTTP)


def test_a_metalink_with_a_document_type_is_refused(tmp_path):
    (tmp_path / "bomb.meta4").write_text('<!DOCTYPE a [<!ENTITY b "c">]><metalink/>')
    with pytest.raises(UnsafeInputError, match="has a document type; refused"):
        get(str(tmp_path / "bomb.meta4"), tmp_path / "got", HTTP)
    (tmp_path / "up.meta4").write_text(
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="../up"/></metalink>'
    )
    with pytest.raises(UnsafeInputError, match="is not a plain relative path"):
        get(str(tmp_path / "up.meta4"), tmp_path / "got", HTTP)
    (tmp_path / "none.meta4").write_text("<metalink/>")
    with pytest.raises(DataError, match="not a Metalink 4"):
        get(str(tmp_path / "none.meta4"), tmp_path / "got", HTTP)
