import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.nn.modules.module import register_module_forward_pre_hook

from durable.files import file_sha256
from durable.settings import read_toml
from tests.corpora import write_corpus
from tests.train.test_loop import NO_DROPOUT, parts
from tests.train.test_ranks_end import ranks_of
from tests.train.tiny import tiny_recipe
from train.compiled import refused_in_one_line
from train.corpus import open_corpus
from train.device import is_lack_of_memory
from train.errors import TrainError
from train.memory import fitting_micro_batch, memory_bytes, with_micro_batch
from train.predict import MaskedPrediction
from train.pretrain import dry_run, pretrain
from train.recipe import Recipe, load_recipe
from train.run import Stop

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GB = 10**9
FITTING = {
    "schedule__max_steps": 4,
    "model__max_position_embeddings": 32,
}  # so that there is nothing to say of positions


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def memory_for() -> Iterator[Callable[[int], list[int]]]:
    """A call has training on more samples than its argument fail as on a full GPU, and returns the sizes tried."""
    hooks = []

    def limit(samples: int) -> list[int]:
        tried: list[int] = []

        def refuse(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            if isinstance(module, MaskedPrediction) and module.training:
                tried.append(len(arguments[0]))
                if len(arguments[0]) > samples:
                    raise torch.OutOfMemoryError("CUDA out of memory.")

        hooks.append(register_module_forward_pre_hook(refuse))
        return tried

    yield limit
    for hook in hooks:
        hook.remove()


def of_size(size: str, *assignments: str) -> Recipe:
    return load_recipe(size=size, assignments=["training.precision=bf16", *assignments])


def invocations(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "environment.json").read_text("utf-8"))["invocations"]
    return found


def micro_batches(run: Path) -> list[int]:
    return [entry["runtime"]["micro_batch_size"] for entry in invocations(run)]


def weights(run: Path) -> str:
    """Of the last checkpoint."""
    return file_sha256(max(run.glob("checkpoints/step-*")) / "model.safetensors")


@pytest.mark.parametrize(
    ("size", "gigabytes", "expected"),
    [
        ("small", 16, 128),
        ("small", 24, 128),
        ("small", 80, 256),
        ("small", 140, 256),
        ("base", 16, 32),
        ("base", 24, 64),
        ("base", 80, 128),
        ("base", 140, 256),
        ("base", 1, 1),
    ],
)
def test_a_gpu_takes_the_largest_power_of_two_that_fits(size: str, gigabytes: int, expected: int) -> None:
    recipe = of_size(size)
    found = fitting_micro_batch(recipe, gigabytes * GB)
    assert found == expected
    if found > 1:
        assert memory_bytes(recipe, "cuda", found) <= 0.9 * gigabytes * GB
    if found < 256:
        assert memory_bytes(recipe, "cuda", 2 * found) > 0.9 * gigabytes * GB


def test_a_share_of_the_batch_that_fits_is_taken_whole() -> None:
    assert fitting_micro_batch(of_size("small"), 80 * GB, ranks=3) == 86
    assert fitting_micro_batch(of_size("small"), 6 * GB, ranks=3) == 32
    assert fitting_micro_batch(of_size("small", "training.batch_size=1"), 80 * GB) == 1


def test_several_ranks_hold_the_gradients_once_more() -> None:
    recipe = of_size("base")
    more = memory_bytes(recipe, "cuda", 8, ranks=2) - memory_bytes(recipe, "cuda", 8)
    assert more == 4 * 109_514_298


def test_a_gpu_is_asked_for_its_free_memory_and_a_cpu_always_has_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (16 * GB, 80 * GB))
    assert with_micro_batch(of_size("base"), GPU, tmp_path).runtime.micro_batch_size == 32
    assert with_micro_batch(of_size("base"), CPU, tmp_path).runtime.micro_batch_size == 8
    given = of_size("base", "runtime.micro_batch_size=3")
    assert with_micro_batch(given, GPU, tmp_path) == given


def test_what_torch_keeps_for_later_is_given_back_before_a_gpu_is_asked_and_after_a_trial_that_failed(
    corpus: Path, tmp_path: Path, memory_for: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: called.append("given back"))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: called.append("asked") or (16 * GB, 80 * GB))
    with_micro_batch(of_size("base"), GPU, tmp_path)
    assert called == ["given back", "asked"]
    tried = memory_for(4)
    stop = Stop(after_step=1)
    pretrain(corpus, tmp_path, tiny_recipe(**FITTING), device="cpu", stop=stop, notice=lambda _: called.append("said"))
    assert tried[:2] == [8, 4]
    assert called[2:] == ["said", "given back"]


def test_what_the_last_invocation_had_is_taken_on_a_device_of_the_same_type(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (16 * GB, 80 * GB))
    pretrain(corpus, tmp_path, tiny_recipe(runtime__micro_batch_size=3), device="cpu", stop=Stop(after_step=1))
    pretrain(corpus, tmp_path, tiny_recipe(runtime__micro_batch_size=5), device="cpu", stop=Stop(after_step=2))
    assert with_micro_batch(tiny_recipe(), CPU, tmp_path).runtime.micro_batch_size == 5
    assert with_micro_batch(tiny_recipe(), GPU, tmp_path).runtime.micro_batch_size == 8


@pytest.mark.parametrize("size", [0, -3, "5", 10**30])
def test_a_record_with_no_micro_batch_of_a_run_is_damaged(corpus: Path, tmp_path: Path, size: object) -> None:
    path = tmp_path / "environment.json"
    runtime = {"micro_batch_size": size}
    path.write_text(json.dumps({"identity": {}, "invocations": [{"device": "cpu (x86_64)", "runtime": runtime}]}))
    with pytest.raises(TrainError, match=r"environment.json is damaged: `invocations.0.runtime.micro_batch_size` is"):
        dry_run(corpus, tmp_path, tiny_recipe(), device="cpu")


@pytest.mark.slow
def test_a_resumed_run_repeats_what_an_uninterrupted_one_does(corpus: Path, tmp_path: Path) -> None:
    given = tiny_recipe("pairwise", runtime__micro_batch_size=3)
    pretrain(corpus, tmp_path / "whole", given, device="cpu")
    pretrain(corpus, tmp_path / "parts", given, device="cpu", stop=Stop(after_step=7))
    costs = dry_run(corpus, tmp_path / "parts", tiny_recipe("pairwise"), device="cpu")
    pretrain(corpus, tmp_path / "parts", tiny_recipe("pairwise"), device="cpu")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert micro_batches(tmp_path / "parts") == [3, 3]
    assert costs.micro_batch_size == 3


def test_what_is_chosen_is_recorded_and_the_recipe_stays_as_given(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path, tiny_recipe(training__batch_size=6), device="cpu", stop=Stop(after_step=1))
    assert micro_batches(tmp_path) == [6]
    assert "micro_batch_size" not in read_toml(tmp_path / "recipe.toml").get("runtime", {})


def test_too_large_a_micro_batch_is_halved_and_said_and_recorded(
    corpus: Path, tmp_path: Path, memory_for: Callable[[int], list[int]]
) -> None:
    said: list[str] = []
    recipe = tiny_recipe(**FITTING)
    tried = memory_for(3)
    pretrain(corpus, tmp_path / "run", recipe, device="cpu", stop=Stop(after_step=2), notice=said.append)
    assert said == [
        "too little memory for micro-batches of 8 samples: they have 4 from here on",
        "too little memory for micro-batches of 4 samples: they have 2 from here on",
    ]
    assert tried == [8, 4, 2, *2 * [2, 2, 2, 2]]
    pretrain(corpus, tmp_path / "run", recipe, device="cpu", notice=said.append)
    assert len(said) == 2
    assert micro_batches(tmp_path / "run") == [2, 2]
    pretrain(corpus, tmp_path / "given", tiny_recipe(runtime__micro_batch_size=2, **FITTING), device="cpu")
    assert weights(tmp_path / "run") == weights(tmp_path / "given")


@pytest.mark.parametrize(
    ("changes", "samples", "size", "hint"),
    [
        ({"runtime__micro_batch_size": 4}, 3, 4, "--set runtime.micro_batch_size=2, which changes rounding"),
        ({}, 0, 1, "a smaller model, or shorter samples"),
    ],
    ids=["given", "one sample"],
)
def test_a_micro_batch_that_cannot_be_halved_is_refused_before_anything_is_recorded(
    corpus: Path,
    tmp_path: Path,
    memory_for: Callable[[int], list[int]],
    changes: dict[str, object],
    samples: int,
    size: int,
    hint: str,
) -> None:
    memory_for(samples)
    with pytest.raises(TrainError, match=f"step 1: cpu has not the memory for micro-batches of {size} s") as refusal:
        pretrain(corpus, tmp_path, tiny_recipe(**changes), device="cpu", notice=lambda _: None)
    assert refusal.value.__notes__[0].startswith(hint)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you …"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        BackendCompilerFailed(print, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_is_known_by_its_class_or_its_words(error: RuntimeError) -> None:
    assert is_lack_of_memory(error)
    with pytest.raises(type(error)), refused_in_one_line():  # as it is, for a smaller micro-batch to be tried
        raise error
    assert not is_lack_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_trying_a_micro_batch_changes_nothing(corpus: Path, precision: str) -> None:
    recipe = tiny_recipe("pairwise", runtime__micro_batch_size=3, training__precision=f'"{precision}"')
    trained = []
    for tries in (False, True):
        trainer, batches = parts(open_corpus(corpus), recipe)
        for step in range(1, 4):
            if tries:
                assert trainer.has_memory(batches(step))
                assert all(parameter.grad is None for parameter in trainer.model.parameters())
            trainer.step(step, batches(step))
        trained.append((trainer.model.state_dict(), trainer.scaler.state_dict()))
    (one, one_scaler), (other, other_scaler) = trained
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one_scaler == other_scaler


def test_what_a_step_holds_is_held_while_a_micro_batch_is_tried(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batches = parts(open_corpus(corpus), tiny_recipe(runtime__micro_batch_size=3))
    held = []

    def look(module: nn.Module, _: Any) -> None:
        held.append(all(weight.grad is not None for weight in module.parameters()))

    trainer.predictor.module.register_forward_pre_hook(look)
    assert trainer.has_memory(batches(1))
    assert held == [True]

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patched:  # by it the moments are allocated
        patched.setattr("torch.empty_like", full)
        assert not trainer.has_memory(batches(1))
    trainer.step(1, batches(1))
    monkeypatch.setattr("torch.empty_like", full)
    assert trainer.has_memory(batches(2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch.compile's own import
def test_what_is_compiled_for_the_trial_is_what_the_steps_take(corpus: Path) -> None:
    settings = {"runtime__micro_batch_size": 4, "model__num_hidden_layers": 1, **NO_DROPOUT}
    recipe = tiny_recipe(runtime__compile="true", **settings)
    trainer, batches = parts(open_corpus(corpus), recipe)
    assert trainer.has_memory(batches(1))
    graphs = counters["stats"]["unique_graphs"]
    trainer.step(1, batches(1))
    trainer.step(2, batches(2))
    assert counters["stats"]["unique_graphs"] == graphs > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch.compile's own import
def test_a_model_is_compiled_however_often_its_micro_batch_is_halved(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()  # what other tests have compiled of the same code counts too
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    settings = {"runtime__micro_batch_size": 8, "model__num_hidden_layers": 1, **NO_DROPOUT}
    trainer, batches = parts(open_corpus(corpus), tiny_recipe(runtime__compile="true", **settings))
    with torch._dynamo.config.patch(recompile_limit=2):
        for graphs in range(1, 4):
            assert trainer.has_memory(batches(1))
            assert counter.frame_count == graphs
            trainer.halve_micro_batch()


@pytest.mark.slow
def test_ranks_halve_together_where_one_lacks_the_memory(corpus: Path, tmp_path: Path) -> None:
    assert ranks_of("scarce", str(corpus), str(tmp_path), timeout=300) == [
        "too little memory for micro-batches of 4 samples: they have 2 from here on\n2\n",
        "2\n",
    ]
    assert micro_batches(tmp_path) == [2]
