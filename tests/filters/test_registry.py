import sys

import pytest
from datacomp.errors import MissingError, UsageError
from datacomp.filters import Filter, registry


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a tiny package that registers filters."""

    def package(name, entries, code=""):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        registry._plugins.cache_clear()

    yield package
    registry._plugins.cache_clear()
    for name in ("plug_a", "plug_b"):
        sys.modules.pop(name, None)


KEEP = '''
from datacomp.filters import Decision, Filter

class Wide(Filter):
    """Keep wide images.

    More of it.
    """

    ratio: float = 2.0

    def decide(self, view):
        return [Decision("narrow", f"width >= {self.ratio} * height")]
'''


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_built_in_filter_is_whole(name):
    found = registry.get(name)
    assert issubclass(found, Filter)
    assert found.rule()
    assert registry.origin(name) == "built in"
    for parameter in registry.parameters(found):
        assert parameter.help, f"{name}.{parameter.name} says nothing"
        assert parameter.type
    # Either numbers, or why there are none.
    assert bool(found.published) != bool(found.not_reported)


def test_parameters_are_told_for_people():
    (fraction, seed) = registry.parameters(registry.get("random_subset"))
    assert (fraction.name, fraction.type, fraction.required) == ("fraction", "float", True)
    assert (seed.name, seed.type, seed.default, seed.required) == ("seed", "int", 0, False)
    types = {p.name: p.type for p in registry.parameters(registry.get("clip_score"))}
    assert (types["fraction"], types["arch"], types["column"]) == ("float", "b32 | l14", "str")


def test_a_class_in_a_file_is_a_filter(write):
    path = write(KEEP)
    name = f"{path}:Wide"
    assert registry.get(name).rule() == "Keep wide images."
    assert registry.get(name) is registry.get(name)
    assert registry.origin(name) == f"{path}:4"
    assert registry.create(name, {"ratio": 3}).ratio == 3.0


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("clip_scor", {}, "unknown filter 'clip_scor' (did you mean 'clip_score'?); "
         "there are: {all}, or your own as file.py:Class"),
        ("random_subset", {}, "filter random_subset: parameter fraction is required"),
        ("random_subset", {"fraction": 2}, "filter random_subset: parameter fraction is 2, "
         "expected at most 1.0"),
        ("random_subset", {"fraction": "half"}, "filter random_subset: parameter "
         "fraction is 'half', expected a number"),
        ("random_subset", {"fracton": 1}, "filter random_subset: unknown parameter 'fracton' "
         "(did you mean 'fraction'?); it takes: fraction, seed"),
        ("no_filter", {"a": 1}, "filter no_filter: unknown parameter 'a'; it takes none"),
        ("exact_dedup", {"by": "hash"}, "filter exact_dedup: parameter by is 'hash', expected "
         "'image', 'caption' or 'both'"),
        ("clip_score", {}, "filter clip_score: give one of arch, column, features or checkpoint: "
         "where the score comes from"),
        ("clip_score", {"arch": "l14", "fraction": 0.1, "threshold": 0.2},
         "filter clip_score: give fraction or threshold, not both"),
    ],
)  # fmt: skip
def test_wrong_use_says_what_is_accepted(name, parameters, message):
    message = message.replace("{all}", ", ".join(registry.names()))
    with pytest.raises(UsageError) as caught:
        registry.create(name, parameters)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("code", "attribute", "message"),
    [
        ("class Mine(:\n", "Mine", "{path}:1: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import json\n\nx = 1 / 0\n", "Mine", "{path}:3: ZeroDivisionError: division by zero"),
        (
            "import no_such_module\n",
            "Mine",
            "{path}:1: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (KEEP, "Wyde", "no class 'Wyde' there (did you mean 'Wide'?); filters in the file: Wide"),
        ("x = 1\n", "Mine", "no class 'Mine' there; filters in the file: none"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(write, code, attribute, message):
    path = write(code)
    with pytest.raises(UsageError) as caught:
        registry.get(f"{path}:{attribute}")
    assert str(caught.value) == f"filter {path}:{attribute}: {message.format(path=path)}"


def test_a_file_named_from_its_folder_is_blamed_at_the_same_line(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("\n\nx = 1 / 0\n", "raises.py")
    write("\n\n\ndef broken(:\n", "broken.py")
    for name, where in (("raises.py", "raises.py:3: Zero"), ("./broken.py", "broken.py:4: Syntax")):
        with pytest.raises(UsageError) as caught:
            registry.get(f"{name}:Mine")
        assert str(caught.value).startswith(f"filter {name}:Mine: {where}")


def test_a_syntax_error_elsewhere_is_not_blamed_on_a_wrong_line(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write("a = 1\n\n\n\ndef broken(:\n", "plug_b.py")
    path = write("\nimport plug_b\n")
    with pytest.raises(UsageError) as caught:
        registry.get(f"{path}:Mine")
    assert str(caught.value).startswith(f"filter {path}:Mine: {path}:2: SyntaxError: ")


def numbers():
    """Every parameter of a built-in filter that takes any number."""
    for name in registry.BUILT_IN:
        for parameter in registry.parameters(registry.get(name)):
            if parameter.type == "float":
                yield name, parameter.name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("name", "parameter"), [*numbers()])
def test_no_parameter_may_be_infinite_or_nan(name, parameter, value):
    needed = {p.name: "x" for p in registry.parameters(registry.get(name)) if p.required}
    with pytest.raises(UsageError) as caught:
        registry.create(name, {**needed, parameter: value})
    assert str(caught.value) == (
        f"filter {name}: parameter {parameter} is {value}, expected a finite number"
    )


def test_what_is_no_filter_is_refused(write, tmp_path):
    path = write("from datacomp.filters import Filter\nclass Mine: pass\nmine = 3\n")
    for attribute in ("Mine", "mine", "Filter"):
        with pytest.raises(UsageError) as caught:
            registry.get(f"{path}:{attribute}")
        assert str(caught.value) == (
            f"{path}:{attribute} is not a subclass of datacomp.filters.Filter"
        )
    with pytest.raises(MissingError) as missing:
        registry.get(f"{tmp_path}/none.py:Mine")
    assert str(missing.value) == f"filter {tmp_path}/none.py:Mine: no such file {tmp_path}/none.py"


def test_a_filter_that_cannot_be_made_names_its_line(write):
    path = write(
        "from datacomp.filters import Filter\nclass Mine(Filter):\n"
        "    def model_post_init(self, context):\n        raise KeyError('no luck')\n"
    )
    with pytest.raises(UsageError) as caught:
        registry.create(f"{path}:Mine", {})
    assert str(caught.value) == f"filter {path}:Mine: {path}:2: KeyError: 'no luck'"


def test_installed_packages_bring_filters(package, tmp_path):
    package(
        "plug_a", {"wide": "plug_a:Wide", "broken": "plug_a:Gone", "odd": "plug_a:__doc__"}, KEEP
    )
    assert registry.names()[-3:] == ["broken", "odd", "wide"]
    assert registry.create("wide", {"ratio": 1}).ratio == 1.0
    assert registry.origin("wide") == f"plug_a:Wide ({tmp_path}/plug_a.py:4)"
    with pytest.raises(UsageError) as caught:
        registry.get("broken")
    assert str(caught.value).startswith("filter 'broken' of plug_a:Gone: AttributeError: ")
    with pytest.raises(UsageError) as caught:
        registry.get("odd")
    assert str(caught.value) == "plug_a:__doc__ is not a subclass of datacomp.filters.Filter"


@pytest.mark.parametrize(
    ("code", "line", "what"),
    [("a = 1\n\nb = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
     ("a = 1\ndef broken(:\n", 2, "SyntaxError: ")],
)  # fmt: skip
def test_a_package_that_fails_on_import_names_file_and_line(package, tmp_path, code, line, what):
    package("plug_a", {"wide": "plug_a:Wide"}, code)
    with pytest.raises(UsageError) as caught:
        registry.get("wide")
    assert str(caught.value).startswith(
        f"filter 'wide' of plug_a:Wide: {tmp_path}/plug_a.py:{line}: {what}"
    )


def test_two_filters_of_one_name_are_an_error(package):
    package("plug_a", {"wide": "plug_a:Wide"}, KEEP)
    package("plug_b", {"wide": "plug_b:Wide"}, KEEP)
    collision = (
        r"^filter 'wide' of plug_.:Wide collides with plug_.:Wide; "
        r"uninstall one of the packages$"
    )
    with pytest.raises(UsageError, match=collision):
        registry.names()


def test_a_built_in_name_cannot_be_taken(package):
    package("plug_a", {"no_filter": "plug_a:Wide"}, KEEP)
    with pytest.raises(UsageError) as caught:
        registry.get("unknown")
    assert str(caught.value) == (
        "filter 'no_filter' of plug_a:Wide collides with a built-in filter; "
        "uninstall one of the packages"
    )
