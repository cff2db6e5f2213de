"""FastFlow3D against hand-computed answers and against the published model's own outputs."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zeroflow_core import load_student
from zeroflow_core.fastflow3d.checkpoint import save_model
from zeroflow_core.fastflow3d.config import ONE_X, XL, FastFlow3DConfig
from zeroflow_core.fastflow3d.engine.fold import dense_macs
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.pillars import PillarFeatureNet, PillarGrid
from zeroflow_core.fastflow3d.student import rounding_products

SMALL = FastFlow3DConfig(
    minimum=(-8.0, -8.0, -3.0), maximum=(8.0, 8.0, 3.0), pillar_size=0.5, channels=4, blocks=(1, 2)
)


@pytest.fixture
def small_checkpoint(tmp_path):
    torch.manual_seed(5)
    path = tmp_path / "small.safetensors"
    save_model(path, FastFlow3D(SMALL).eval(), {"name": "small", "ground": "none", "interval_s": 0.1})
    return path


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("size, seed", [("1x", 11), ("xl", 12)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_parity_with_the_published_model(test_data, tmp_path, device, size, seed):
    parity = test_data.parent / "parity"
    spec = importlib.util.spec_from_file_location("make_checkpoint", parity / "make_checkpoint.py")
    make_checkpoint = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_checkpoint)
    path = tmp_path / f"{size}.ckpt"
    torch.save({"epoch": 0, "state_dict": make_checkpoint.make_state_dict(size, seed)}, path)

    student = load_student(path, device=device, engine="reference")
    flow = student.flow(np.load(parity / "pc0.npy"), np.load(parity / "pc1.npy"))

    expected = np.load(parity / f"expected_{size}_seed{seed}.npz")
    assert np.abs(expected["flow"]).max() > 0.1
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(flow[:, 0])), expected["valid_idx"])
    np.testing.assert_allclose(flow[expected["valid_idx"]], expected["flow"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("named", ["fp32", "bf16"])
def test_auto_takes_the_precision_that_the_weights_name(tmp_path, named):
    path = tmp_path / "named.safetensors"
    save_model(path, FastFlow3D(SMALL), {"precision": named})
    assert load_student(path, device="cpu").precision == named
    assert load_student(path, device="cpu", engine="reference").precision == "fp32"
    other = {"fp32": "bf16", "bf16": "fp32"}[named]
    assert load_student(path, device="cpu", precision=other).precision == other


def test_products_rounded_to_bfloat16_are_those_of_bfloat16():
    """What a device without bfloat16 is given instead of it."""
    torch.manual_seed(0)
    model = FastFlow3D(FastFlow3DConfig(pillar_size=1.6, channels=8, blocks=(2, 3, 3))).eval()
    pc0, pc1 = (torch.rand(800, 3) * torch.tensor([60.0, 60, 2]) - torch.tensor([30.0, 30, 1]) for _ in range(2))

    def flow(of: FastFlow3D, bf16: bool = False) -> torch.Tensor:
        with torch.inference_mode():
            return of([pc0], [pc1], bf16=bf16)[0][0]

    full, half, rounded = flow(model), flow(model, bf16=True), flow(rounding_products(model))
    assert torch.equal(flow(model), full), "the model itself stays as it is"
    error = torch.linalg.vector_norm(half - full)
    assert 0 < torch.linalg.vector_norm(rounded - half) < 0.9 * error  # 1.4 of it, if they had nothing in common
    assert torch.linalg.vector_norm(rounded - full) == pytest.approx(error, rel=0.5)


@pytest.mark.parametrize("config, parameters, entries", [(ONE_X, 6_815_619, 148), (XL, 110_618_147, 198)])
def test_published_sizes(config, parameters, entries):
    with torch.device("meta"):
        model = FastFlow3D(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, channels=6, blocks=(2, 1, 3)), ONE_X])
def test_multiply_adds_are_those_of_its_convolutions(config):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        FastFlow3D(config).backbone(*torch.empty(2, 1, config.channels, config.cells, config.cells))
    assert counter.get_total_flops() == 2 * dense_macs(config)


def test_grid_borders_are_lower_inclusive_upper_exclusive():
    cloud = torch.tensor(
        [
            [-51.2, 0.1, 0.0],
            [51.2, 0.1, 0.0],
            [0.1, 0.1, -3.0],
            [0.1, 0.1, 3.0],
            [0.1, -51.3, 0.0],
            [float("nan"), 0.0, 0.0],
            [0.0, float("inf"), 0.0],
            [0.1, 0.3, 1.5],
        ]
    )
    pillars = PillarGrid(ONE_X)(cloud)
    assert pillars.index.tolist() == [0, 2, 7]
    assert pillars.cell.tolist() == [256 * 512 + 0, 256 * 512 + 256, 257 * 512 + 256]
    torch.testing.assert_close(pillars.offsets[2], torch.tensor([0.0, 0.0, 1.5]), atol=1e-5, rtol=0)


def test_pillar_features_are_the_mean_over_the_pillar():
    net = PillarFeatureNet(SMALL).eval()
    with torch.no_grad():
        net.pfn_layers[0][0].weight.copy_(torch.eye(9)[[2, 3, 6, 8]])  # z, dx to the mean, dx and dz to the centre
    cloud = torch.tensor([[0.1, 0.1, 1.0], [0.3, 0.1, 2.0], [-4.0, 3.0, 0.5]])
    canvas = net(net.grid(cloud))
    scale = 1 / np.sqrt(1 + 1e-3)  # the untrained batch norm divides by sqrt(1 + eps)
    pillar = canvas[:, 16, 16] / scale
    # z: mean of 1 and 2; dx to the mean: ReLU leaves 0 and 0.1; dx to the centre at 0.25: 0 and 0.05; dz = z
    torch.testing.assert_close(pillar, torch.tensor([1.5, 0.05, 0.025, 1.5]), atol=1e-5, rtol=0)
    assert torch.count_nonzero(canvas.abs().sum(0)) == 2


def test_flow_keeps_rows_and_marks_the_rest(small_checkpoint):
    student = load_student(small_checkpoint, device="cpu", engine="reference")
    rng = np.random.default_rng(0)
    pc0 = rng.uniform(-7, 7, (50, 3)).astype(np.float32)
    pc0[:, 2] /= 4
    outside = pc0.copy()
    outside[3] = np.nan
    outside[7, 0] = 100.0
    flow, all_inside = student.flow(outside, pc0), student.flow(pc0, pc0)
    assert flow.shape == (50, 3) and flow.dtype == np.float32
    assert np.flatnonzero(np.isnan(flow).any(axis=1)).tolist() == [3, 7]
    assert not np.isnan(all_inside).any()


@pytest.mark.parametrize("sizes", [(0, 0), (0, 40), (40, 0), (1, 1)])
def test_empty_and_tiny_clouds(small_checkpoint, sizes):
    student = load_student(small_checkpoint, device="cpu", engine="reference")
    clouds = [np.full((n, 3), 0.5, dtype=np.float32) for n in sizes]
    flow = student.flow(*clouds)
    assert flow.shape == (sizes[0], 3) and np.isfinite(flow).all()


def test_tensors_in_tensors_out_and_both_agree(small_checkpoint):
    student = load_student(small_checkpoint, device="cpu", engine="reference")
    cloud = np.random.default_rng(1).uniform(-2, 2, (30, 3))  # float64 is accepted
    from_tensor = student.flow(torch.from_numpy(cloud), torch.from_numpy(cloud))
    assert isinstance(from_tensor, torch.Tensor)
    np.testing.assert_array_equal(from_tensor.numpy(), student.flow(cloud, cloud))


def test_bf16_is_close_to_fp32(small_checkpoint):
    cloud = np.random.default_rng(1).uniform(-2, 2, (200, 3)).astype(np.float32)
    exact = load_student(small_checkpoint, device="cpu", engine="reference").flow(cloud, cloud)
    rounded = load_student(small_checkpoint, device="cpu", engine="reference", precision="bf16").flow(cloud, cloud)
    assert 0 < np.abs(exact - rounded).max() < 0.05


def test_wrong_shape_is_refused(small_checkpoint):
    with pytest.raises(ValueError, match=r"pc1 must be \(N, 3\)"):
        load_student(small_checkpoint, engine="reference").flow(np.zeros((4, 3)), np.zeros((4, 4)))


@pytest.mark.parametrize("change", [{"pillar_size": 0.3}, {"blocks": ()}, {"maximum": (8.0, 9.0, 3.0)}])
def test_unusable_grids_are_refused(change):
    with pytest.raises(ValueError):
        FastFlow3DConfig(**{**SMALL.to_dict(), **change})


def test_clouds_of_many_sizes_leave_no_kernels_behind():
    """oneDNN keeps what it compiles for each new shape: megabytes for every number of points, if the network let it."""
    program = (
        "import numpy as np\nfrom zeroflow_core.fastflow3d.student import load_student\n"
        "student = load_student('default', device='cpu', engine='reference')\n"
        "for points in (3000, 3001, 3002):\n"
        "    cloud = np.random.default_rng(points).uniform(-1, 1, (points, 3)).astype(np.float32)\n"
        "    print('cloud', points, flush=True)\n    student.flow(cloud, cloud)\n"
    )
    environment = os.environ | {"ONEDNN_VERBOSE": "profile_create"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.split("cloud 300")[1:]
    if "create:cache_miss" not in first:
        pytest.skip("this torch does not use oneDNN, or does not tell")
    assert "create:cache_miss" not in second + third
