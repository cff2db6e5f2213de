"""What the fast engine keeps from one call to the next, or shares with others, shows in no answer."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import (
    DEVICES,
    NOTHING,
    PAIRS,
    SMALL,
    TOLERANCE_M,
    assert_equal,
    exact_flow,
    full,
    grid,
    random_network,
    scene,
    single_points,
    spread,
    student,
    torch_threads,
)

from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student

SAME_M = 1e-6
CONFIG = grid(40, 4, (1, 3), 0.5)


@pytest.fixture(scope="module")
def model():
    return random_network(CONFIG, 21)


@pytest.fixture(autouse=True)
def one_thread():
    """But in the engines that are tested: the rest is too small for more."""
    with torch_threads(1):
        yield


def on_two_threads(model: FastFlow3D, **settings: str) -> Student:
    """Steps that share something must show it, whatever the machine: an engine has as many threads as torch."""
    with torch_threads(2):
        return student(model, **settings)


@pytest.fixture(scope="module")
def clouds() -> dict[str, np.ndarray]:
    """As unlike as clouds can be."""
    rng = np.random.default_rng(22)
    some, more = scene(CONFIG, 23), scene(CONFIG, 24, 4000)
    border = PAIRS["lower x"](CONFIG, rng)[0], PAIRS["upper y"](CONFIG, rng)[0]
    return {
        "some": some[0],
        "some, next": some[1],
        "many": more[0],
        "many, next": more[1],
        "full": full(CONFIG, rng),
        "nothing": NOTHING,
        "outside": spread(CONFIG, rng, 5) + np.float32(100),
        "one point": spread(CONFIG, rng, 1),
        "in a corner": single_points(CONFIG)["left low"],
        "in the other corner": single_points(CONFIG)["right high"],
        "lower x": border[0],
        "upper y": border[1],
    }


@pytest.fixture(scope="module")
def first_answer(model, clouds) -> Callable[..., np.ndarray]:
    """What an engine says to a pair that is its first."""
    known: dict[tuple[str, str, str], np.ndarray] = {}

    def answer(name0: str, name1: str, device: str = "cpu") -> np.ndarray:
        key = name0, name1, device
        if key not in known:
            known[key] = student(model, device=device).flow(clouds[name0], clouds[name1])
            assert_equal(known[key], exact_flow(model, clouds[name0], clouds[name1]))
        return known[key]

    return answer


def assert_same(flow: np.ndarray, expected: np.ndarray, what: object = "") -> None:
    np.testing.assert_allclose(flow, expected, atol=SAME_M, rtol=0, equal_nan=True, err_msg=str(what))


# --- one call after another --------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(2))
def test_any_sequence_gives_what_fresh_engines_give(model, clouds, first_answer, seed, device):
    rng, fast = np.random.default_rng(seed), on_two_threads(model, device=device)
    names = ["some", "some, next", "full", "nothing", "one point", "upper y"]
    name0, name1 = rng.choice(names, 2)
    for _ in range(40):
        step = rng.integers(4)
        if step == 0:  # a pair of its own
            name0, name1 = rng.choice(names, 2)
        elif step == 1:  # live: the newest cloud against the last
            name0, name1 = rng.choice(names), name0
        elif step == 2:  # through a log: the last cloud's partner comes first
            name0, name1 = name1, rng.choice(names)
        else:  # back in time
            name0, name1 = name1, name0
        flow = fast.flow(clouds[name0].copy(), clouds[name1].copy())
        assert_same(flow, first_answer(name0, name1, device), (name0, name1))


@pytest.mark.parametrize("device", DEVICES)
def test_from_everything_to_one_point_and_back(model, clouds, first_answer, device):
    """Every pillar of the grid leaves something behind, then only one is asked for."""
    fast = on_two_threads(model, device=device)
    for name in ("in a corner", "one point", "nothing", "lower x", "in the other corner", "some"):
        for pair in (("full", "full"), (name, "nothing"), ("full", "full"), ("nothing", name), (name, name)):
            assert_same(fast.flow(clouds[pair[0]], clouds[pair[1]]), first_answer(*pair, device), pair)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_pair_again_and_turned_round(model, clouds, first_answer, device):
    fast = on_two_threads(model, device=device)
    for pair in [("some", "many")] * 3 + [("many", "some")] * 2 + [("some", "some")] * 2 + [("some", "many")]:
        assert_same(fast.flow(clouds[pair[0]], clouds[pair[1]]), first_answer(*pair, device), pair)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", [(1,), (1, 1), (1, 1, 1)])
def test_large_values_do_not_linger(blocks, device):
    """Where sums are taken over more than is needed, what an earlier cloud left there takes digits with it."""
    config = replace(grid(80, 4, blocks, 0.5), minimum=(-20.0, -20.0, -1e5), maximum=(20.0, 20.0, 1e5))
    network, rng = random_network(config, 25), np.random.default_rng(25)
    with torch.no_grad():
        network.head.decoder[2].bias.zero_()
    tall = full(config, rng)
    fast, fresh = (on_two_threads(network, device=device) for _ in range(2))
    for place in rng.uniform(-17, 17, (10, 2)):
        low = [rng.uniform(-1, 1, (20, 3)) + [*place, 0] for _ in range(2)]
        fast.flow(tall, tall)
        expected = fresh.flow(*low)
        np.testing.assert_allclose(fast.flow(*low), expected, atol=1e-5 * float(expected.std(axis=0).min()), rtol=0)


@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_a_cloud_that_its_owner_changed_is_another_cloud(model, as_tensor):
    """A driver fills the same buffer again and again: the object is the same, or its place in memory, not the cloud."""
    fast, rng = on_two_threads(model), np.random.default_rng(25)
    buffer0, buffer1 = scene(CONFIG, 26)
    given = [torch.from_numpy(b) if as_tensor else b for b in (buffer0, buffer1)]
    before = np.zeros_like(buffer0)

    def check(what: str) -> None:
        expected = exact_flow(model, buffer0, buffer1)
        assert not np.allclose(expected, before, atol=20 * TOLERANCE_M, equal_nan=True)  # or nothing is tested
        before[:] = expected
        assert_equal(np.asarray(fast.flow(*given)), expected, what=what)

    check("as they are")
    buffer1[:] = rng.permutation(buffer1) + np.float32([0.7, 0, 0])
    check("pc1 moved")
    buffer0[len(buffer0) // 2] += np.float32([3, 2, 0])
    check("one point of pc0 moved")
    buffer0[-1, 2] += np.float32(0.5)
    check("the last point of pc0 raised")
    buffer0[:, :2] = buffer0[:, 1::-1].copy()
    check("x and y of pc0 changed round: as many points, the same sum")
    buffer0[:], buffer1[:] = np.roll(buffer0, 7, axis=0), -buffer1
    check("rows of pc0 rolled: as many points, the same sum; pc1 turned round")
    buffer0[::2] = np.nan
    check("half of pc0 lost")
    buffer0[:] = np.inf
    check("all of pc0 lost")


def test_clouds_that_differ_by_little_are_told_apart(model):
    """As one point, one digit, or a sum that stays the same."""
    fast, (pc0, pc1) = on_two_threads(model), scene(CONFIG, 27)
    inside = np.flatnonzero(np.isfinite(fast.flow(pc0, pc1)[:, 0]))

    def moved(row: int, by: list[float]) -> np.ndarray:
        cloud = pc0.copy()
        cloud[row] += np.float32(by)
        return cloud

    two = moved(inside[3], [0.6, 0, 0])
    two[inside[40]] -= np.float32([0.6, 0, 0])
    others = [moved(inside[0], [0, 0, 0.2]), moved(inside[-1], [0, 0.05, 0]), two, pc0[:-1], pc0[inside[1] :], pc0]
    for other in others:
        assert_equal(fast.flow(other, pc1), exact_flow(model, other, pc1))
        assert_equal(fast.flow(pc1, other), exact_flow(model, pc1, other))


def test_a_new_cloud_in_the_place_of_an_old_one(model):
    """Freed memory is given out again: neither id() nor the address tells clouds apart."""
    fast, seen = on_two_threads(model), set()
    pc1 = scene(CONFIG, 28)[1]
    for seed in range(12):
        cloud = scene(CONFIG, seed)[0][:300].copy()
        seen.add(cloud.ctypes.data)
        assert_equal(fast.flow(cloud, pc1), exact_flow(model, cloud, pc1))
        del cloud
    assert len(seen) < 12  # or else nothing was tested


@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_an_answer_stays_what_it_was_and_belongs_to_the_caller(model, clouds, first_answer, as_tensor):
    fast = on_two_threads(model)

    def flow(name0: str, name1: str):
        pair = [clouds[name] for name in (name0, name1)]
        return fast.flow(*(torch.from_numpy(cloud) if as_tensor else cloud for cloud in pair))

    pairs = [("some", "many"), ("some", "many"), ("many", "some"), ("full", "nothing"), ("some", "some, next")]
    answers = [flow(*pair) for pair in pairs]
    flow("many", "many, next")
    for answer, pair in zip(answers, pairs, strict=True):
        assert_same(np.asarray(answer), first_answer(*pair), pair)
        answer[:] = 7.0  # what callers do with it is their affair
    for pair in pairs:
        assert_same(np.asarray(flow(*pair)), first_answer(*pair), pair)


def test_clouds_stay_as_they_were(model):
    fast = on_two_threads(model)
    for name in ("a scene", "strange rows", "edges of pillars"):
        given = PAIRS[name](CONFIG, np.random.default_rng(29))
        kept = [cloud.copy() for cloud in given]
        fast.flow(*given)
        for cloud, before in zip(given, kept, strict=True):
            np.testing.assert_array_equal(cloud, before)


def test_the_model_stays_as_it_was(model, clouds):
    """It is the caller's, and may train on."""
    fast = on_two_threads(model)
    fast.flow(clouds["some"], clouds["many"])
    for (name, value), (_, before) in zip(fast.model.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(value, before), name
    assert all(parameter.requires_grad for parameter in fast.model.parameters())


# --- many engines, many threads ----------------------------------------------------------------------------


def test_engines_side_by_side(model, clouds, first_answer):
    """Two of one network, one of another size, and one in bf16: nothing is shared but code."""
    other = random_network(SMALL, 30)
    one, two, another = on_two_threads(model), student(model), on_two_threads(other)
    rounded = on_two_threads(model, precision="bf16")
    other_pair = scene(SMALL, 31)
    expected = student(other).flow(*other_pair)
    for pair in (("some", "many"), ("full", "one point"), ("one point", "full"), ("many", "some")):
        pc0, pc1 = (clouds[name] for name in pair)
        assert_same(one.flow(pc0, pc1), first_answer(*pair), pair)
        rounded.flow(pc0, pc1)
        assert_same(another.flow(*other_pair), expected)
        assert_same(two.flow(pc1, pc0), first_answer(*pair[::-1]), pair)


def test_another_thread_may_call(model, clouds, first_answer):
    fast = on_two_threads(model)
    for pair in (("some", "many"), ("full", "one point")):
        assert_same(fast.flow(clouds[pair[0]], clouds[pair[1]]), first_answer(*pair))
        (flow,) = _in_threads([lambda pair=pair: fast.flow(clouds[pair[1]], clouds[pair[0]])])
        assert_same(flow, first_answer(*pair[::-1]), pair)
    (made_there,) = _in_threads([lambda: student(model)])
    assert_same(made_there.flow(clouds["some"], clouds["many"]), first_answer("some", "many"))


@pytest.mark.parametrize("engines", [1, 2])
def test_two_threads_may_call_at_once(model, clouds, first_answer, engines):
    fast = [on_two_threads(model) for _ in range(engines)]
    names, wrong = ["some", "some, next", "full", "nothing", "one point", "upper y"], []
    for name0 in names:
        for name1 in names:
            first_answer(name0, name1)

    def call(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(40):
            name0, name1 = rng.choice(names, 2)
            flow = fast[number % engines].flow(clouds[name0], clouds[name1])
            if not np.allclose(flow, first_answer(name0, name1), atol=SAME_M, rtol=0, equal_nan=True):
                wrong.append((number, name0, name1))

    _in_threads([lambda number=number: call(number) for number in range(3)])
    assert wrong == []


def _in_threads(work: list[Callable]) -> list:
    """What each returns, all at once, each in a thread of its own."""
    results, errors = [None] * len(work), []

    def run(k: int) -> None:
        try:
            results[k] = work[k]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a call does not come back"
    if errors:
        raise errors[0]
    return results


# --- the process around it ---------------------------------------------------------------------------------


def _settings() -> dict[str, object]:
    """What a library might change in the process of its caller."""
    found = {
        "threads": torch.get_num_threads(),
        "interop threads": torch.get_num_interop_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "default type": torch.get_default_dtype(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32),
        "oneDNN": torch.backends.mkldnn.enabled,
        "denormals": float(torch.tensor([1e-40]) * 0.5) != 0,
        "environment": dict(os.environ),
        "random": (torch.get_rng_state().sum().item(), np.random.get_state()[1].sum()),
        "numpy": np.geterr(),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "switching": sys.getswitchinterval(),
        "folder": os.getcwd(),
    }
    if hasattr(os, "sched_getaffinity"):
        found |= {"affinity": os.sched_getaffinity(0), "nice": os.getpriority(os.PRIO_PROCESS, 0)}
    return found


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_process_is_left_as_it_was(model, clouds, threads, precision):
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        student(model, precision=precision).flow(clouds["some"], clouds["many"])  # loads what it loads
        before = _settings()
        fast = student(model, precision=precision)
        assert _settings() == before
        for name in ("some", "nothing", "full"):
            fast.flow(clouds[name], clouds["many"])
            assert _settings() == before
        seen = _in_threads([lambda: (torch.set_num_threads(1), fast.flow(NOTHING, NOTHING), torch.get_num_threads())])
        assert seen[0][2] == 1
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize(
    "around",
    [
        torch.inference_mode,
        torch.enable_grad,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: np.errstate(all="raise"),
        lambda: _default_type(torch.float64),
        lambda: torch_threads(1),
        lambda: torch_threads(3),
    ],
    ids=["inference", "gradients", "autocast", "strict numpy", "float64 by default", "one thread", "three threads"],
)
def test_answers_do_not_depend_on_the_callers_settings(model, clouds, first_answer, around):
    made_before = on_two_threads(model)
    expected = {name: first_answer(name, "many") for name in ("some", "full", "nothing")}
    strange = PAIRS["strange rows"](CONFIG, np.random.default_rng(32))
    with around(), warnings.catch_warnings():
        warnings.simplefilter("error")
        made_inside = student(model)
        for name, flow in expected.items():
            for fast in (made_before, made_inside):
                assert_same(fast.flow(clouds[name], clouds["many"]), flow, name)
                tensor = fast.flow(torch.from_numpy(clouds[name]), torch.from_numpy(clouds["many"]))
                assert tensor.dtype == torch.float32 and not tensor.requires_grad
        made_inside.flow(*strange)
    for name, flow in expected.items():
        assert_same(made_inside.flow(clouds[name], clouds["many"]), flow, name)


class _default_type:
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.usual = dtype, torch.get_default_dtype()

    def __enter__(self) -> None:
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.usual)
