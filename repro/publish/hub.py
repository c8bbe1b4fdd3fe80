"""A folder's files → a data set repository of the Hugging Face hub, in one commit.

The token is the hub's own business (HF_TOKEN, or its login): a file that holds it, or anything that looks like one, is
not sent.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from repro.config.errors import InputError
from repro.data.network import retried

TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")


def check_name(repo: str) -> None:
    """Raises InputError for what is no name of a repository."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1 and all(repo.split("/"))
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(f"--repo {repo}: expected USER/NAME of letters, digits and . _ -, such as ada/siglip-results")


def push(repo: str, folder: Path, files: Sequence[str]) -> str:
    """Send these files of the folder; returns the address of the commit. Raises InputError, whatever went wrong."""
    from huggingface_hub import HfApi, get_token

    if not (token := get_token()):
        raise InputError(f"--repo {repo}: no token of the hub; expected one in HF_TOKEN, or from: hf auth login")
    for content, name in ((file.read_bytes(), file) for file in map(folder.joinpath, files)):
        if token.encode() in content or TOKEN.search(content):
            raise InputError(
                f"{name}: holds a token of the hub, so nothing is sent; expected it removed (and the token "
                "revoked, where others may have seen it). Tables hold the command lines of their runs"
            )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)

    def send() -> str:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        message = {"commit_message": "Publish results", "repo_type": "dataset"}
        return api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(files), **message).commit_url

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns where nothing has changed
    try:
        return retried(f"--repo {repo}", send)
    except (OSError, ValueError) as error:
        response = getattr(error, "response", None)
        refused = ""
        if response is not None:  # requests' answers that refuse are false
            refused = f" (HTTP {response.status_code}); expected a token that may write there"
        text = " ".join(str(error).replace(token, "…").split())[:400]
        raise InputError(f"--repo {repo}: {text}{refused}") from None
