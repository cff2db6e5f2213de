"""What a student sees and when; and that a window of the grid is a cut-out of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_cases import TINY, make_source, off_surface, quick

from zeroflow_core.distillation.pairs import choose_pairs
from zeroflow_core.distillation.training.augment import NO_AUGMENTATION, Augmentation
from zeroflow_core.distillation.training.batches import Batches, Order, Samples, Visit
from zeroflow_core.distillation.training.prepared import PreparedPairs
from zeroflow_core.distillation.training.samples import Sample, cut_window, window_config
from zeroflow_core.distillation.training.scene_flow import FlowLearner, Item
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import ONE_X, SMALL, XL, FastFlow3DConfig

WIDE = FastFlow3DConfig((-32.0, -32.0, -3.0), (32.0, 32.0, 3.0), pillar_size=0.5, channels=4, blocks=(1, 2))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def prepared(source):
    return PreparedPairs(source, choose_pairs(source.logs), TINY, None)


def _what(visits) -> Counter:
    return Counter((visit.source, visit.pair, visit.reverse) for visit in visits)


def test_every_pair_once_an_epoch():
    order = Order((7, 4), (1.0, 1.0), (False, False), visits=1, seed=0)
    for number in range(3):
        visits = order.epoch(number)
        every = [(0, k, False) for k in range(7)] + [(1, k, False) for k in range(4)]
        assert _what(visits) == Counter(every) and len(order) == len(visits) == 11
        assert [visit.place for visit in visits] == list(range(11))
        assert {visit.epoch for visit in visits} == {number}


def test_both_directions_where_there_are_labels_for_both():
    order = Order((5, 3), (1.0, 1.0), (True, False), visits=2, seed=0)
    seen = _what(order.epoch(0))
    both = [(0, k, reverse) for k in range(5) for reverse in (False, True)]
    assert seen == Counter({**dict.fromkeys(both, 2), **{(1, k, False): 2 for k in range(3)}})
    assert len(order) == 26


@pytest.mark.parametrize(("weight", "least", "most", "visits"), [(0.5, 0, 1, 4), (2.0, 2, 2, 16), (2.5, 2, 3, 20)])
def test_a_weight_is_how_often_a_pair_is_seen(weight, least, most, visits):
    order = Order((10, 8), (1.0, weight), (False, False), visits=1, seed=3)
    totals: Counter = Counter()
    for number in range(8):
        seen = _what(order.epoch(number))
        assert sum(count for (of, _, _), count in seen.items() if of == 0) == 10
        counts = [seen[1, k, False] for k in range(8)]
        assert sum(counts) == visits and least <= min(counts) and max(counts) <= most
        totals.update({k: counts[k] for k in range(8)})
    assert min(totals.values()) > 0, "over the epochs every pair has its turn"


def test_a_small_weight_still_shows_something():
    assert len(Order((3, 100), (0.01, 1.0), (False, False), visits=1, seed=0).epoch(0)) == 101


def test_the_order_depends_on_seed_and_epoch_alone():
    one, same, other = (Order((20, 9), (1.0, 1.0), (True, False), 1, seed) for seed in (4, 4, 5))
    assert one.epoch(2) == same.epoch(2)
    orders = [[visit[:3] for visit in visits] for visits in (one.epoch(1), one.epoch(2), other.epoch(2))]
    assert orders[0] != orders[1] != orders[2]
    sources = [visit.source for visit in one.epoch(0)]
    assert sources != sorted(sources), "sources are mixed"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_each_batch_out_among_them(world):
    order = Order((23,), (1.0,), (False,), 1, 0)
    alone = Batches(order, 6)
    teams = [Batches(order, 6, rank, world) for rank in range(world)]
    for one in (alone, *teams):
        one.epoch = 1
    assert len(alone) == 3 == len(list(alone))
    for whole, *parts in zip(alone, *teams, strict=True):
        assert {len(part) for part in parts} == {6 // world}
        assert sorted(visit.place for part in parts for visit in part) == [visit.place for visit in whole]


def test_batches_that_do_not_divide_are_made_smaller():
    order = Order((23,), (1.0,), (False,), 1, 0)
    teams = [Batches(order, 7, rank, 3) for rank in range(3)]
    assert [len(part) for part in next(zip(*teams, strict=True))] == [2, 2, 2]
    assert Batches(order, 64).batch == 23 and len(Batches(order, 64)) == 1


def test_batches_go_on_in_the_middle_of_an_epoch():
    order = Order((23,), (1.0,), (False,), 1, 0)
    whole, rest = Batches(order, 4), Batches(order, 4)
    whole.epoch, rest.epoch, rest.start = 3, 3, 2
    assert list(rest) == list(whole)[2:]
    assert len({visit for batch in whole for visit in batch}) == 20
    whole.epoch = 4
    assert list(rest)[0] != list(whole)[2]


def test_a_visit_gives_the_same_sample_whenever_it_comes(prepared):
    visits = Order((len(prepared),), (1.0,), (True,), 1, 0).epoch(1)
    first, second = (Samples([prepared], quick(), TINY, seed=5) for _ in range(2))
    forwards = {visit: first[visit] for visit in visits}
    for visit in reversed(visits):
        for name in ("pc0", "pc1", "label", "low"):
            np.testing.assert_array_equal(getattr(second[visit], name), getattr(forwards[visit], name))
    other = Samples([prepared], quick(), TINY, seed=6)[visits[0]]
    assert not np.array_equal(other.pc0, forwards[visits[0]].pc0)
    again = first[visits[0]._replace(epoch=2)]
    assert not np.array_equal(again.pc0, forwards[visits[0]].pc0)


def test_samples_are_of_their_pair_and_direction(prepared):
    plain = quick(window=1.0, augmentation=Augmentation(odometry_m=0.0, odometry_deg=0.0))
    bare = Samples([prepared], replace(plain, augmentation=NO_AUGMENTATION), TINY, 0)
    for pair in range(len(prepared)):
        forward, reverse = (bare[Visit(0, pair, back, 0, 0)] for back in (False, True))
        np.testing.assert_array_equal(forward.pc0, prepared[pair].pc0)
        np.testing.assert_array_equal(reverse.pc0, prepared[pair].pc1)
        assert (forward.dt > 0, reverse.dt < 0, forward.low, reverse.low) == (True, True, None, None)
    for place in range(12):
        varied = Samples([prepared], plain, TINY, 0)[Visit(0, place % len(prepared), place % 2 == 1, 0, place)]
        assert off_surface(varied).max() < 0.02, "labels are kept in float16"


def test_pairs_without_anything_to_learn_are_replaced(prepared):
    class OneIsEmpty:
        def __len__(self):
            return len(prepared)

        def __getitem__(self, k):
            nothing = np.zeros(len(prepared[k].pc0), dtype=bool)
            one = prepared[k]
            return replace(one, pc0=one.pc0[nothing], label0=one.label0[nothing], ring0=None) if k == 1 else one

    samples = Samples([OneIsEmpty()], quick(reverse=False), TINY, 0)
    assert len(samples[Visit(0, 1, False, 0, 0)].pc0) >= 32


@pytest.mark.parametrize("what", ["no labels", "far away"])
def test_where_nothing_can_be_learned_it_says_so(prepared, what):
    class Nothing:
        def __len__(self):
            return 2

        def __getitem__(self, k):
            one = prepared[k]
            if what == "no labels":
                return replace(one, label0=np.full_like(one.label0, np.nan))
            return replace(one, pc0=one.pc0 + np.float32([0, 0, 9]))

    mistake = Samples([Nothing()], quick(), TINY, 0)[Visit(0, 0, False, 0, 0)]
    assert isinstance(mistake, ZeroFlowError), "raised in a process that loads, it would be told as a traceback"
    assert "pairs in a row" in str(mistake) and "8 m of the vehicle and 3 m of its height" in str(mistake)


# Windows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, WIDE, SMALL, ONE_X, XL])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.75, 1.0])
def test_a_window_is_whole_cells_of_the_coarsest_map(config, share):
    window, step = window_config(config, share), 2 ** len(config.blocks)
    assert window.cells % step == 0 and step <= window.cells <= config.cells
    assert abs(window.cells - share * config.cells) <= max(step / 2, step - share * config.cells)
    assert (window.pillar_size, window.channels, window.blocks) == (config.pillar_size, config.channels, config.blocks)
    assert (window.minimum[2], window.maximum[2]) == (config.minimum[2], config.maximum[2])
    if share == 1.0:
        assert window == config


def _crowd(seed: int, n: int = 6000, label_scale: float = 0.0) -> Sample:
    """Points all over WIDE's grid and beyond, off the borders of pillars, where rounding may decide."""
    rng = np.random.default_rng(seed)
    clouds = []
    for _ in range(2):
        cloud = rng.uniform([-36, -36, -2.9], [36, 36, 2.9], (n, 3))
        cloud[:, :2] = np.floor(cloud[:, :2] * 2) / 2 + rng.uniform(0.02, 0.48, (n, 2))
        clouds.append(cloud.astype(np.float32))
    label = rng.normal(0, label_scale, (n, 3)).astype(np.float32) if label_scale else np.zeros((n, 3), np.float32)
    return Sample(*clouds, label, 0.1)


def _items(*samples: Sample) -> list[Item]:
    tensors = [[torch.from_numpy(values) for values in (one.pc0, one.pc1, one.label)] for one in samples]
    lows = [None if one.low is None else torch.from_numpy(one.low) for one in samples]
    return [Item(*values, one.dt, low) for values, one, low in zip(tensors, samples, lows, strict=True)]


def test_a_window_is_an_exact_cut_out_of_the_whole_grid():
    torch.manual_seed(0)
    window = window_config(WIDE, 0.75)
    whole, part = FlowLearner(WIDE, bf16=False).eval(), FlowLearner(window, bf16=False).eval()
    for norm in whole.modules():
        if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)
    part.load_state_dict(whole.state_dict())
    rng = np.random.default_rng(0)
    sample = _crowd(1)
    cuts = [cut_window(sample, WIDE, window, False, rng) for _ in range(6)]
    assert len({tuple(cut.low) for cut in cuts}) > 2
    with torch.no_grad():
        ((flow, index),) = whole(_items(sample))
        answers = part(_items(*cuts))
    expected = np.full((len(sample.pc0), 3), np.nan, np.float32)
    expected[index] = flow
    reach = 6.5  # metres that the network sees to each side: 13 pillars at most through two stages
    compared = 0
    for cut, (answer, rows) in zip(cuts, answers, strict=True):
        origin = {tuple(point): k for k, point in enumerate(sample.pc0)}
        points = cut.pc0[rows]
        high = cut.low + window.cells * window.pillar_size
        inner_low = np.where(cut.low <= WIDE.minimum[0], cut.low, cut.low + reach)
        inner_high = np.where(high >= WIDE.maximum[0], high, high - reach)
        inner = ((points[:, :2] >= inner_low) & (points[:, :2] < inner_high)).all(axis=1)
        there = expected[[origin[tuple(point)] for point in points]]
        np.testing.assert_allclose(answer[inner], there[inner], atol=2e-4)
        assert not np.allclose(answer[~inner], there[~inner], atol=2e-2), "the border does see less"
        compared += inner.sum()
    assert compared > 1000


def test_a_window_takes_all_points_in_it_and_no_others():
    window = window_config(WIDE, 0.5)
    sample = _crowd(2, label_scale=0.1)
    cut = cut_window(sample, WIDE, window, False, np.random.default_rng(3))
    low, high = cut.low, cut.low + window.cells * window.pillar_size
    for whole, part in ((sample.pc0, cut.pc0), (sample.pc1, cut.pc1)):
        inside = ((whole[:, :2] >= low) & (whole[:, :2] < high)).all(axis=1)
        np.testing.assert_array_equal(whole[inside], part)
    inside = ((sample.pc0[:, :2] >= low) & (sample.pc0[:, :2] < high)).all(axis=1)
    np.testing.assert_array_equal(sample.label[inside], cut.label)
    corner = (low - WIDE.minimum[0]) / WIDE.pillar_size
    np.testing.assert_array_equal(corner % 4, 0)
    assert low.dtype == np.float32 and (corner >= 0).all() and (corner + window.cells <= WIDE.cells).all()


@pytest.mark.parametrize("dt", [0.1, -0.1])
def test_a_window_lies_around_what_moves(dt):
    window = window_config(WIDE, 0.25)
    sample = _crowd(4)
    label = np.zeros_like(sample.label)
    mover = int(np.argmin(np.abs(sample.pc0[:, :2] - [20.2, -17.3]).sum(axis=1)))
    label[mover] = [0.051, 0, 0]
    label[(mover + 1) % len(label)] = np.nan
    label[(mover + 2) % len(label)] = [0.049, 0, 0]
    sample = replace(sample, label=label, dt=dt)
    for seed in range(30):
        cut = cut_window(sample, WIDE, window, True, np.random.default_rng(seed))
        assert (np.linalg.norm(cut.label, axis=1) >= 0.05).sum() == 1
    elsewhere = [cut_window(sample, WIDE, window, False, np.random.default_rng(seed)).label for seed in range(30)]
    assert sum((np.linalg.norm(one, axis=1) >= 0.05).any() for one in elsewhere) < 15


def test_windows_reach_every_corner_and_stay_in_the_grid():
    window = window_config(WIDE, 0.5)
    lows = {tuple(cut_window(_crowd(5), WIDE, window, False, np.random.default_rng(s)).low) for s in range(60)}
    x, y = np.array(sorted(lows)).T
    assert x.min() == y.min() == -32 and x.max() == y.max() == 0


def test_an_empty_cloud_has_a_window_too():
    sample = _crowd(6).take(np.zeros(6000, bool), np.ones(6000, bool))
    cut = cut_window(sample, WIDE, window_config(WIDE, 0.5), True, np.random.default_rng(0))
    assert len(cut.pc0) == 0 and len(cut.pc1) > 0
