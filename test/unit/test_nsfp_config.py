"""The teacher's named configurations, and what a mistake in one says."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.nsfp.config import CONFIGS, METHODS, TeacherConfig, teacher_config
from zeroflow_core.nsfp.teacher import Teacher

RANGE = {"minimum": (-51.2, -51.2, -3.0), "maximum": (51.2, 51.2, 3.0)}


def values(config: TeacherConfig, *names: str) -> dict:
    return {name: getattr(config, name) for name in names}


def test_methods_and_configurations():
    assert METHODS == ("nsfp", "fastnsf")
    assert CONFIGS == ("fast", "published")
    for method in METHODS:
        for name, engine in (("fast", "fast"), ("published", "plain")):
            assert values(teacher_config(method, name), "method", "engine") == {"method": method, "engine": engine}
        assert teacher_config(method) == teacher_config(method, "fast")


def test_nsfp_as_published():
    expected = {"learning_rate": 0.008, "iterations": 5000, "patience": 100, "min_delta": 5e-5, "truncation": 2.0}
    assert values(teacher_config("nsfp", "published"), *expected, *RANGE) == expected | RANGE


def test_fast_nsf_as_published():
    expected = {"learning_rate": 0.008, "iterations": 5000, "patience": 10, "min_delta": 1e-3}
    assert values(teacher_config("fastnsf", "published"), *expected, *RANGE) == expected | RANGE


@pytest.mark.parametrize("method", METHODS)
def test_the_fast_engine_sees_the_same_space(method):
    assert values(teacher_config(method), *RANGE) == RANGE


@pytest.mark.parametrize("field", [field.name for field in fields(TeacherConfig)])
def test_a_configuration_does_not_change(field):
    config = teacher_config("nsfp", "published")
    with pytest.raises(FrozenInstanceError):
        setattr(config, field, None)
    assert teacher_config("nsfp", "published") == config


def test_a_configuration_can_be_told_apart():
    config = teacher_config("nsfp", "published")
    assert hash(config) == hash(replace(config)) and config == replace(config)
    assert config != replace(config, patience=99)


def identity(method: str, config: str | TeacherConfig, seed: int = 0) -> str:
    return json.dumps(Teacher(method, config, device="cpu", seed=seed).identity, sort_keys=True, allow_nan=False)


def test_identities_are_plain_and_tell_teachers_apart():
    published = teacher_config("nsfp", "published")
    others = [
        replace(published, learning_rate=0.004), replace(published, iterations=100), replace(published, patience=7),
        replace(published, min_delta=1e-4), replace(published, truncation=1.0),
        replace(published, minimum=(-40.0, -51.2, -3.0)), replace(published, maximum=(51.2, 51.2, 2.0)),
    ]  # fmt: skip
    every = [
        *(identity(method, name, seed) for method in METHODS for name in CONFIGS for seed in (0, 1)),
        *(identity("nsfp", other) for other in others),
    ]
    assert len(set(every)) == len(every)
    assert identity("nsfp", "published") == identity("nsfp", published)
    assert json.loads(identity("nsfp", "published", 3))["seed"] == 3
    assert json.loads(identity("nsfp", "published"))["device"] == "cpu"


def test_an_identity_says_what_precision_came_to():
    fast = teacher_config("nsfp")
    made = [Teacher("nsfp", replace(fast, precision=precision), device="cpu") for precision in ("fp32", "bf16", "auto")]
    assert [one.identity["precision"] == one.precision for one in made] == [True] * 3
    assert [one.precision for one in made[:2]] == ["fp32", "bf16"] and made[2].precision in ("fp32", "bf16")
    assert Teacher("nsfp", "published", device="cpu").identity["precision"] == "fp32"
    with pytest.raises(ZeroFlowError, match="fp8"):
        Teacher("nsfp", replace(fast, precision="fp8"), device="cpu")


def test_names_are_one_line_that_says_which():
    names = [Teacher(method, name, device="cpu").name for method in METHODS for name in CONFIGS]
    assert len(set(names)) == 4
    assert all(name.strip() == name != "" and "\n" not in name for name in names)
    assert all(("Fast NSF" in name) == (i >= 2) for i, name in enumerate(names)) and all("NSF" in n for n in names)


@pytest.mark.parametrize("make", [teacher_config, Teacher])
def test_a_mistake_names_the_choices(make):
    with pytest.raises(ZeroFlowError, match=r"'nsfq'.*nsfp.*fastnsf"):
        make("nsfq", "fast")
    with pytest.raises(ZeroFlowError, match=r"'quick'.*fast.*published"):
        make("nsfp", "quick")


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(ZeroFlowError, match="tpu"):
        Teacher("nsfp", "published", device="tpu")


@pytest.mark.parametrize("value", [0, -1, float("nan")])
@pytest.mark.parametrize("name", ["learning_rate", "iterations", "patience", "truncation", "samples"])
def test_a_number_that_can_not_be_is_told(name, value):
    with pytest.raises(ZeroFlowError, match=rf"{name} .*{value}"):
        replace(teacher_config("nsfp"), **{name: value})


@pytest.mark.parametrize("changes", [{"differing": 1.1}, {"differing": -0.1}, {"method": "nsfq"}, {"engine": "slow"}])
def test_what_a_configuration_can_not_be(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ZeroFlowError, match=rf"{name}.*{value}"):
        replace(teacher_config("nsfp"), **changes)


def test_shares_at_their_ends_are_fine():
    assert replace(teacher_config("nsfp"), differing=0.0).differing == 0
    assert replace(teacher_config("nsfp"), differing=1.0).differing == 1


@pytest.mark.parametrize(
    "options, says",
    [
        ({"seed": -1}, "seed -1"),
        ({"seed": 1 << 63}, "seed 9223372036854775808"),
        ({"pairs_in_flight": 0}, "0 pairs"),
        ({"pairs_in_flight": -2}, "-2 pairs"),
    ],
)
def test_what_a_teacher_can_not_be(options, says):
    with pytest.raises(ZeroFlowError, match=says):
        Teacher("nsfp", "published", device="cpu", **options)
    assert Teacher("nsfp", "published", device="cpu", seed=(1 << 63) - 1, pairs_in_flight=1).seed == (1 << 63) - 1
