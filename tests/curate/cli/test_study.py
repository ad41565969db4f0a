import pytest


@pytest.mark.parametrize("what", ["demo", "evalsets demo"])
def test_a_demo_does_not_scatter_its_files_among_others(tmp_path, command, what):
    (tmp_path / "thesis.tex").write_text("mine")
    code, out, err = command(*what.split(), tmp_path)
    assert (code, out) == (2, "")
    assert (
        err
        == {
            "demo": f"error: {tmp_path}: is there and is not the demo's; name a new folder\n",
            "evalsets demo": f"error: {tmp_path}: holds 'thesis.tex', no evaluation set; name a "
            "new folder\n",
        }[what]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_demo_does_not_run_another_study(tmp_path, command):
    config = tmp_path / "datacomp.toml"
    config.write_text(
        '[[pool.source]]\nkind = "glyphs"\n[[dataset]]\nname = "all"\n'
        'filters = [{ use = "no_filter" }]\n[evaluate]\nsuite = "demo"\n'
    )
    code, _, err = command("demo", tmp_path)
    assert code == 2
    assert err == (
        f"error: {config}: not the demo's configuration; name a new folder, or run that study "
        f"with 'datacomp run -c {config}'\n"
    )
    assert list(tmp_path.iterdir()) == [config]


def test_a_file_is_no_folder_for_a_demo(tmp_path, command):
    (tmp_path / "demo").touch()
    code, _, err = command("demo", tmp_path / "demo")
    assert (code, err) == (
        2, f"error: {tmp_path}/demo: is there and is not the demo's; name a new folder\n"
    )  # fmt: skip
