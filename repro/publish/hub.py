"""A folder's files → a data set repository of the Hugging Face hub, in one commit.

The token is the hub's own business (HF_TOKEN, or its login): it is handed on, never written and never shown, and a file
that holds it, or anything that looks like one, is not sent. What is the same on the hub already makes no commit.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from repro.config.errors import InputError
from repro.data.network import retried

FIRST_PART = re.compile(rb"hf_[A-Za-z0-9]{20,}")
"""What tokens of the hub look like."""
REFUSED = {
    401: "the token is not accepted; expected a valid one in HF_TOKEN, or from: hf auth login",
    403: "the token may not write there; expected one with write access to this repository",
    404: "there is no such repository, or the token may not see it",
}


def check_name(repo: str) -> None:
    """Raises InputError for what is no name of a repository."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    expected = "expected USER/NAME of letters, digits and . _ -, such as ada/siglip-results"
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError(f"--repo {repo}: {expected}")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--repo {repo}: {str(error).splitlines()[0]}; {expected}") from None


def push(repo: str, folder: Path, files: Sequence[str]) -> str:
    """Send these files of the folder; returns the address of the commit. Raises InputError, whatever went wrong."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    check_name(repo)
    where = f"--repo {repo}"
    token = get_token()
    if not token:
        raise InputError(f"{where}: no token of the hub; expected one in HF_TOKEN, or from: hf auth login")
    check_no_token(folder, files, token)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)

    def send() -> str:
        # One commit, of these files and no others: the hub's upload_folder may make several, of all that it finds.
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        additions = [CommitOperationAdd(name, folder / name) for name in files]
        return api.create_commit(repo, additions, commit_message="Publish results", repo_type="dataset").commit_url

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns where nothing has changed
    try:
        return retried(where, send)
    except OfflineModeIsEnabled:
        raise InputError(f"{where}: the hub is offline by HF_HUB_OFFLINE; expected it unset") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = REFUSED.get(status, f"the hub refused: {_without(token, str(error))}")
        raise InputError(f"{where}: {said} (HTTP {status})") from None
    except InputError as error:
        raise InputError(_without(token, str(error))) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {type(error).__name__}: {_without(token, str(error))}") from None


def check_no_token(folder: Path, files: Sequence[str], token: str) -> None:
    """Raises InputError naming the file that holds the token, or what looks like one."""
    for name in files:
        content = (folder / name).read_bytes()
        if token.encode() in content or FIRST_PART.search(content):
            raise InputError(
                f"{folder / name}: holds a token of the hub, so nothing is sent; expected it removed (and the token "
                "revoked, where others may have seen it). Tables hold the command lines of their runs"
            )


def _without(token: str, text: str) -> str:
    return " ".join(text.replace(token, "…").split())[:400]
