"""The Triton kernels of the student's engine against the same steps in plain PyTorch, and that they compile.

They run on a GPU, or else in Triton's interpreter. That plain PyTorch is right, test_engine_cuda_path.py shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from engine_cases import PAIRS, cell_edges, exact_flow, grid, needs_gpu, random_network, scene, strange_rows
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cuda import engine as cuda
from zeroflow_core.fastflow3d.engine.cuda import network as cuda_network
from zeroflow_core.fastflow3d.engine.cuda import plain as cuda_plain
from zeroflow_core.fastflow3d.engine.cuda.plain import Grid, PointLayers
from zeroflow_core.fastflow3d.pillars import PillarGrid

# Channels that are no power of two, more of them than are multiplied at a time, sizes that float32 can't hold, more
# pillars than a program takes; how many rows of what is added at the borders differ.
POINT_CASES = {
    "5 channels": (grid(12, 5, (1,), 0.3, (-0.9, -2.1)), torch.float32, 6),
    "48 channels": (grid(8, 48, (1,), 0.1), torch.float32, 8),
    "32 channels": (grid(20, 32, (1,), 0.5), torch.bfloat16, 12),
}
# Channels, height, width; what programs of 1024 numbers, 32 pixels and 64 channels don't divide.
MAP_CASES = [
    (64, 6, 10, torch.float32),
    (10, 2, 2, torch.float32),
    (96, 4, 14, torch.float32),
    (32, 8, 8, torch.bfloat16),
]
SMALL = grid(16, 4, (1, 2))


def _random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Maps (4 dimensions) are channels last."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(dtype)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def _points(config) -> Tensor:
    """(2,K,3), NaN at the end; K is no multiple of what a program takes."""
    rng = np.random.default_rng(1)
    clouds = [np.concatenate([cell_edges(config), strange_rows(config, rng)]), scene(config, 2, 500)[1]]
    points = torch.full((2, 900, 3), torch.nan)
    for rows, cloud in zip(points, clouds, strict=True):
        rows[: len(cloud)] = torch.from_numpy(cloud)
    return points


def _answers(steps: ModuleType, device: str) -> dict[str, Tensor]:
    """What an implementation of the steps makes of all cases."""
    answers = {}
    for name, (config, dtype, rest) in POINT_CASES.items():
        answers |= {
            f"{name}: {key}": value for key, value in _point_answers(steps, device, config, dtype, rest).items()
        }
    for channels, height, width, dtype in MAP_CASES:
        name = f"{channels} channels, {height}×{width}"
        x, bias = _random(2, channels, height, width, seed=1, dtype=dtype), _random(channels, seed=2)
        coarse = _random(1, channels, height // 2, width // 2, seed=3, dtype=dtype)
        maps = _random(2, channels // 2, height, width, seed=4, dtype=dtype)
        answers[f"{name}: bias_gelu"] = steps.bias_gelu(x.clone().to(device), bias.to(device))
        answers[f"{name}: decoder_input"] = steps.decoder_input(coarse.to(device), maps.to(device))
    answers |= _engine_answers(steps, device)
    return {name: value.cpu() for name, value in answers.items()}


def _point_answers(steps: ModuleType, device: str, config, dtype: torch.dtype, rest: int) -> dict[str, Tensor]:
    channels, pillar_grid, points = config.channels, PillarGrid(config), _points(config).to(device)
    where = Grid(pillar_grid.minimum.to(device), pillar_grid.size.to(device), config.cells)
    shapes = (9, channels), (channels,), (2 * channels, 32), (3, 32), (rest, rest, 32), (32, 3), (3,)
    layers = PointLayers(*(0.3 * _random(*shape, seed=k).to(device) for k, shape in enumerate(shapes)))
    sums = torch.zeros(2 * config.cells**2, 4, device=device)
    embedded = torch.zeros(2 * config.cells**2, channels, device=device)
    motion = _random(1, 32, config.cells, config.cells, seed=9, dtype=dtype).to(device)
    other_canvases = _random(2, channels, config.cells, config.cells, seed=10, dtype=dtype).to(device)
    flow = torch.zeros(points.shape[1], 3, device=device)
    answers = {}
    for frame in ("first", "second"):
        pillars, offsets = steps.locate(points, where, sums)
        answers[f"{frame} pillars"] = pillars
        answers[f"{frame} offsets"] = torch.where(pillars[..., None] >= 0, offsets, 0.0)
        answers[f"{frame} sums"] = sums.clone()
        steps.embed(points, pillars, offsets, sums, layers, embedded)
        answers[f"{frame} features"] = embedded.clone()
        canvases = steps.canvas(sums, embedded, config.cells, dtype)
        if steps is not cuda_plain:
            assert not sums.any() and not embedded.any(), "the next frame would start with this one's sums"
        assert canvases.dtype == dtype and canvases.is_contiguous(memory_format=torch.channels_last)
        answers[f"{frame} canvases"] = canvases
        steps.head(pillars, offsets, motion, other_canvases, layers, flow)
        answers[f"{frame} flow"] = flow.clone()
        points = points.flip(0)
    return answers


def _engine_answers(steps: ModuleType, device: str) -> dict[str, Tensor]:
    """Whole frames of one engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_network, "_kernels_for", lambda device: steps)
        patch.setattr(cuda, "_STEP", 512)
        engine = cuda.CudaEngine(random_network(SMALL, 3), "fp32", device)
        return {f"{name}: whole frame": torch.from_numpy(engine.flow(*_engine_clouds(name))) for name in ENGINE_PAIRS}


ENGINE_PAIRS = ("a scene", "edges of pillars", "strange rows", "pc0 empty")


def _engine_clouds(name: str) -> tuple[np.ndarray, np.ndarray]:
    return PAIRS[name](SMALL, np.random.default_rng(4))


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return _answers(cuda_plain, "cpu")


def _assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith((" pillars", " offsets")):
            assert torch.equal(found[name], value), name
            continue
        # Sums are added in another order, and bf16 has eight bits.
        tolerance = 1e-5 if value.dtype == torch.float32 else 2**-7
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text, name=name: name + text
        )


def test_the_cases_are_worth_something(plain):
    for name, (config, _, _) in POINT_CASES.items():
        pillars = plain[f"{name}: first pillars"]
        expected = [PillarGrid(config)(cloud) for cloud in _points(config)]
        for k, (found, of_cloud) in enumerate(zip(pillars, expected, strict=True)):
            assert torch.equal(found[found >= 0], k * config.cells**2 + of_cloud.cell.int())
            assert torch.equal((found >= 0).nonzero()[:, 0], of_cloud.index)
        assert (plain[f"{name}: first sums"][:, 3] > 1).any() and (plain[f"{name}: first sums"][:, 3] == 0).any()
        flow = plain[f"{name}: first flow"]
        assert flow.isnan().any() and flow.nan_to_num().std() > 0.1
        assert not torch.equal(flow.nan_to_num(), plain[f"{name}: second flow"].nan_to_num())


def test_kernels_in_the_interpreter_agree_with_plain_pytorch(plain, tmp_path: Path):
    pytest.importorskip("triton", reason="Triton is not installed")
    answers = tmp_path / "answers.pt"
    _run(f"import test_engine_cuda_kernels as t; t.interpret_kernels({str(answers)!r})", TRITON_INTERPRET="1")
    _assert_near(torch.load(answers), plain)


def interpret_kernels(path: str) -> None:
    """In a process where Triton interprets: put the kernels' answers into a file."""
    from zeroflow_core.fastflow3d.engine.cuda import kernels as cuda_kernels

    with torch.no_grad(), np.errstate(all="ignore"):  # what is not finite is in the cases
        torch.save(_answers(cuda_kernels, "cpu"), path)


@needs_gpu
@pytest.mark.parametrize("triton", [True, False], ids=["Triton", "plain"])
def test_a_gpu_agrees_with_the_cpu(plain, triton: bool):
    steps = cuda_plain
    if triton:
        from zeroflow_core.fastflow3d.engine.cuda import kernels as steps
    with torch.no_grad():
        _assert_near(_answers(steps, "cuda"), plain)


@pytest.mark.parametrize("name", ENGINE_PAIRS)
def test_frames_are_those_of_the_model(plain, name: str):
    expected = exact_flow(random_network(SMALL, 3), *_engine_clouds(name))
    np.testing.assert_allclose(plain[f"{name}: whole frame"].numpy(), expected, atol=1e-5, rtol=0)


def _run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path} | variables
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


def test_kernels_compile_for_gpus_that_are_not_here(tmp_path: Path):
    pytest.importorskip("triton", "3.3", "Triton is not installed, or too old to compile without a GPU")
    program = "import test_engine_cuda_kernels as t; t.compile_kernels()"
    done = _run(program, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.split() == [name for _ in GENERATIONS for _ in COMPILED for name in KERNELS]


KERNELS = (
    "_locate_kernel",
    "_embed_kernel",
    "_canvas_kernel",
    "_bias_gelu_kernel",
    "_decoder_input_kernel",
    "_head_kernel",
)
GENERATIONS = (75, 80, 90)  # compute capability, times ten: Turing, Ampere, Hopper
COMPILED = {"1x": ("bf16", 32, 64), "XL": ("fp32", 64, 1024)}  # precision, channels of a pillar, of a level


def compile_kernels() -> None:
    """Compile as for the arguments of published sizes, look at the code, and print what was compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from zeroflow_core.fastflow3d.engine.cuda import kernels as cuda_kernels

    numbers = (
        "capacity",
        "cells",
        "row_count",
        "channel_count",
        "pillar_count",
        "numel",
        "height",
        "width",
        "rest_side",
    )
    for generation, (maps, channels, lateral) in product(GENERATIONS, COMPILED.values()):
        types = dict.fromkeys(numbers, "i32") | {"pillars": "*i32"}
        types |= dict.fromkeys(("motion", "canvases", "means", "x", "coarse", "maps", "joined"), f"*{maps}")
        sizes = {"POINTS": 64, "PILLARS": 64, "ELEMENTS": 1024, "PIXELS": 32, "HIDDEN": 32, "LATERAL": lateral}
        for name in KERNELS:
            kernel = getattr(cuda_kernels, name)
            padded = {"_decoder_input_kernel": 64, "_head_kernel": 32}.get(name, channels)
            constants = {key: value for key, value in (sizes | {"CHANNELS": padded}).items() if key in kernel.arg_names}
            signature = {key: types.get(key, "*fp32") for key in kernel.arg_names} | dict.fromkeys(
                constants, "constexpr"
            )
            aligned = [k for k, key in enumerate(kernel.arg_names) if key not in constants]
            source = ASTSource(kernel, signature, constants, {(k,): [["tt.divisibility", 16]] for k in aligned})
            target = GPUTarget("cuda", generation, 32)
            code = compile(source, target=target, options=cuda_kernels._OPTIONS).asm["ptx"]
            assert f".target sm_{generation}" in code
            assert "div.full" not in code and "div.approx" not in code, "a point on an edge would change its pillar"
            assert name != "_locate_kernel" or "fma" not in code
            if name == "_canvas_kernel":  # or one thread clears what another has yet to read
                barrier = code.rindex("bar.sync")
                assert code.rindex("ld.global") < barrier < code.rindex("st.global") and "st.global" in code[:barrier]
                assert code[barrier:].count("st.global") > code[:barrier].count("st.global")
            print(name)


def test_importing_the_engine_does_not_load_triton():
    done = _run("import sys, zeroflow_core.fastflow3d.engine.cuda.engine; print('triton' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_a_device_where_triton_fails_is_served_by_plain_pytorch(monkeypatch):
    # There is no such device: whatever Triton would do with it, something fails.
    monkeypatch.setitem(sys.modules, "zeroflow_core.fastflow3d.engine.cuda.kernels", None)
    with pytest.warns(UserWarning, match="Triton does not work on cuda:0; plain PyTorch is slower"):
        assert cuda_network._kernels_for.__wrapped__(torch.device("cuda", 0)) is cuda_plain
    assert cuda_network._kernels_for(torch.device("cpu")) is cuda_plain


def test_a_device_whose_memory_is_full_is_not_one_where_triton_fails(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("tried to allocate little")

    monkeypatch.setitem(sys.modules, "zeroflow_core.fastflow3d.engine.cuda.kernels", SimpleNamespace(bias_gelu=None))
    monkeypatch.setattr(torch, "zeros", full)
    for _ in range(2):  # nor is it remembered
        with pytest.raises(torch.OutOfMemoryError, match="tried to allocate little"):
            cuda_network._kernels_for(torch.device("cuda", 0))
