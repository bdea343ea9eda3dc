from __future__ import annotations

from typing import Any

import pytest

from martlet.errors import Invalid
from martlet.model import FunctionConfig
from martlet.settings import Settings
from martlet.validation import validated


def fault(model: Any, document: Any, prefix: str = "") -> Invalid:
    with pytest.raises(Invalid) as caught:
        validated(model, document, prefix)
    return caught.value


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("memory", "1Mi", "'1Mi' is too little: write 16Mi or more"),
        ("memory", 3, "3 is too little: write 16Mi or more"),
        ("cpu_limit", 300, "300 is too much: write 256000m or less"),
        ("timeout", 0, "0 is too little: write more than 0"),
        ("timeout", "soon", "'soon' is not a number"),
        ("concurrency", 1.5, "1.5 is not a whole number"),
        ("dependencies", "requests", "'requests' is not a list"),
        ("dependencies", ["x"] * 201, "there may be 200 at most, and there are 201"),
        ("environment", [], "[] is not a table, with keys and their values"),
        ("execution_mode", "vm", "'vm' is none of 'wasm', 'process', 'container' or 'microvm'"),
        ("public", "yes", "'yes' is neither true nor false"),
        ("runtime", None, "null is not a text"),
        ("runtime", [1] * 100, f"[{'1, ' * 19}1,… is not a text"),
        (
            "memory",
            "12 apples",
            "'12 apples' is not a size: write a number of bytes, or one with Ki, Mi or Gi (256Mi)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_value_as_it_was_written(key: str, value: Any, says: str):
    error = fault(FunctionConfig, {key: value}, "config")

    assert (error.field, error.detail) == (f"config.{key}", f"config.{key}: {says}")


def test_a_value_of_any_depth_and_size_is_refused_in_words():
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert fault(FunctionConfig, {"runtime": deep}).detail == f"runtime: {'[' * 60}… is not a text"
    assert fault(FunctionConfig, {"runtime": 10**10_000}).detail == "runtime: such a number is not a text"


def test_what_no_single_key_is_to_blame_for_is_said_by_itself():
    error = fault(FunctionConfig, {"min_instances": 20, "max_instances": 5})

    assert (error.field, error.detail) == (None, "min_instances (20) is over max_instances (5)")


def test_a_key_that_is_nearly_one_is_told_which_and_others_all_that_there_are():
    near = fault(Settings, {"system": {"warm_instance_tl": 3}})
    assert near.detail == "system.warm_instance_tl: there is no such key; did you mean warm_instance_ttl?"
    assert near.field == "system.warm_instance_tl"
    far = fault(Settings, {"system": {}, "plugins": []})
    assert far.detail == "plugins: there is no such key; known are functions, system"
    within = fault(Settings, {"functions": {"shop": {"memroy": "64Mi"}}})
    assert within.detail == "functions.shop.memroy: there is no such key; did you mean memory?"


def test_a_name_that_is_none_is_refused_in_words():
    error = fault(Settings, {"functions": {"my_shop": {"code": ""}}})

    assert error.field == "functions.my_shop"
    assert "'my_shop' is not a name: write 1 to 63 of a-z, 0-9 and -" in error.detail
