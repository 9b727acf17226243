"""Names of encoders: a folder or a hub id, and what a folder must hold."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from metaprime.models.folder import hub_config, is_hub_id, refuse_bad_encoder, refuse_bad_folder, refuse_missing
from metaprime.types import MetaprimeError


@pytest.mark.parametrize("name", ["bert-base-multilingual-cased", "org/name"])
def test_a_name_of_at_most_two_parts_may_be_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name)
    refuse_missing(name)
    refuse_bad_folder(name)
    # A folder of that name comes first.
    (tmp_path / name).mkdir(parents=True)
    assert not is_hub_id(name)
    with pytest.raises(MetaprimeError, match=r"holds no config\.json"):
        refuse_bad_folder(name)


@pytest.mark.parametrize("name", ["./gone", "../gone", "/gone", "~/gone", "a/b/gone"])
def test_a_path_that_leads_nowhere_is_refused(name: str) -> None:
    assert not is_hub_id(name)
    for refuse in (refuse_missing, refuse_bad_folder):
        with pytest.raises(MetaprimeError, match=f"there is no folder '{name}'"):
            refuse(name)


def test_a_folder_holds_a_config_and_weights_that_run_no_code(tmp_path: Path) -> None:
    def refused(reason: str) -> None:
        with pytest.raises(MetaprimeError, match=reason):
            refuse_bad_folder(str(tmp_path))

    refuse_missing(str(tmp_path))
    refused(r"holds no config\.json")
    (tmp_path / "config.json").touch()
    refused(r"holds no \*\.safetensors")
    (tmp_path / "model.pt").touch()
    refused(r"model\.pt is a pickle, which can run code when read")
    (tmp_path / "model.safetensors").touch()
    refuse_bad_folder(str(tmp_path))


def test_a_hub_id_is_asked_for_once_and_what_is_there_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetched: list[str] = []

    def fetch(name: str, file: str) -> str:
        fetched.append(name)
        if name == "org/gone":
            raise FileNotFoundError("404: no such repository\nand more")
        return str(tmp_path / file)

    kept: dict[str, str] = {}
    (tmp_path / "config.json").write_text('{"hidden_size": 7}', "utf-8")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: kept.get(name))
    assert hub_config("org/name") == {"hidden_size": 7}
    kept["org/name"] = str(tmp_path / "config.json")
    refuse_bad_encoder("org/name")
    assert fetched == ["org/name"]
    with pytest.raises(MetaprimeError) as error:
        refuse_bad_encoder("org/gone")
    assert str(error.value).startswith(
        "encoder.name 'org/gone' cannot be loaded: there is no folder of that name here, and as a hub id: 404: no such "
        "repository. Give a folder with"
    )
