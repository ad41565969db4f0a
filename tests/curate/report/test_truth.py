"""The table of single filters that were held against the planted truth."""

from datacomp.curate.report.truth import against_truth


def held(name, precision, recall, **kept):
    return {
        "filter": name, "size": sum(kept.values()), "share": 0.5, "funnel": [], "seconds": 1.25,
        "precision": precision, "recall": recall, "kept_defects": kept,
    }  # fmt: skip


def test_each_filter_is_shown_with_what_it_leaves_of_every_defect(make_results, parse, hostile):
    results = make_results(["one", "two"])
    results["truth"] = [
        held("exact_dedup", 0.625, 1.0, clean=600, mismatched=360),
        held(hostile, 1.0, 0.5, clean=300),
    ]
    page = parse(str(against_truth(results)))
    rows = [
        [cell.text.replace("\u200b", "") for cell in row.children if cell.tag in ("th", "td")]
        for row in page.all("tr")
    ]
    assert rows[0] == ["Filter", "Size", "Precision", "Recall", "mismatched", "Time"]
    assert rows[1] == ["exact_dedup", "960", "0.625", "1.000", "90.0 %", "1.2 s"]
    assert rows[2] == [hostile.replace("\0", "\ufffd"), "300", "1.000", "0.500", "0.0 %", "1.2 s"]


def test_without_a_truth_there_is_no_table(make_results):
    assert against_truth(make_results(["one"])) is None
    results = make_results(["one"], truth=False)
    results["truth"] = [held("exact_dedup", None, None) | {"kept_defects": None}]
    assert against_truth(results) is None
