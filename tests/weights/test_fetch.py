from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from httpx2 import ConnectError, Request, Response
from huggingface_hub import constants, errors

from redraft.weights import fetch
from redraft.weights.config.file import read_config
from redraft.weights.fetch import fetch_config, resolve
from tests.weights.support import released_config

NAME = "someone/some-model"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def failing(error: Exception) -> Callable[..., str]:
    def fail(*_: object, **__: object) -> str:
        raise error

    return fail


def test_an_existing_folder_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "model"
    folder.mkdir(parents=True)
    assert resolve(folder) == folder
    assert resolve("org/model") == Path("org/model")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        fetch_config(folder)
    (folder / "config.json").write_text("{}")
    assert fetch_config("org/model") == Path("org/model")


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "./nothing",
        "/no/thing",
        "a/b/c",
        "../a",
        "~/nothing",
        "a\\b",
        "",
        "a/",
        "a/..b",
        "a/b--c",
        "ä/b",
        "a/b\n",
    ],
)
def test_paths_that_do_not_exist(name: str) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        resolve(name)
    with pytest.raises(ValueError, match="there is no folder"):
        fetch_config(name)


def test_a_path_object_is_never_a_hub_name() -> None:
    with pytest.raises(ValueError, match="there is no folder 'org/model'"):
        resolve(Path("org/model"))


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file; name the folder"):
        resolve("model.safetensors")


def test_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BUNDLED_FOLDER", tmp_path / "bundled")
    with pytest.raises(ValueError, match="does not include the bundled model"):
        resolve("bundled")
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "config.json").write_text("{}")
    assert resolve("bundled") == fetch_config("bundled") == tmp_path / "bundled"


def test_what_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str], list[str]]] = []

    def download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, allow_patterns, ignore_patterns))
        (tmp_path / "model.safetensors").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve(NAME) == tmp_path
    ((name, allowed, ignored),) = asked
    assert name == NAME
    files = ["config.json", "model-00001-of-00002.safetensors", "chat_template.jinja", "tokenizer.model"]
    code = ["modeling.py", "pytorch_model.bin", "model.pt", "training_args.bin", "original/x.safetensors", "README.md"]
    chosen = huggingface_hub.utils.filter_repo_objects(files + code, allow_patterns=allowed, ignore_patterns=ignored)
    assert list(chosen) == files


def test_only_the_config_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, file: str) -> str:
        assert (name, file) == (NAME, "config.json")
        (tmp_path / file).write_text("{}")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_config(NAME) == tmp_path


def test_offline_without_a_cache() -> None:
    with pytest.raises(ValueError, match=f"cannot fetch {NAME}: the hub cannot be reached"):
        resolve(NAME)
    with pytest.raises(ValueError, match=f"cannot fetch {NAME}: the hub cannot be reached"):
        fetch_config(NAME)


def cached(tmp_path: Path, *names: str) -> Path:
    """A snapshot in the hub's cache as the client lays it out."""
    repository = tmp_path / "cache" / "models--someone--some-model"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for name in names:
        (snapshot / name).write_text("{}")
    return snapshot


def test_offline_from_the_cache(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "config.json", "model.safetensors")
    assert resolve(NAME) == snapshot
    assert fetch_config(NAME) == snapshot


def test_offline_from_a_cache_that_has_the_config_only(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "config.json")
    assert fetch_config(NAME) == snapshot
    with pytest.raises(ValueError, match="came without safetensors"):
        resolve(NAME)


RESPONSE = Response(404, request=Request("GET", "https://example.invalid"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError("x", response=RESPONSE), "access is restricted"),
        (errors.RepositoryNotFoundError("x", response=RESPONSE), "no such model on the hub"),
        (errors.HFValidationError("x"), "no such model on the hub"),
        (errors.RemoteEntryNotFoundError("x", response=RESPONSE), r"it has no config\.json"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached"),
        (errors.OfflineModeIsEnabled("x"), "the hub cannot be reached"),
        (ConnectError("refused"), "ConnectError: refused"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_every_failure_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(error))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing(error))
    for function in (resolve, fetch_config):
        with pytest.raises(ValueError, match=f"^cannot fetch {NAME}: .*{reason}"):
            function(NAME)


def test_the_released_shape_comes_with_the_package() -> None:
    assert read_config(fetch_config("26b-a4b")) == released_config()
    with pytest.raises(ValueError, match="there is no folder '26b-a4b'"):
        resolve("26b-a4b")


def test_what_is_no_adapter_is_not_suggested_as_one():
    for name in ("nosuch", "bundled"):
        with pytest.raises(
            ValueError, match=f"there is no folder '{name}'; name the folder of an adapter, or one on the hub"
        ):
            resolve(name, is_adapter=True)
