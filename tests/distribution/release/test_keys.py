import os
import shutil
import subprocess

import pytest
from datacomp.distribution.release import keys
from datacomp.distribution.release.keys import SigningKey, create_key, load_key, verify
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError

# RFC 8032, section 7.1, test 2.
SEED = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_the_vector_of_the_rfc():
    key = SigningKey.from_seed(bytes.fromhex(SEED))
    assert key.public == PUBLIC
    assert key.sign(b"\x72").hex() == SIGNATURE
    assert key.seed().hex() == SEED
    assert verify(PUBLIC, bytes.fromhex(SIGNATURE), b"\x72")


@pytest.mark.parametrize(
    ("public", "signature", "data"),
    [
        (PUBLIC, bytes.fromhex(SIGNATURE), b"\x73"),
        (PUBLIC, bytes(64), b"\x72"),
        (PUBLIC, b"", b"\x72"),
        ("0" * 64, bytes.fromhex(SIGNATURE), b"\x72"),
        ("zz", bytes.fromhex(SIGNATURE), b"\x72"),
    ],
)
def test_what_is_not_signed(public, signature, data):
    assert not verify(public, signature, data)


def test_a_key_is_made_once_for_its_owner_only(tmp_path):
    path = tmp_path / "new" / "a.key"
    made = create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path).public == made.public
    with pytest.raises(UsageError, match=r"a\.key: is there already; a key is never overwritten$"):
        create_key(path)
    assert create_key(tmp_path / "b.key").public != made.public


def test_a_key_that_others_may_read(tmp_path):
    path = tmp_path / "a.key"
    create_key(path)
    path.chmod(0o640)
    with pytest.raises(UnsafeInputError, match=r"others may read this key; run 'chmod 600 "):
        load_key(path)


def test_what_is_no_key(tmp_path):
    path = tmp_path / "a.key"
    with pytest.raises(MissingError, match=r"no such key; make one with 'datacomp release key "):
        load_key(path)
    path.touch(0o600)
    with pytest.raises(DataError, match="not an Ed25519 private key in PEM"):
        load_key(path)
    path.write_bytes(os.urandom(40_000))
    with pytest.raises(DataError, match="not an Ed25519 private key in PEM"):
        load_key(path)


def test_keys_of_other_kinds_are_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = tmp_path / "a.key"
    path.touch(0o600)
    pem = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.write_bytes(pem)
    with pytest.raises(DataError, match="not an Ed25519 private key"):
        load_key(path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_keys_and_checks_signatures(tmp_path):
    path = tmp_path / "a.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    path.chmod(0o600)
    key = load_key(path)
    (tmp_path / "key.pem").write_bytes(keys.public_pem(key.public))
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "sig").write_bytes(key.sign(b"data"))
    check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin",
             "-in", "data", "-sigfile", "sig"]  # fmt: skip
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "data").write_bytes(b"dato")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 1


def test_where_the_key_lies_by_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keys.default_key_path() == tmp_path / "datacomp" / "release.key"


def test_what_is_no_key_is_not_to_be_hidden(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8")
    path.chmod(0o644)
    with pytest.raises(DataError, match=r"photo\.jpg: not an Ed25519 private key"):
        load_key(path)
