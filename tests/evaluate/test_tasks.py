import re
from pathlib import Path

import pytest
from datacomp.errors import ConfigError, MissingError, UsageError
from datacomp.evaluate.tasks import (
    find_folder,
    folder_name,
    folder_names,
    load_suites,
    load_tasks,
    select_tasks,
)

SUITE = '[suites.s]\ntitle = "S"\nversion = 1\n[suites.s.groups]\nAverage = ["a"]\n'
TASK = (
    '[tasks.a]\nname = "A"\nsuite = "s"\nfamily = "classification"\nsize = 5\nclasses = 2\n'
    'main_metric = "acc1"\nversion = 1\n'
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tasklist.toml"
    path.write_text(text)
    return path


def test_datacomps_forty_tasks_are_all_accounted_for():
    tasks = [task for task in load_tasks().values() if task.suite == "datacomp"]
    suite = load_suites()["datacomp"]
    assert len(tasks) == 40
    assert {task.key for task in tasks if task.main_metric is None} == {
        "fairness/fairface", "fairness/utkface",
    }  # fmt: skip
    assert len(suite.groups["Average"]) == 38
    assert {name: len(keys) for name, keys in suite.groups.items()} == {
        "ImageNet": 1, "ImageNet dist. shifts": 6, "VTAB": 13, "Retrieval": 3, "Average": 38,
    }  # fmt: skip


def test_the_total_of_test_images_is_the_published_one():
    sizes = sum(task.size for task in load_tasks().values() if task.suite == "datacomp")
    assert sizes == 732_026


def test_the_tasks_near_chance_are_marked():
    assert {task.name for task in load_tasks().values() if task.near_chance} == {
        "CLEVR Counts", "CLEVR Distance", "KITTI Vehicle Distance", "PatchCamelyon", "Camelyon17",
    }  # fmt: skip


def test_every_task_of_an_average_knows_its_chance_level():
    for task in load_tasks().values():
        assert (task.chance is None) == (task.main_metric is None), task.key


def test_every_task_tells_its_licence_and_how_it_is_gated():
    assert [task.key for task in load_tasks().values() if not task.licence] == []
    assert {task.key for task in load_tasks().values() if task.gate} == {
        "imagenet1k", "vtab/kitti_closest_vehicle_distance",
        "retrieval/flickr_1k_test_image_text_retrieval",
    }  # fmt: skip


def test_what_nobody_has_checked_says_so():
    tasks = load_tasks()
    assert tasks["wilds/fmow"].terms == "FMoW Challenge Public License"
    assert tasks["vtab/kitti_closest_vehicle_distance"].terms == (
        "CC-BY-NC-SA-3.0; gated: account at cvlibs.net"
    )
    assert tasks["cars"].terms == "non-commercial research only (unverified)"
    unchecked = [key for key, task in tasks.items() if not task.licence_read]
    assert unchecked == ["gtsrb", "cars", "demo/digits"]


def test_each_task_is_resampled_by_a_seed_of_its_own():
    tasks = load_tasks().values()
    assert len({task.seed for task in tasks}) == len(tasks)
    assert load_tasks()["mnist"].seed == 0xFBA77675DD8AC87


def test_where_a_tasks_data_may_lie(tmp_path):
    tasks = load_tasks()
    flickr = tasks["retrieval/flickr_1k_test_image_text_retrieval"]
    names = ["wds_flickr_1k_test_image_text_retrieval_test", "flickr_1k_test_image_text_retrieval"]
    assert folder_names(flickr) == tuple(names)
    assert folder_names(tasks["misc/winogavil"]) == ("winogavil",)
    assert find_folder(tmp_path, flickr) is None
    for name in reversed(names):
        (tmp_path / name).mkdir()
        assert find_folder(str(tmp_path), flickr) == tmp_path / name
    (tmp_path / "mnist").mkdir()
    assert find_folder(tmp_path, tasks["mnist"]) is None


def test_a_key_says_its_folder():
    assert folder_name("vtab/dtd") == "wds_vtab-dtd_test"
    assert folder_name("imagenet-a") == "wds_imagenet-a_test"
    assert folder_name("fairness/dollar_street") == "wds_dollar_street_test"
    assert folder_name("wilds/fmow") == "wds_wilds-fmow_test"
    assert folder_name("demo/digits") == "wds_demo-digits_test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"acc1"', '"acc2"'), "task a: main_metric is 'acc2', for classification there are: "
         "acc1, mean_per_class_recall"),
        (("size = 5", "size = 0"), "task a: size: Input should be greater than 0"),
        (("size = 5\n", ""), "task a: size: Field required"),
        (("size = 5", "size = 5\nsise = 6"), "task a: sise: Extra inputs are not permitted"),
        (("classes = 2\n", ""), "task a: classes: a classification task has them, a retrieval "
         "task has not"),
        (('"classification"', '"wilds"'), "task a: fields: tasks of wilds, fairness, faces have "
         "them, others have not"),
        (('"classification"', '"wilds"\nfields = ["x"]\ngroups = ["y"]'),
         "task a: groups: 'y' is none of: x"),
        (('"classification"', '"fairness"\nfields = ["x"]'),
         "task a: main_metric is 'acc1', for fairness there are: acc_wg"),
        (('"acc1"', '"acc_wg"\nfields = ["x"]\ngroups = ["x"]'),
         "task a: main_metric is 'acc_wg', for classification there are: acc1, "
         "mean_per_class_recall"),
        (('main_metric = "acc1"\n', ""), "task a: main_metric is None, for classification there "
         "are: acc1, mean_per_class_recall"),
        (('suite = "s"', 'suite = "t"'), "task a: suite is 't', there are: s"),
        (("[tasks.a]", "[tasks.'a b']"), "task a b: key: expected lower-case letters, digits, "
         "_, - and at most one /"),
        (("[tasks.a]", "[tasks.ab]"), "suite s: group 'Average' names 'a', which is no task of "
         "it (did you mean 'ab'?)"),
        (("size = 5", "size = "), "not TOML: Invalid value (at line 10, column 8)"),
    ],
)  # fmt: skip
def test_a_wrong_task_list_is_refused_by_task_and_key(tmp_path, change, message):
    path = write(tmp_path, SUITE + TASK.replace(*change))
    with pytest.raises(ConfigError, match=rf"^{re.escape(f'{path}: {message}')}$"):
        load_tasks(path)


def test_two_tasks_may_not_share_a_folder(tmp_path):
    other = TASK.replace("[tasks.a]", '[tasks."fairness/a"]').replace('"A"', '"B"')
    with pytest.raises(ConfigError, match="task fairness/a: folder is already that of a"):
        load_tasks(write(tmp_path, SUITE + TASK + other))


def test_two_tasks_may_not_share_a_name(tmp_path):
    with pytest.raises(ConfigError, match="task b: name is already that of a"):
        load_tasks(write(tmp_path, SUITE + TASK + TASK.replace("tasks.a", "tasks.b")))


def test_the_average_leaves_no_task_out(tmp_path):
    other = TASK.replace("tasks.a", "tasks.b").replace('"A"', '"B"')
    with pytest.raises(ConfigError, match="suite s: group 'Average' leaves out 'b'"):
        load_tasks(write(tmp_path, SUITE + TASK + other))


def test_tasks_are_selected_by_pattern_in_the_order_of_the_list():
    keys = [task.key for task in select_tasks(["mnist", "vtab/clevr*"])]
    assert keys == ["vtab/clevr_count_all", "vtab/clevr_closest_object_distance", "mnist"]
    assert [t.key for t in select_tasks(suite="demo")][:2] == ["demo/digits", "demo/letters"]


def test_without_a_choice_what_lies_in_the_folder_is_chosen(tmp_path):
    (tmp_path / "wds_mnist_test").mkdir()
    assert [task.key for task in select_tasks(data=tmp_path)] == ["mnist"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": ["mnits"]}, "unknown task 'mnits' (did you mean 'mnist'?); "
         "see 'datacomp evalsets list'"),
        ({"patterns": ["mnist"], "suite": "demo"},
         "task 'mnist' is not of suite demo, but of datacomp"),
        ({"patterns": ["x/*"]}, "unknown task 'x/*'; see"),
        ({"patterns": ["vatb/*"]}, "unknown task 'vatb/*' (did you mean 'vtab/*'?); see"),
        ({"suite": "dmeo"}, "unknown suite 'dmeo' (did you mean 'demo'?); there are: "
         "datacomp, demo"),
    ],
)  # fmt: skip
def test_unknown_names_are_answered_with_the_nearest(arguments, message):
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        select_tasks(**arguments)


def test_an_empty_folder_is_no_choice(tmp_path):
    with pytest.raises(UsageError, match=r"holds no task's folder \(wds_..._test\)"):
        select_tasks(data=tmp_path)
    none = tmp_path / "none"
    with pytest.raises(MissingError) as caught:
        select_tasks(data=none)
    assert str(caught.value) == (
        f"no evaluation sets at {none}: no such folder; name where they are (--data), "
        f"'datacomp evalsets demo {none}' builds the demo suite"
    )
