"""Finds the folder of a model, given a path, a name on the Hugging Face hub, or "bundled"."""

import os
import re
from pathlib import Path

from redraft import bundled
from redraft.utils.json_files import read_json_object
from redraft.weights import card
from redraft.weights.config.keys import CONFIG_FILE

BUNDLED = "bundled"
BUNDLED_FOLDER = bundled.CHECKPOINT
RELEASED = "26b-a4b"
RELEASED_FOLDER = Path(__file__).parent / "released"
"""Holds the released model's config.json, so that its sizes are known offline, but no weights."""
ALLOW_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
"""The files of a repository that are downloaded: never code (.py), never pickles (.bin, .pt)."""
IGNORE_PATTERNS = ["*/*"]
CHOSEN_FILE = "checkpoint.json"
"""In the folder of a training run: which of its checkpoints the folder stands for."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve(name_or_path: str | Path, *, is_adapter: bool = False) -> Path:
    """Returns the folder of a model or an adapter, and downloads it first if it is on the hub.

    An existing folder is used as it is; that of a training run stands for its best checkpoint. "bundled" is the model
    that comes with the package. org/model is downloaded from the hub, or found in the hub's cache if there is no
    network. Raises ValueError saying what failed and why.
    """
    folder = _find_local(name_or_path, is_adapter=is_adapter)
    return _download(str(name_or_path)) if folder is None else folder


def fetch_config(name_or_path: str | Path) -> Path:
    """Returns a folder with the model's config.json; from the hub, only that file is downloaded.

    "26b-a4b" is the configuration of the released model, which comes with the package. Raises the errors of `resolve`.
    """
    folder = RELEASED_FOLDER if str(name_or_path) == RELEASED else _find_local(name_or_path)
    if folder is None:
        import huggingface_hub

        name = str(name_or_path)
        try:
            folder = Path(huggingface_hub.hf_hub_download(name, CONFIG_FILE)).parent
        except Exception as error:
            raise _fetch_error(name, error) from error
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{folder} has no {CONFIG_FILE}: it is not a checkpoint folder")
    return folder


def read_card(name_or_path: str | os.PathLike[str] = BUNDLED) -> card.Card:
    """Returns a checkpoint's own description, without loading it. Raises the errors of `resolve`."""
    return card.read_card(resolve(os.fspath(name_or_path)))


def _find_local(name_or_path: str | Path, *, is_adapter: bool = False) -> Path | None:
    """Returns the folder of a local model, or None if the name is one on the hub."""
    name = str(name_or_path)
    path = Path(name).expanduser()
    if name == BUNDLED and not is_adapter:
        if not (BUNDLED_FOLDER / CONFIG_FILE).is_file():
            raise ValueError(
                "this installation does not include the bundled model; name a folder or a model on the hub"
            )
        return BUNDLED_FOLDER
    if name and path.is_dir():
        return _chosen_checkpoint(path) if (path / CHOSEN_FILE).is_file() else path
    if path.is_file():
        raise ValueError(f"{name} is a file; name the folder with {CONFIG_FILE} and the weights")
    if not isinstance(name_or_path, str) or not _HUB_NAME.fullmatch(name) or ".." in name or "--" in name:
        way_out = (
            "the folder of an adapter, or one on the hub as org/adapter"
            if is_adapter
            else f"an existing folder, a model on the hub as org/model, or {BUNDLED!r}"
        )
        raise ValueError(f"there is no folder {name!r}; name {way_out}")
    return None


def _chosen_checkpoint(run: Path) -> Path:
    chosen = read_json_object(run / CHOSEN_FILE).get("checkpoint")
    if not isinstance(chosen, str) or not re.fullmatch(r"step-\d{7,}", chosen) or not (run / chosen).is_dir():
        raise ValueError(
            f"{run / CHOSEN_FILE} names the checkpoint {chosen!r}, which is not there; name another folder"
        )
    return run / chosen


def _download(name: str) -> Path:
    # Imported here: it takes longer than everything else in this package and is needed for hub names only.
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, allow_patterns=ALLOW_PATTERNS, ignore_patterns=IGNORE_PATTERNS)
        )
    except Exception as error:
        raise _fetch_error(name, error) from error
    if not any(folder.glob("*.safetensors")):
        # The cache has only the config, or the repository only pickles.
        raise ValueError(
            f"{name} came without safetensors: the repository has none, or there is no network and the cache in "
            f"{folder} is incomplete"
        )
    return folder


def _fetch_error(name: str, error: Exception) -> ValueError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        reason = "access is restricted: accept its terms on huggingface.co and log in with `hf auth login`"
    elif isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        reason = "there is no such model on the hub (or it is private: `hf auth login`), and no such folder here"
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        reason = f"it has no {CONFIG_FILE}"
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | ConnectionError):
        reason = "the hub cannot be reached, the cache does not have it, and there is no such folder here"
    else:
        reason = f"{type(error).__name__}: {error}"
    return ValueError(f"cannot fetch {name}: {reason}")
