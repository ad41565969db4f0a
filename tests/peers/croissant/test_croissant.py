"""mlcroissant finds nothing wrong with the metadata of a release, and reads its samples."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from datacomp.distribution.release import About, Facts, Plan, Source, create_version
from datacomp.pools.tar import tar_bytes

PYTHON = Path(__file__).parent / ".venv/bin/python"
READER = """
import json, sys, mlcroissant
found = mlcroissant.Dataset(sys.argv[1])
issues = found.metadata.issues
rows = [(r["captions/filename"].decode(), r["captions/content"].decode())
        for r in found.records("captions")]
print(json.dumps([sorted(issues.errors), sorted(issues.warnings), sorted(rows)]))
"""


@pytest.mark.skipif(
    not PYTHON.exists(), reason="mlcroissant is not installed; 'make test-peers' does it"
)
def test_mlcroissant_finds_nothing_wrong_and_reads_the_samples(tmp_path, key):
    files = [("a.txt", b"one"), ("b.txt", b"two")]
    (tmp_path / "0.tar").write_bytes(tar_bytes(files))
    about = About("CC0-1.0", ("Ann",), "Texts", "https://x.org", facts=Facts(members={"txt": 2}),
                  answers={"citation": "Ann 2026"})  # fmt: skip
    plan = Plan("ds", "1", "2026-11-20", about=about)
    create_version(tmp_path / "r", [Source("0.tar", tmp_path / "0.tar")], plan, key)
    done = subprocess.run(
        [PYTHON, "-c", READER, tmp_path / "r/versions/1/croissant.json"],
        capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], [], [["a.txt", "one"], ["b.txt", "two"]]]
