"""The student as a file: what ONNX and TorchScript say is what FastFlow3D says, and what else the files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import PAIRS, SMALL, assert_equal, exact_flow, grid, random_network, scene, single_points, student
from torch.torch_version import TorchVersion

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d import export
from zeroflow_core.fastflow3d.export import export_onnx, export_torch
from zeroflow_core.fastflow3d.exportable import Exportable
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import ENGINES
from zeroflow_core.version import VERSION

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401
except ImportError:
    onnx = None

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
needs_onnx = pytest.mark.skipif(onnx is None, reason="needs the packages of the extra onnx")
FORMATS = [pytest.param("onnx", marks=needs_onnx), "torch"]

METADATA = {"name": "small", "ground": "none", "interval_s": 0.2}
CAPACITY = 8000
# A plain grid; one off the origin, of odd sides, where dividing by the size is not multiplying by its reciprocal.
CONFIGS = {"plain": SMALL, "off the origin": grid(24, 6, (2, 3, 3), 0.3, (-3.7, -3.7))}
# What ONNX-TensorRT's operators.md (10.x) lists as supported; of ScatterND it says "`reduction` is not supported".
TENSORRT = set(
    "Add And Cast Clip Concat Conv Div Equal Erf Expand Floor Gather Gelu Gemm GreaterOrEqual Less Mul Relu Reshape "
    "Resize ScatterElements Slice Squeeze Sub Transpose Unsqueeze Where".split()
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, tuple[FastFlow3D, dict[str, Path]]]:
    """Of each grid the model and its files. All at once, as writing ONNX takes seconds."""
    return {name: _export(random_network(c, 3), tmp_path_factory.mktemp("exported")) for name, c in CONFIGS.items()}


def _export(model: FastFlow3D, folder: Path) -> tuple[FastFlow3D, dict[str, Path]]:
    files = {"torch": folder / "student.pt"}
    errors = [export_torch(files["torch"], deepcopy(model), METADATA)]
    if onnx is not None:
        files["onnx"] = folder / "student.onnx"
        errors.append(export_onnx(files["onnx"], deepcopy(model), METADATA, CAPACITY))
    assert all(0 < error < 1e-5 for error in errors)
    assert set(folder.iterdir()) == set(files.values())
    return model, files


@pytest.fixture(scope="module", params=CONFIGS)
def name_of_grid(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(exported, name_of_grid) -> FastFlow3D:
    return exported[name_of_grid][0]


@pytest.fixture(scope="module")
def files(exported, name_of_grid) -> dict[str, Path]:
    return exported[name_of_grid][1]


@pytest.fixture(scope="module", params=FORMATS)
def flow_of_file(request, files) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """As a robot runs it: with the file alone."""
    if request.param == "torch":
        network = torch.jit.load(files["torch"])
        return lambda *clouds: network(*map(torch.from_numpy, clouds)).numpy()
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])

    def flow(pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        padded = [np.concatenate([pc, np.full((CAPACITY - len(pc), 3), np.nan, np.float32)]) for pc in (pc0, pc1)]
        (rows,) = session.run(None, dict(zip(("pc0", "pc1"), padded, strict=True)))
        assert rows.shape == (CAPACITY, 3) and np.isnan(rows[len(pc0) :]).all()
        return rows[: len(pc0)]

    return flow


@pytest.mark.parametrize("name", PAIRS)
def test_the_flow_is_the_models(model, flow_of_file, name):
    pair = PAIRS[name](model.config, np.random.default_rng(5))
    assert_equal(flow_of_file(*pair), exact_flow(model, *pair))


def test_single_points(model, flow_of_file):
    for pc0 in single_points(model.config).values():
        assert_equal(flow_of_file(pc0, pc0), exact_flow(model, pc0, pc0))


@needs_onnx
def test_where_the_padding_is_does_not_matter(model, files):
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    pc0, pc1 = scene(model.config, 8)
    rows = np.random.default_rng(2).permutation(CAPACITY)[: len(pc0)]
    spread, others = np.full((2, CAPACITY, 3), np.nan, np.float32)
    spread[rows], others[-len(pc1) :] = pc0, pc1
    (flow,) = session.run(None, {"pc0": spread, "pc1": others})
    assert_equal(flow[rows], exact_flow(model, pc0, pc1))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_agrees_with_the_file(model, flow_of_file, engine):
    pair = scene(model.config, 9)
    assert_equal(flow_of_file(*pair), student(model, engine).flow(*pair))


@needs_onnx
def test_more_points_than_an_onnx_file_has_room_for_are_refused(files):
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    full, over = np.zeros((CAPACITY, 3), np.float32), np.zeros((CAPACITY + 1, 3), np.float32)
    with pytest.raises(Exception, match=f"index: 0 Got: {CAPACITY + 1} Expected: {CAPACITY}"):
        session.run(None, {"pc0": over, "pc1": full})


@needs_onnx
def test_the_onnx_graph_is_static_and_of_operators_that_tensorrt_has(files):
    graph = onnx.load(files["onnx"])
    onnx.checker.check_model(graph, full_check=True)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", 20)]
    nodes = graph.graph.node
    assert {node.op_type for node in nodes} <= TENSORRT
    sums = [node for node in nodes if node.op_type == "ScatterElements"]
    assert [[a.s for a in node.attribute if a.name == "reduction"] for node in sums] == [[b"add"]] * 4

    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.output, *inferred.value_info)
    }
    assert all(0 not in shape for shape in shapes.values())
    assert {name for node in nodes for name in node.output} <= set(shapes)
    assert [shapes[name] for name in ("pc0", "pc1", "flow")] == [[CAPACITY, 3]] * 3


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_says_what_it_holds_and_nothing_of_where_it_was_made(model, files, repository, kind):
    config = model.config
    expected = {
        "zeroflow": VERSION,
        "name": "small",
        "ground": "none",
        "interval_s": 0.2,
        "verify": False,
        "minimum": list(config.minimum),
        "maximum": list(config.maximum),
        "pillar_size": config.pillar_size,
    }
    if kind == "torch":
        described = dict.fromkeys(expected, "")
        torch.jit.load(files[kind], _extra_files=described)
        described = {key: value.decode() for key, value in described.items()}
    else:
        described = {entry.key: entry.value for entry in onnx.load(files[kind]).metadata_props}
        assert described.pop("capacity") == str(CAPACITY)
    texts = ("zeroflow", "name", "ground")
    assert {key: value if key in texts else json.loads(value) for key, value in described.items()} == expected
    assert str(repository).encode() not in files[kind].read_bytes()


def _wrong_flow(self, pc0, pc1):
    return _forward(self, pc0, pc1) + 1e-3


def _flow_everywhere(self, pc0, pc1):
    return torch.nan_to_num(_forward(self, pc0, pc1))


_forward = Exportable.forward


@pytest.mark.parametrize(
    "kind, forward, problem",
    [
        pytest.param("onnx", _wrong_flow, "differs by 0.001 m", marks=needs_onnx),
        ("torch", _wrong_flow, "differs by 0.001 m"),
        ("torch", _flow_everywhere, "other points have flow"),
    ],
)
def test_a_file_that_fails_its_check_is_not_written(tmp_path, monkeypatch, kind, forward, problem):
    out = tmp_path / "student"
    out.write_text("as it was")
    monkeypatch.setattr(Exportable, "forward", forward)
    with pytest.raises(ZeroFlowError, match=problem):
        _write(kind, out)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    assert out.read_text() == "as it was"


def _write(kind: str, out: Path, check: bool = True) -> float | None:
    model = random_network(grid(4, 4, (1,)), seed=1)
    if kind == "onnx":
        return export_onnx(out, model, METADATA, capacity=1, check=check)
    return export_torch(out, model, METADATA, check)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", {"onnx": "is there"}.get)
    with pytest.raises(ZeroFlowError, match=r"\(onnxscript, onnxruntime\): pip install 'zeroflow_ros\[onnx\]'$"):
        _write("onnx", tmp_path / "student.onnx")
    with pytest.raises(ZeroFlowError, match=r"\(onnxscript\): pip install"):
        _write("onnx", tmp_path / "student.onnx", check=False)
    assert list(tmp_path.iterdir()) == []


def test_a_torch_that_is_too_old_is_named(tmp_path, monkeypatch, repository):
    assert f"torch>={export._OLDEST_TORCH}" in (repository / "setup.cfg").read_text().split("onnx =")[1].split()
    monkeypatch.setattr(export, "find_spec", lambda name: "is there")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.1+cu126"))
    with pytest.raises(ZeroFlowError, match=r"needs torch 2\.9, and here is 2\.8\.1\+cu126: pip install 'zeroflow_ros"):
        _write("onnx", tmp_path / "student.onnx")
    for enough in ("2.9.0a0+nv25.09", "2.9.0", "2.10.1+cpu", "3.0"):
        monkeypatch.setattr(torch, "__version__", TorchVersion(enough))
        export._need("onnx")


@pytest.mark.parametrize("kind", FORMATS)
def test_without_a_check_no_runtime_is_needed(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(export, "find_spec", {"onnx": "is there", "onnxscript": "is there"}.get)
    monkeypatch.setattr(export, "Student", None)
    assert _write(kind, tmp_path / kind, check=False) is None
    assert (tmp_path / kind).stat().st_size > 1000
