"""Models by their name on the Hugging Face hub: `config.json` and the index of their files are fetched, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from costmodel.errors import CostModelError, excerpt, shown
from costmodel.importers import MAX_CONFIG_BYTES
from costmodel.importers.stored import INDEX, MAX_INDEX_BYTES

PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
NAME = re.compile(f"{PART}/{PART}", re.ASCII)
SECONDS = 10.0
"""How long the hub may take to say what a file is."""
FILES = (".toml", ".json", ".gguf", ".git")


def is_hub_name(text: object) -> bool:
    """Whether a text can only be a model's name on the hub: `organisation/model`, and nothing local that it could mean.

    One slash, letters, digits, dot, dash and underscore, no file's ending, and the first part is no folder here. A Path is a file.

    >>> is_hub_name("deepseek-ai/DeepSeek-V3"), is_hub_name("./model"), is_hub_name("a/b/c"), is_hub_name("models/mine.toml")
    (True, False, False, False)
    """
    if not isinstance(text, str) or not NAME.fullmatch(text) or ".." in text or "--" in text or text.lower().endswith(FILES):
        return False
    return not Path(text).exists() and not Path(text.partition("/")[0]).exists()


def fetched(name: str) -> tuple[Path, Path | None]:
    """The files `config.json` and, where there is one, the index of a model on the hub; offline, what its cache here holds.

    Raises CostModelError where the package huggingface_hub is missing, the hub cannot be reached, or the model is not to be had.
    """
    try:
        from huggingface_hub import errors
    except ImportError:
        raise CostModelError(
            f"no file {shown(name)}; to read it from the Hugging Face hub, which needs the package huggingface_hub, "
            "run: pip install 'costmodel[hub]'"
        ) from None
    try:
        return _file(name, "config.json", MAX_CONFIG_BYTES), _index(name)
    except CostModelError:
        raise
    except errors.GatedRepoError:
        _refuse(name, "asks for consent on its page on the Hugging Face hub", "give it there and log in (`hf auth login`)")
    except errors.RepositoryNotFoundError:
        _refuse(name, "is no local file, and no public model on the Hugging Face hub", "check its name, or log in first")
    except errors.LocalEntryNotFoundError:
        _refuse(name, "is no local file, and the Hugging Face hub cannot be reached", "give a local file, or try again online")
    except errors.EntryNotFoundError:
        _refuse(name, "has no config.json on the Hugging Face hub", "give another model, or a local file")
    except Exception as error:  # whatever else the network or the client comes up with
        _refuse(name, f"cannot be read from the Hugging Face hub ({excerpt(str(error))})", "give a local file")


def _file(name: str, file: str, most: int) -> Path:
    """One file of the model, if it is no larger than it may be: its size is asked first, without the client's patient retries."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        about = get_hf_file_metadata(hf_hub_url(name, file), timeout=SECONDS)
    except errors.HfHubHTTPError:  # an answer
        raise
    except Exception:  # none: no network, or offline by choice
        return Path(hf_hub_download(name, file, local_files_only=True))
    if (about.size or 0) > most:
        raise CostModelError(f"{file} of {shown(name)} has {about.size:,} bytes; such a file has at most {most:,}")
    return Path(hf_hub_download(name, file))


def _index(name: str) -> Path | None:
    """A model in one file has no index; offline, none may be in the cache."""
    from huggingface_hub import errors

    try:
        return _file(name, INDEX, MAX_INDEX_BYTES)
    except errors.EntryNotFoundError:
        return None


def _refuse(name: str, what: str, hint: str) -> NoReturn:
    raise CostModelError(f"{shown(name)} {what}; {hint}") from None
