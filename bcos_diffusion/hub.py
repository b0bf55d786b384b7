"""Where a model lies: a folder, one of the package's own, or a repository that is downloaded first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from bcos_diffusion.shipped import locate, names


def local_folder(source: str | Path, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The local folder of a model; of a hub id, after a download of the files that ``wanted`` matches.

    wanted, unwanted: patterns of paths in the repository. Raises FileNotFoundError where there is no such model.
    """
    folder = locate(source)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(wanted), ignore_patterns=list(unwanted)))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{source} is neither a folder nor a model that can be downloaded ({type(error).__name__});"
            f" the package has {', '.join(names()) or 'no model'}"
        ) from None
