import sys

import open_clip
import pytest
from datacomp.errors import MissingError
from datacomp.pools.clip_tokenizer import load_tokenizer


def test_a_tokenizer_of_open_clip_needs_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    tokens = load_tokenizer(open_clip, "ViT-B-32", "ViT-B-32")(["a cat"])
    assert tokens.shape == (1, 77)


def test_a_tokenizer_of_the_hub_says_what_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError) as caught:
        load_tokenizer(open_clip, "ViT-B-16-SigLIP", "ViT-B-16-SigLIP")
    assert str(caught.value) == (
        "model ViT-B-16-SigLIP has the tokenizer timm/ViT-B-16-SigLIP, which needs transformers: "
        "pip install transformers sentencepiece"
    )


def test_a_tokenizer_that_is_not_in_the_cache_says_how_it_gets_there(monkeypatch):
    def offline(name):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nMore.")

    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    with pytest.raises(MissingError) as caught:
        load_tokenizer(open_clip, "roberta-ViT-B-32", "mine")
    assert str(caught.value) == (
        "model mine has the tokenizer roberta-base, which is neither in the Hub's cache nor to be "
        "had (We couldn't connect to 'https://huggingface.co' to load the files.); run this once "
        "where the Hub can be reached, or let HF_HOME name a cache that has it"
    )
