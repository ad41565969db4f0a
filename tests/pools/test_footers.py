"""Schemas from footers, without what pyarrow.parquet brings."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.pools.footers import read_schema


def test_the_schema_is_the_one_that_arrow_reads(tmp_path):
    kinds = {"uid": pa.string(), "boxes": pa.list_(pa.list_(pa.float64())), "n": pa.uint8()}
    schema = pa.schema(kinds).with_metadata({"key": "value"})
    file = tmp_path / "m\u00e9ta.parquet"
    pq.write_table(pa.table({name: [] for name in kinds}, schema), file)
    assert read_schema(file).equals(pq.read_schema(file), check_metadata=True)
    assert read_schema(file).metadata[b"key"] == b"value"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"text" * 9])
def test_what_is_no_parquet_is_refused(tmp_path, content):
    file = tmp_path / "a.parquet"
    file.write_bytes(content)
    with pytest.raises(pa.ArrowException):
        read_schema(file)


def test_a_missing_file_and_a_folder_are_errors_of_the_system(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            read_schema(path)


def test_clients_of_object_stores_stay_away(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"uid": ["0"]}), file)
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path\n"
         "from datacomp.pools.footers import read_schema\n"
         f"print(read_schema(Path({str(file)!r})).names)\n"
         "print({'pyarrow.parquet', 'pyarrow.fs'} & set(sys.modules))"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("['uid']\nset()\n", "")
