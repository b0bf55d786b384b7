"""Which backend runs, what it says of the others, and that the switch really switches."""

import inspect

import pytest
import torch
from references import host_cuda
from torch.autograd import forward_ad

from bcos_kernels import dispatch, functional, native
from bcos_kernels.ops.epilogue import cpu, triton

built = pytest.mark.skipif(native.load() is None, reason="the C++ extension is not built")
PRIMITIVES = ("row_norm", "patch_norm", "scale", "scale_backward", "spread", "spread_rows", "project_rows")
FINISH = ("finish_rows", "finish_patches")  # several of them in one call, of C++ alone
x = torch.ones(2, 3)


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "auto")


@pytest.fixture
def calls(monkeypatch):
    """Names of the primitives that each backend runs from here on."""
    seen = {name: set() for name in dispatch.BACKENDS}
    for name, backend in dispatch.BACKENDS.items():
        for primitive in (*PRIMITIVES, *FINISH):
            if hasattr(backend, primitive):
                _record(monkeypatch, backend, primitive, seen[name])
    return seen


def _record(monkeypatch, backend, primitive, seen):
    original = getattr(backend, primitive)

    def recorded(*arguments):
        seen.add(primitive)
        return original(*arguments)

    monkeypatch.setattr(backend, primitive, recorded)


def _train_both_layers():
    image, vectors = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    functional.bcos_conv2d(image, torch.ones(2, 2, 3, 3, requires_grad=True)).sum().backward()
    functional.bcos_linear(vectors, torch.ones(2, 2, requires_grad=True)).sum().backward()


@built
def test_compiled_kernels_come_first(calls):
    assert dispatch.choose(x) == "cpu"
    assert dispatch.epilogue(x) is cpu
    assert list(dispatch.refusals(x)) == ["triton", "cuda"]
    _train_both_layers()
    backward = {"scale_backward", "spread", "spread_rows", "project_rows"}
    assert calls == {name: set() for name in dispatch.BACKENDS} | {"cpu": backward | set(FINISH)}


@pytest.mark.parametrize("name", ["reference", pytest.param("cpu", marks=built)])
def test_the_switch_forces_a_backend(name, calls, monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", name)
    assert dispatch.choose(x) == name
    assert list(dispatch.refusals(x)) == [other for other in dispatch.BACKENDS if other != name]
    _train_both_layers()
    assert {backend for backend, seen in calls.items() if seen} == {name}


def test_a_wrong_switch_is_named(monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "gpu")
    with pytest.raises(ValueError, match=r"BCOS_BACKEND must be auto, cpu, triton, cuda, reference; got 'gpu'"):
        functional.bcos_linear(x, x)


def test_a_forced_backend_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr(dispatch, "wanted", "cpu")
    monkeypatch.setattr(cpu, "takes", lambda *tensors: False)
    monkeypatch.setattr(cpu, "supports", lambda *tensors: "the compiler was on holiday")
    with pytest.raises(ValueError, match="on holiday"):
        functional.bcos_linear(x, x)


def test_without_the_extension_the_reference_runs(calls, monkeypatch):
    monkeypatch.setattr(native, "load", lambda name="cpu": None)
    monkeypatch.setattr(native, "why_missing", lambda name="cpu": "there was no compiler")
    assert dispatch.refusals(x)["cpu"] == "there was no compiler"
    _train_both_layers()
    assert calls == {name: set() for name in dispatch.BACKENDS} | {"reference": set(PRIMITIVES)}


def test_cuda_kernels_run_what_triton_does_not_take(calls, monkeypatch):
    host_cuda.pretend(monkeypatch)
    monkeypatch.setattr(cpu, "supports", lambda *tensors: "not here")
    monkeypatch.setattr(cpu, "takes", lambda *tensors: False)
    monkeypatch.setattr(triton, "supports", lambda *tensors: None)
    assert dispatch.choose(x) == "triton"
    monkeypatch.setattr(triton, "supports", lambda *tensors: "not on this system")
    assert dispatch.choose(x) == "cuda" and "cuda" not in dispatch.refusals(x)
    _train_both_layers()
    assert calls == {name: set() for name in dispatch.BACKENDS} | {"cuda": set(PRIMITIVES)}


@pytest.mark.parametrize("tensor", [x.to("meta"), x.int(), x.to_sparse()], ids=["meta", "int32", "sparse"])
def test_tensors_that_kernels_cannot_read(tensor):
    assert dispatch.choose(tensor) == "reference"
    assert dispatch.refusals(tensor)["cpu"]


class Subclass(torch.Tensor):
    """More than its memory, for all we know."""


@built
@pytest.mark.parametrize(
    "tensor",
    [
        x, x.half(), torch.nn.Parameter(x), x.t(), x[:0], x.int(), x.to("meta"), x.to_sparse(), x.to_sparse_csr(),
        torch.view_as_complex(torch.ones(2, 2)).conj().imag, x.as_subclass(Subclass), x.to_mkldnn(),
    ],
    ids=lambda t: f"{type(t).__name__}-{t.dtype}-{t.device}-{t.layout}",
)  # fmt: skip
def test_the_short_way_to_the_kernels_is_taken_where_the_long_one_leads_there(tensor):
    assert cpu.takes(x, tensor) == ("cpu" not in dispatch.refusals(x, tensor))


def test_layers_run_on_tensors_without_memory():
    out = functional.bcos_conv2d(torch.ones(2, 3, 5, 5, device="meta"), torch.ones(4, 3, 3, 3, device="meta"))
    assert (out.device.type, out.shape) == ("meta", (2, 4, 3, 3))
    with torch._subclasses.FakeTensorMode() as fake:
        out = functional.bcos_linear(fake.from_tensor(x), fake.from_tensor(torch.ones(4, 3)))
        assert out.shape == (2, 4)


@built
def test_transforms_and_tangents_go_through_the_reference(calls):
    torch.vmap(lambda row: functional.bcos_linear(row, x))(x)
    torch.func.grad(lambda t: functional.bcos_linear(t, x).sum())(x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        assert "tangent" in dispatch._not_plain(dual)
        with torch.no_grad():
            functional.bcos_linear(x, x)  # nothing to differentiate: the kernels run
    assert calls["cpu"] == {"finish_rows"}
    assert "row_norm" in calls["reference"]


def test_all_backends_offer_the_same_functions():
    for primitive in (*PRIMITIVES, "apply_factor"):
        parameters = {tuple(inspect.signature(getattr(b, primitive)).parameters) for b in dispatch.BACKENDS.values()}
        assert len(parameters) == 1, primitive
