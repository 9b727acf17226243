"""The self-check catches each way of not being connected. That it passes otherwise is shown in tests/test_matrix.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from metaprime.build.model import build_model
from metaprime.data.readers import synthetic
from metaprime.data.rows import Lengths
from metaprime.data.subwords import Subwords
from metaprime.models.encoder import load_encoder
from metaprime.models.injection_check import check_injection, probe, supports_one_pass
from metaprime.models.sites import resolve
from metaprime.models.task_model import TaskModel
from metaprime.nn import Adapter
from metaprime.peft import METHODS
from metaprime.peft.injection import add_to_output
from metaprime.rng import torch_stream
from metaprime.tasks import TASKS
from metaprime.tasks.head import LinearHead
from metaprime.tasks.tagging.task import TaggingConfig
from metaprime.tasks.task import Text
from metaprime.types import Batch, MetaprimeError, Params, Sites

HIDDEN = 32


def test_what_promises_identity() -> None:
    promised = {name: method.config().identity for name, method in METHODS.items()}
    assert {name: promised[name] for name in ("pfeiffer", "lora", "prefix")} == {
        "pfeiffer": True,
        "lora": True,
        "prefix": False,
    }
    assert METHODS["pfeiffer"].config(init="bert").identity is False


class Scale(nn.Module):
    """A delta with two parameters: small enough to break in every way."""

    def __init__(self, strength: float = 1.0, start: float = 0.0, b_used: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.strength, self.start, self.b_used = strength, start, b_used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.strength * (self.a * x + self.b * x.roll(1, -1) * self.b_used)

    def initial(self, generator: torch.Generator) -> Params:
        return {"a": torch.full((1,), self.start), "b": torch.zeros(1)}


Inject = Callable[[Sites], nn.ModuleDict]


def sound(sites: Sites, **options: float | bool) -> nn.ModuleDict:
    modules = nn.ModuleDict()
    for index, layer in enumerate(sites.layers):
        modules[str(index)] = Scale(**options)
        add_to_output(layer.ffn_out, modules[str(index)], of_output=True)
    return modules


def never_called(sites: Sites) -> nn.ModuleDict:
    modules = sound(sites)
    modules["spare"] = Scale()
    return modules


def at_two_sites(sites: Sites) -> nn.ModuleDict:
    modules = sound(sites)
    add_to_output(sites.layers[0].attention_out, modules["0"], of_output=True)
    return modules


def twice_at_one_site(sites: Sites) -> nn.ModuleDict:
    modules = sound(sites)
    add_to_output(sites.layers[0].ffn_out, modules["0"], of_output=True)
    return modules


def used_twice(sites: Sites) -> nn.ModuleDict:
    """The encoder itself uses a projection twice; the module is called both times."""
    modules, site = sound(sites), sites.layers[0].ffn_out
    sites.layers[0].layer.register_forward_hook(lambda module, inputs, output: output + site(output.new_zeros(64)))
    return modules


def not_at_every_call(sites: Sites) -> nn.ModuleDict:
    """The second of the two uses goes without."""
    modules, site = used_twice(sites), sites.layers[0].ffn_out
    site._forward_hooks.clear()
    site.register_forward_hook(
        lambda module, inputs, output: output + modules["0"](output) if output.ndim > 1 else output
    )
    return modules


def late_binding(sites: Sites) -> nn.ModuleDict:
    """Every hook calls the module of the last layer."""
    modules = nn.ModuleDict({str(index): Scale() for index in range(len(sites.layers))})
    for index, layer in enumerate(sites.layers):
        layer.ffn_out.register_forward_hook(lambda m, inputs, output: output + modules[str(index)](output))  # noqa: B023
    return modules


def no_identity(sites: Sites) -> nn.ModuleDict:
    return sound(sites, start=1e-3)


def no_effect(sites: Sites) -> nn.ModuleDict:
    return sound(sites, strength=0.0)


def result_dropped(sites: Sites) -> nn.ModuleDict:
    modules = nn.ModuleDict({"0": Scale()})
    sites.layers[0].ffn_out.register_forward_hook(lambda module, inputs, output: (modules["0"](output), None)[1])
    return modules


def no_gradient(sites: Sites) -> nn.ModuleDict:
    return sound(sites, b_used=False)


def detached(sites: Sites) -> nn.ModuleDict:
    modules = nn.ModuleDict({"0": Scale()})
    sites.layers[0].ffn_out.register_forward_hook(lambda module, inputs, output: output + modules["0"](output).detach())
    return modules


def check(folder: Path, inject: Inject, identity: bool = True) -> None:
    module = load_encoder(str(folder)).module
    head = LinearHead(HIDDEN, 3)
    batch = toy_batch()
    bare = probe(TaskModel(module, Adapter(), head).eval(), batch)
    adapter = inject(resolve(module, load_encoder(str(folder)).layout))
    check_injection(TaskModel(module, adapter, head).eval(), batch, bare, identity)


def toy_batch() -> Batch:
    ids = torch.randint(5, 60, (2, 7), generator=torch_stream(0, "ids"))
    mask = (torch.arange(7) < torch.tensor([[7], [4]])).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def test_a_sound_injection_passes(toy_bert: Path) -> None:
    check(toy_bert, sound)
    check(toy_bert, no_identity, identity=False)
    check(toy_bert, used_twice, identity=False)


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        (never_called, "not called exactly once in each call of one site: spare: never[.]"),
        (
            at_two_sites,
            r"one site: 0: 1 times in 1 calls of encoder\.layer\.0\.attention\.output\.dense, 1 times in 1 calls of "
            r"encoder\.layer\.0\.output\.dense[.] ",
        ),
        (twice_at_one_site, r"one site: 0: 2 times in 1 calls of encoder\.layer\.0\.output\.dense[.] "),
        (not_at_every_call, r"one site: 0: 1 times in 2 calls of encoder\.layer\.0\.output\.dense[.] "),
        (late_binding, r"one site: 0: never; 1: 1 times in .*layer\.0\.output\.dense, 1 times in .*layer\.1\.output"),
        (no_identity, "initialisation should leave the encoder unchanged, and does not"),
        (no_effect, "random adapter parameters do not change the encoder's output"),
        (result_dropped, "random adapter parameters do not change the encoder's output"),
        (no_gradient, r"no gradient reaches adapter\.0\.b, adapter\.1\.b"),
        (detached, r"no gradient reaches adapter\.0\.a, adapter\.0\.b"),
    ],
)
def test_a_broken_injection_is_caught(toy_bert: Path, inject: Inject, message: str) -> None:
    with pytest.raises(MetaprimeError, match=message):
        check(toy_bert, inject)


def test_checking_leaves_no_trace(toy_bert: Path) -> None:
    module = load_encoder(str(toy_bert)).module
    head, batch = LinearHead(HIDDEN, 3), toy_batch()
    bare = probe(TaskModel(module, Adapter(), head).eval(), batch)
    model = TaskModel(module, sound(resolve(module, load_encoder(str(toy_bert)).layout)), head).eval()
    hooks = [len(m._forward_hooks) for m in model.modules()]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    check_injection(model, batch, bare, identity=True)
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


class Boastful(LinearHead):
    """Says that it takes one weight per episode, and gives all sentences the first."""

    def forward(self, hidden_BLD: torch.Tensor) -> torch.Tensor:
        weight, bias = (value[0] if value.dim() > dims else value for value, dims in ((self.weight, 2), (self.bias, 1)))
        return nn.functional.linear(hidden_BLD, weight, bias)


@pytest.mark.parametrize(
    ("architecture", "method", "head", "taken"),
    [
        ("bert", "pfeiffer", LinearHead, True),
        ("bert", "lora", LinearHead, True),
        ("bert", "pfeiffer", Boastful, False),
        ("bert", "pfeiffer", nn.Linear, False),  # does not say so
        ("deberta-v2", "prefix", LinearHead, True),
        ("deberta-v2", "lora", LinearHead, False),  # its terms work on a table of positions as well
    ],
)
def test_whether_episodes_go_in_one_pass_is_found_out(
    toy_encoder: Callable[..., Path], architecture: str, method: str, head: type[nn.Linear], taken: bool
) -> None:
    encoder = load_encoder(str(toy_encoder(architecture)))
    sites = resolve(encoder.module, encoder.layout)
    model = TaskModel(encoder.module, METHODS[method].inject(sites, METHODS[method].config()), head(HIDDEN, 7))
    ids = torch.randint(5, 300, (5, 9), generator=torch_stream(0, "ids"))
    batch = {"input_ids": ids, "attention_mask": (torch.arange(9) < torch.tensor([[9], [5], [7], [9], [3]])).long()}
    assert supports_one_pass(model.eval(), batch) is taken
    assert not supports_one_pass(
        model, {name: tensor[:1] for name, tensor in batch.items()}
    )  # cannot be told by one sentence


def test_a_unit_that_one_draw_shuts_is_no_fault(toy_bert: Path) -> None:
    """A bottleneck of one ReLU: in some draws of phi it is shut for every word."""
    encoder = load_encoder(str(toy_bert))
    text = Text(Subwords(encoder.tokenizer), Lengths(64))
    task = TASKS["tagging"].build(TaggingConfig(labels=("PER", "ORG", "LOC")), text)
    rows = task.encode(synthetic.read("", "qaa", "train")[:4])
    for at in (("attention",), ("ffn",), ("attention", "ffn")):
        build_model(encoder, task, METHODS["bottleneck"].config(at=at, bottleneck=1), rows)
