"""``datacomp soup``: the command."""

import json


def test_soup(command, tiny_run, tmp_path):
    runs = [tiny_run(tmp_path / f"run{seed}", seed) for seed in range(2)]
    soup = tmp_path / "soup"
    code, out, _ = command("soup", *runs, "-o", soup)
    assert (code, out) == (
        0, f"{soup}: the mean of 2 checkpoints; 'datacomp evaluate {soup}' measures it\n"
    )  # fmt: skip
    again = command("soup", *runs, "-o", soup, "--json")[1]
    assert json.loads(again)["soup"]["kind"] == "uniform"


def test_wrong_use(command, tmp_path):
    assert command("soup", "a", "b", "-o", tmp_path / "s", "--greedy") == (
        2, "", "error: --greedy needs --data, evaluation sets to choose on\n"
    )  # fmt: skip
    code, _, err = command("soup", "a", "b", "-o", tmp_path / "s", "--tasks", "mnist")
    assert (code, err) == (2, "error: --data and --tasks belong to --greedy\n")
