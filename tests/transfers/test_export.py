"""`metaprime peft export`, from a transfer's cell to peft's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.config.loading import override
from metaprime.config.sections import Config
from metaprime.transfers import export as module
from metaprime.transfers.export import export
from metaprime.transfers.transfer import transfer
from metaprime.types import MetaprimeError

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def cells(primed_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output, primed = tmp_path_factory.mktemp("export"), Path(primed_run.run.output) / "primed"
    keys = (f"transfer.encoder={primed}", "transfer.methods=[lora, pfeiffer]", "transfer.shots=4", "transfer.lr=0.02")
    transfer(override(primed_run, f"run.output={output}", *keys), quiet=True)
    return output / "transfer" / "primed"


def test_a_cell_becomes_pefts_files_and_only_once(cells: Path, tmp_path: Path) -> None:
    out = export(cells / "qai-lora-k4-s0", tmp_path / "deep" / "out")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in out.iterdir()}
    other = export(cells / "qai-pfeiffer-k4-s0", tmp_path / "hub", "adapterhub")
    assert {"adapter.safetensors", "head_config.json"} <= {path.name for path in other.iterdir()}
    with pytest.raises(MetaprimeError, match="exists: choose another folder, or remove it"):
        export(cells / "qai-lora-k4-s0", out)


def test_what_cannot_be_leaves_nothing_behind(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(MetaprimeError, match="'pfeiffer' has no equivalent in Hugging Face's peft"):
        export(cells / "qai-pfeiffer-k4-s0", tmp_path / "out")
    with pytest.raises(MetaprimeError, match=r"holds no metaprime\.json"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(MetaprimeError, match="--format 'onnx' is unknown: peft or adapterhub"):
        export(cells / "qai-lora-k4-s0", tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_random_draw_is_not_given_away(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "trained_groups", lambda artifact: {"head"})
    with pytest.raises(MetaprimeError, match=r"only a random draw of adapter \(outer\.adapter"):
        export(cells / "qai-lora-k4-s0", tmp_path / "out")
