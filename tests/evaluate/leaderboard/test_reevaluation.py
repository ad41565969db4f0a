"""Whoever sends a checkpoint can be measured again: made-up results do not survive it."""

import os
import pickle

import pytest
from datacomp.evaluate.demo_suite import build_demo_suite
from datacomp.evaluate.leaderboard.check import check
from datacomp.evaluate.leaderboard.make import Statement, make_submission
from datacomp.evaluate.leaderboard.reevaluation import reevaluate
from datacomp.evaluate.scales import SCALES, model_config_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The demo suite."""
    path = tmp_path_factory.mktemp("demo") / "sets"
    build_demo_suite(path)
    return path


def test_made_up_results_are_found_out(write_run, subset, sets, tmp_path):
    import open_clip
    import torch

    run = write_run(tmp_path / "run", "demo", samples=100)
    scale = SCALES["demo"]
    open_clip.add_model_config(model_config_path(scale))
    torch.manual_seed(0)
    weights = run / "checkpoints" / "epoch_5.pt"
    before = weights.read_bytes()
    torch.save({"state_dict": open_clip.create_model(scale.model).state_dict()}, weights)
    replace_digest(run, before, weights)
    folder = tmp_path / "submission"
    make_submission(
        [run], [subset()], Statement("filtering", "Wishful", "A"), folder, with_checkpoint=True
    )
    report = check(folder)
    assert report.accepted  # the numbers fit each other
    reevaluate(folder, report, sets, ["demo/glyph_retrieval"], device="cpu")
    where = "results/0.jsonl: demo/glyph_retrieval"
    submitted, found = report.reevaluated[where]
    assert submitted > 0.05
    assert found < 0.05  # a random start finds nothing
    assert [(one.rule, one.where) for one in report.refused] == [("reevaluation", where)] * 2
    assert report.refused[0].what == "was measured on other test data than those here"
    assert report.refused[1].what == (
        f"is {found:.4f} when evaluated again, submitted {submitted:.4f}"
    )


def replace_digest(run, before, weights):
    """Let the results name another checkpoint."""
    import hashlib

    path = run / "eval_results.jsonl"
    old = hashlib.sha256(before).hexdigest()
    new = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(path.read_text().replace(old, new))


def test_a_checkpoint_with_code_is_refused_and_not_run(write_run, subset, sets, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    run = write_run(tmp_path / "run", "demo", samples=100)
    weights = run / "checkpoints" / "epoch_5.pt"
    before = weights.read_bytes()
    weights.write_bytes(pickle.dumps(Evil()))
    replace_digest(run, before, weights)
    folder = tmp_path / "submission"
    make_submission(
        [run], [subset()], Statement("filtering", "Evil", "A"), folder, with_checkpoint=True
    )
    report = check(folder)
    assert report.accepted
    reevaluate(folder, report, sets, ["demo/glyph_retrieval"], device="cpu")
    (told,) = report.refused
    assert (told.rule, told.where) == ("reevaluation", "checkpoints/0.pt")
    assert told.what.startswith("checkpoints/0.pt: refused, loading it would run code")
    assert not (tmp_path / "executed").exists()
