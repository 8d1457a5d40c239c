"""Uploads of a model folder with the hub's own client."""

from __future__ import annotations

from pathlib import Path

from reasoner.errors import ReasonerError


class HubError(ReasonerError, RuntimeError):
    """Error of a model that cannot be uploaded; the message says what to do."""


def check_hub(name: str) -> None:
    """Check the repository name and the login before an upload.

    Raises:
        HubError: the name is not a valid repository, or nobody is logged in; the message says what to do.
    """
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        reason = _first_line(error)
        raise HubError(f"--push-to-hub must name a repository, as USER/NAME; got {name!r}: {reason}.") from error
    if get_token() is None:
        raise HubError(
            "--push-to-hub needs a token that may write; there is none. Run `hf auth login`, or set HF_TOKEN."
        )


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a model folder to a repository of the hub, which is made if it does not exist; return its address.

    Raises:
        HubError: the hub rejects it or cannot be reached; the message says where the folder is and how to try again.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        repository = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Upload model")
    except Exception as error:  # the client raises errors of its HTTP library, which differs between versions
        raise HubError(
            f"{name} could not be pushed: {_first_line(error)}. The model is in {folder}; once the hub can be reached"
            f" and your token may write there: `hf upload {name} {folder}`."
        ) from error
    return str(repository)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
