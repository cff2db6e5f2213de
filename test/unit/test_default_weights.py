"""The student that comes along: what it says of itself, and that it keeps what its model card promises."""

import json

import pytest
from safetensors import safe_open

from zeroflow_core.bench.weights_methods import FORWARD, REVERSE, ZERO, contenders
from zeroflow_core.bench.weights_run import DIRECTIONS, score_set
from zeroflow_core.bench.weights_sets import STATIC, WORLDS, Worlds, real_sets, simulated_sets
from zeroflow_core.fastflow3d.checkpoint import DEFAULT_CHECKPOINT, load_model
from zeroflow_core.fastflow3d.config import HALF, FastFlow3DConfig

CARD = DEFAULT_CHECKPOINT.with_suffix(".md")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """By the set's name: what the student and zero flow score in small worlds that nobody has trained on."""
    sets = simulated_sets(tmp_path_factory.mktemp("worlds"), Worlds(moving=3, static=2), jobs=1)
    methods = contenders(["default"], sets, "cpu")
    return {one.name: (one.kind, score_set(one, methods)) for one in sets}


def test_it_is_small_and_says_what_it_is():
    model, about = load_model("default")
    assert DEFAULT_CHECKPOINT.stat().st_size <= 16e6
    assert about["name"] == "default" and about["interval_s"] == 0.1
    assert "NSFP" in about["teacher"] and about["labels"] == "pseudo", "it must not have learned from truth"
    assert about["recipe"]["reverse"] is True, "the live node asks for flow backwards in time"
    assert about["verify"] is True, "the figures on its card are of verified flow"
    with safe_open(DEFAULT_CHECKPOINT, "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
        entry = json.loads(file.metadata()["zeroflow"])
    assert kinds <= {"F16", "I64"} and FastFlow3DConfig(**entry["grid"]) == model.config == HALF


def test_its_card_tells_of_data_licence_recipe_errors_and_limits():
    card = CARD.read_text()
    for word in ("Apache-2.0", "simulated", "NSFP", "seed", "three-way", "limits", "10 a second", "make_weights"):
        assert word in card, word


def test_worlds_it_was_not_trained_on(simulated):
    for name, (kind, scores) in simulated.items():
        if kind != WORLDS:
            continue
        for direction in DIRECTIONS:
            figures = scores["default"][direction]
            assert figures["num_fd"] > 1000, "too little moves to tell"
            assert figures["three_way_epe"] < 0.95 * scores[ZERO][direction]["three_way_epe"], (name, direction)
            assert figures["moving_epe"] < 0.9 * figures["moving_epe_zero"], (name, direction)


def test_where_nothing_but_the_ego_moves_little_seems_to(simulated):
    for direction in DIRECTIONS:
        figures = [scores["default"][direction] for kind, scores in simulated.values() if kind == STATIC]
        standing = sum(one["standing"] for one in figures)
        assert standing > 100_000
        assert sum(one["too_fast"] * one["standing"] for one in figures) / standing < 0.01, direction


def test_recorded_sweeps_that_it_never_learned_from(test_data):
    """On every labelled log: nearer to the truth than zero flow, which answers that nothing but the ego moves."""
    sets, _ = real_sets(test_data)
    methods = contenders(["default"], sets, "cpu")
    assert {one.name.partition("-")[0] for one in sets} == {"av2", "tri"}
    for one in sets:
        scores = score_set(one, methods)
        for direction in (FORWARD, REVERSE):
            figures, zero = (scores[name][direction] for name in ("default", ZERO))
            if figures is None:
                continue
            assert figures["moving_epe"] < 0.8 * figures["moving_epe_zero"], (one.name, direction)
            if figures["three_way_epe"] is not None:
                assert figures["three_way_epe"] < 0.8 * zero["three_way_epe"], (one.name, direction)
            assert figures["too_fast"] < 0.01, (one.name, direction)
