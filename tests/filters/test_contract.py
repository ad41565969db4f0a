from datacomp.filters import Filter
from datacomp.filters.basic import BasicFilter
from datacomp.filters.language import Language
from datacomp.filters.registry import create


class Mine(Filter):
    checkpoint: str | None = None
    words_file: str = "words.txt"
    model: str = "large"
    size_file: int = 3


def test_parameters_that_name_files_are_known_by_their_names():
    assert Mine().files() == {"words_file": "words.txt"}
    assert Mine(checkpoint="a.pt").files() == {"checkpoint": "a.pt", "words_file": "words.txt"}


def test_built_in_filters_name_the_files_they_read():
    assert Language().files() == BasicFilter().files() == {}
    assert Language(model="lid.bin").files() == {"model": "lid.bin"}
    assert BasicFilter(model="lid.bin").files() == {"model": "lid.bin"}
    clip = create("clip_score", {"checkpoint": "a.pt", "model": "m", "model_config_file": "m.json"})
    assert clip.files() == {"checkpoint": "a.pt", "model_config_file": "m.json"}
