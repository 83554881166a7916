"""The fuzzer's inputs as tests: those that are kept, the vectors, and some thousand random ones."""

import importlib
from itertools import islice
from typing import Any

import pytest
from fuzz import fuzz_wings, inputs
from fuzz.__main__ import at_random

SAVED = inputs.saved()
FINDS = [name for name in SAVED if not name.startswith("grown-")]


@pytest.fixture(scope="module")
def modules(wings: "list[Any]") -> "list[Any]":
    """The wings that are here, as modules."""
    return [importlib.import_module(f"sockframe._{wing.name}") for wing in wings]


@pytest.mark.parametrize("name", FINDS)
def test_what_was_found_once_holds(name: str, modules: "list[Any]") -> None:
    fuzz_wings.check(SAVED[name], modules)


def test_the_corpus_holds(modules: "list[Any]") -> None:
    for data in SAVED.values():
        fuzz_wings.check(data, modules)


def test_the_streams_of_the_vectors_hold(modules: "list[Any]") -> None:
    for data in inputs.from_vectors():
        fuzz_wings.check(data, modules)


@pytest.mark.parametrize("seed", range(4))
def test_random_inputs_hold(seed: int, modules: "list[Any]") -> None:
    for data in islice(at_random(seed), 1000):
        fuzz_wings.check(data, modules)


def test_the_corpus_reaches_every_maker_of_framings() -> None:
    reached = {data[1] & 31 for data in SAVED.values() if len(data) > 1}
    assert reached >= {*range(len(inputs.MAKERS)), inputs.FROM_VECTORS}


def test_every_word_of_the_dictionary_can_be_read() -> None:
    assert len(inputs.words()) > 30
