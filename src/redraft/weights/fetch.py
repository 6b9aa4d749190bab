"""From what a user calls a model to the folder it is in: a path, a name on the Hugging Face hub, or "bundled"."""

import re
from pathlib import Path

from redraft import bundled
from redraft.weights.config.file import CONFIG_FILE

BUNDLED = "bundled"
BUNDLED_FOLDER = bundled.CHECKPOINT
RELEASED = "26b-a4b"
RELEASED_FOLDER = Path(__file__).parent / "released"
"""The released model's config.json, so that its size can be told without a network. There are no weights in it."""
ALLOWED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
"""What is fetched of a repository: never code (.py), never pickles (.bin, .pt)."""
IGNORED = ["*/*"]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model, fetched first where it is on the hub.

    An existing folder is taken as it is; "bundled" is the model that comes with the package; org/model is fetched from
    the hub, or taken from its cache where there is no network. Raises ValueError saying which of them failed and why.
    """
    folder = _local(name_or_path)
    return _fetch(str(name_or_path)) if folder is None else folder


def fetch_config(name_or_path: str | Path) -> Path:
    """A folder with the model's config.json; of a model on the hub nothing else is fetched. Errors are `resolve`'s.

    "26b-a4b" is the released model's shape, which comes with the package.
    """
    folder = RELEASED_FOLDER if str(name_or_path) == RELEASED else _local(name_or_path)
    if folder is None:
        import huggingface_hub

        name = str(name_or_path)
        try:
            folder = Path(huggingface_hub.hf_hub_download(name, CONFIG_FILE)).parent
        except Exception as error:
            raise _unreachable(name, error) from error
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{folder} has no {CONFIG_FILE}: it is not the folder of a checkpoint")
    return folder


def _local(name_or_path: str | Path) -> Path | None:
    """The folder, or None for a name to be fetched."""
    name = str(name_or_path)
    path = Path(name).expanduser()
    if name == BUNDLED:
        if not (BUNDLED_FOLDER / CONFIG_FILE).is_file():
            raise ValueError("this installation comes without the bundled model; name a folder or a model on the hub")
        return BUNDLED_FOLDER
    if name and path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{name} is a file; name the folder with {CONFIG_FILE} and the weights")
    if not isinstance(name_or_path, str) or not _HUB_NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ValueError(
            f"there is no folder {name!r}; name an existing folder, a model on the hub as org/model, or {BUNDLED!r}"
        )
    return None


def _fetch(name: str) -> Path:
    # Imported here: it takes longer than everything else in this room and is needed for hub names only.
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=ALLOWED, ignore_patterns=IGNORED))
    except Exception as error:
        raise _unreachable(name, error) from error
    if not any(folder.glob("*.safetensors")):
        # A cache that holds the config only, or a repository of pickles.
        raise ValueError(
            f"{name} came without safetensors: the repository has none, or there is no network and the cache in "
            f"{folder} is not complete"
        )
    return folder


def _unreachable(name: str, error: Exception) -> ValueError:
    """What to tell the user of the many exceptions the hub's client and its transport have."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        reason = "access is restricted: accept its terms on huggingface.co and log in with `hf auth login`"
    elif isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        reason = "there is no such model on the hub (or it is private: `hf auth login`), nor such a folder here"
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        reason = f"it has no {CONFIG_FILE}"
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | ConnectionError):
        reason = "the hub cannot be reached and the cache does not have it, nor is there such a folder here"
    else:
        reason = f"{type(error).__name__}: {error}"
    return ValueError(f"cannot fetch {name}: {reason}")
