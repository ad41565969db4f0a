"""``datacomp release``: what is printed, for people and for machines, and the exit codes."""

import json
import random
import re
import sys
from pathlib import Path

import pytest
from datacomp.curate.cli import main
from datacomp.pools.tar import tar_bytes

HEX = re.compile(r"\b[0-9a-f]{40,64}\b|\bbafy\w+|\bk51\w+")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line with a home of its own; return exit code, output and errors."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["datacomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


def uid_of(number):
    return f"{number:032x}"


@pytest.fixture
def data(tmp_path, picture):
    """Two shards of three samples each; the second is not padded."""
    (tmp_path / "data").mkdir()
    for shard in range(2):
        files = []
        for number in range(shard * 3, shard * 3 + 3):
            values = {"uid": uid_of(number), "caption": f"caption {number}"}
            files += [(f"{number}.json", json.dumps(values).encode()),
                      (f"{number}.png", picture(number))]  # fmt: skip
        content = tar_bytes(files)
        pad = -len(content) % 16384 if shard == 0 else 0
        Path(f"data/{shard:08d}.tar").write_bytes(content + bytes(pad))
    return Path("data")


CREATE = ["release", "create", "data", "--name", "cats", "-o", "rel", "--date", "2026-11-20",
          "--piece-length", 16384]  # fmt: skip


def test_from_the_first_version_to_taking_back(run, data):
    code, out, err = run(*CREATE, "--version", 1, "--licence", "CC0-1.0", "--author", "Ann")
    assert (code, HEX.sub("X", out)) == (
        0,
        "rel: cats 1 (number 1), 3 files, 0.0 MB; 0.0 MB read, 1 file copied\n"
        "manifest X\nipfs     X\ntorrent  magnet:?xt=urn:btih:X&dn=cats\nkey      X\n",
    )
    assert err == (
        "made the key config/datacomp/release.key; keep a copy, for no other can sign new "
        "versions\n"
    )
    assert Path("config/datacomp/release.key").stat().st_mode & 0o777 == 0o600
    code, out, err = run(*CREATE, "--version", 1, "--licence", "CC0-1.0", "--author", "Ann")
    assert (code, err) == (0, "")
    assert out.startswith("rel: cats 1 (number 1), 3 files, 0.0 MB; 0.0 MB read (was there alr")

    Path("gone.txt").write_text(f"{uid_of(4)}\n")
    code, out, _ = run("release", "revoke", "data", "--uids", "gone.txt", "--reason", "asked",
                       "--version", 2, "-o", "rel", "--date", "2026-11-21")  # fmt: skip
    assert code == 0
    assert out.startswith("data: 1 sample taken back, 1 shard written anew\nrel: cats 2 (number 2)")

    code, out, _ = run("release", "log", "rel")
    assert HEX.sub("X", re.sub(r"\b[0-9a-f]{16}\b", "X" * 16, out)) == (
        "number  version  date        samples  files   MB  revoked  manifest\n"
        "------  -------  ----------  -------  -----  ---  -------  ----------------\n"
        "     2  2        2026-11-21        5      3  0.0        1  XXXXXXXXXXXXXXXX\n"
        "     1  1        2026-11-20        6      3  0.0        0  XXXXXXXXXXXXXXXX\n"
    )
    code, out, _ = run("release", "diff", "rel", 1, 2)
    assert out.splitlines() == [
        "         added  removed  changed",
        "-------  -----  -------  -------",
        "files        0        0        2",
        "samples      0        1        0",
        "not compared: 2 samples of shards not at hand",
        "to get B with A at hand: 0.0 MB",
    ]
    code, out, _ = run("release", "verify", "rel", "--deep")
    assert code == 0
    assert out == "rel: 2 versions, 6 files, 0.0 MB read, 1 taken back, sound\n"


def test_the_log_goes_on_where_a_manifest_was_altered(run, data):
    for version in (1, 2, 3):
        Path("data/notes.txt").write_text(f"{version}")
        run(*CREATE, "--version", version)
    path = Path("rel/versions/2/manifest.json")
    path.write_bytes(path.read_bytes().replace(b'"licence":null', b'"licence":"CC0"'))
    code, out, err = run("release", "log", "rel")
    assert (code, [line.split()[:2] for line in out.splitlines()[2:]]) == (
        1,
        [["3"] * 2, ["1"] * 2],
    )
    assert err == (
        f"warning: {path}: its signature is wrong; it was altered or is not theirs; put "
        "manifest.json and manifest.json.sig back from another copy of this version\n"
    )
    code, out, again = run("release", "log", "rel", "--json")
    assert (code, [row["serial"] for row in json.loads(out)], again) == (1, [3, 1], err)


def test_json_everywhere(run, data):
    code, out, _ = run(*CREATE, "--version", 1, "--json")
    made = json.loads(out)
    assert (code, made["version"], made["samples"], made["there"]) == (0, "1", 6, False)
    [row] = json.loads(run("release", "log", "rel", "--json")[1])
    assert (row["serial"], row["sha256"], row["samples"]) == (1, made["sha256"], 6)
    found = json.loads(run("release", "diff", "rel", 1, 1, "--json")[1])
    assert found["samples"] == {"added": [], "removed": [], "changed": []}
    found = json.loads(run("release", "verify", "rel", "--json")[1])
    assert (found["sound"], found["faults"]) == (True, [])
    found = json.loads(run("release", "renew", "rel", "--valid-days", 2, "--json")[1])
    assert (found["version"], found["serial"]) == ("1", 1)
    found = json.loads(run("release", "key", "config/datacomp/release.key", "--json")[1])
    assert (found["public"], found["made"]) == (made["key"], False)


def test_damage_is_listed_and_fails(run, data):
    run(*CREATE, "--version", 1)
    path = Path("rel/versions/1/cats/00000000.tar")
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    path.write_bytes(content)
    code, out, _ = run("release", "verify", "rel")
    assert code == 1
    assert HEX.sub("X", out) == (
        "digest: 1/00000000.tar: SHA-256 X instead of X\n"
        "rel: 1 version, 3 files, 0.0 MB read, 1 fault\n"
    )


def test_keys(run):
    code, out, _ = run("release", "key", "a.key")
    assert (code, HEX.sub("X", out)) == (0, "a.key: made\npublic X\nipns   X\n")
    assert run("release", "key", "a.key")[1] == out.replace("made", "is there")
    Path("a.key").chmod(0o644)
    assert run("release", "key", "a.key") == (
        1, "", "error: a.key: others may read this key; run 'chmod 600 a.key' first\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["create", "nowhere", "--name", "a", "--version", "1", "-o", "rel"], 1,
         "error: nowhere: no such folder\n"),
        (["create", "data", "--name", "a/b", "--version", "1", "-o", "rel"], 2,
         "error: name 'a/b': expected up to 64 letters, digits, '.', '_' and '-', beginning with "
         "a letter or digit and not ending in '.'\n"),
        (["create", "data", "--name", "a", "--version", "1", "-o", "rel", "--key", "k"], 1,
         "error: k: no such key; make one with 'datacomp release key k'\n"),
        (["create", "data", "--name", "a", "--version", "2", "-o", "rel", "--parent", "1"], 2,
         "error: rel: no version '1'\n"),
        (["create", "data", "--name", "a", "--version", "2", "-o", "rel", "--date", "today"], 2,
         "error: date 'today': expected YYYY-MM-DD\n"),
        (["log", "rel"], 1,
         "error: rel: no release there; make one with 'datacomp release create'\n"),
        (["diff", "rel", "1", "2"], 2, "error: rel: no version '1'\n"),
        (["verify", "rel"], 1,
         "error: rel: no release there; make one with 'datacomp release create'\n"),
        (["renew", "rel"], 1,
         "error: rel: no release there; make one with 'datacomp release create'\n"),
    ],
)  # fmt: skip
def test_each_mistake_has_one_line(run, data, arguments, code, text):
    run("release", "key", "config/datacomp/release.key")
    assert run("release", *arguments) == (code, "", text)


def test_every_part_shows_an_example(run):
    for name in ("create", "key", "renew", "log", "diff", "verify", "revoke", "push"):
        assert "Examples:" in run("release", name, "--help")[1] or name == "push"
