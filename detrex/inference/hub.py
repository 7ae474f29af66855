"""Detectors put on the Hugging Face hub, in one commit each, by huggingface_hub.

It heeds ``HF_TOKEN``, the token of ``hf auth login`` and ``HF_ENDPOINT``.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from detrex.checkpoint.download import without_secrets
from detrex.errors import ConfigError, UploadError, first_line
from detrex.files import sha256_of
from detrex.inference.facts import FACTS, read_facts
from detrex.inference.pretrained import CARD, Shareable, save_pretrained

logger = logging.getLogger(__name__)

T = TypeVar("T")

_OWN = (".gitattributes", ".gitignore", "LICENSE", "README.md")
"""What a repository holds that was made in a browser, beside no model."""


def push_to_hub(
    detector: Shareable,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "",
    licence: str = "",
    datasets: str | Sequence[str] = (),
    token: str | None = None,
) -> str:
    """Put a detector on the Hugging Face hub, from where ``detrex.load("hf-hub:...")`` reads it.

    Args:
        detector: a `detrex.inference.Detector`.
        repo_id: ``owner/name``, or ``name`` for one of your own; made where it is not there. One
            that holds another model is left alone, and so is a card that was changed since.
        private: whether a new repository is for you alone; by default as your account has it.
        revision: the branch, made where it is not there; by default ``main``.
        message: of the commit.
        licence: see `detrex.inference.pretrained.save_pretrained`.
        datasets: likewise.
        token: in the place of that which the environment holds.

    Returns:
        The address to load it by: ``hf-hub:owner/name``, with ``@revision`` where one was given.

    Raises:
        ConfigError: the name is none, or the repository holds something else.
        UploadError: the hub cannot be reached, or refuses.
        DetrexError: see `save_pretrained`; nothing has been sent then.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise UploadError(
            "detectors are put on the hub by huggingface_hub, which is not installed: `pip install "
            "huggingface_hub`, or save_pretrained to a folder"
        ) from error
    try:
        validate_repo_id(repo_id if isinstance(repo_id, str) else "")
    except HFValidationError as error:
        raise ConfigError(
            f"{str(repo_id)[:100]!r} is no name of a repository: expected owner/name, of letters, "
            "digits, '-', '_' and '.'."
        ) from error
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)

    def ask(call: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        try:
            return call(*arguments, **keywords)
        except Exception as error:  # of the client, of the connection under it, of the disk
            raise UploadError(_refused(repo_id, error, token)) from None

    if "/" not in repo_id:
        repo_id = f"{ask(api.whoami)['name']}/{repo_id}"
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "detector")
        save_pretrained(detector, folder, licence=licence, datasets=datasets, name=repo_id)
        ask(api.create_repo, repo_id, private=private, exist_ok=True)
        if revision:
            ask(api.create_branch, repo_id, branch=revision, exist_ok=True)
        there = ask(api.list_repo_files, repo_id, revision=revision)
        _require_ours(repo_id, there)
        new = sorted(folder.iterdir())
        if {CARD, FACTS} <= set(there):
            card, facts = (
                Path(ask(api.hf_hub_download, repo_id, name, revision=revision))
                for name in (CARD, FACTS)
            )
            if read_facts(facts).sha256.get(CARD) != sha256_of(card):
                logger.warning("%s of %s was changed since, and stays as it is.", CARD, repo_id)
                new.remove(folder / CARD)
        additions = [
            CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in new
        ]
        ask(
            api.create_commit,
            repo_id,
            additions,
            commit_message=message or "A detector, saved by detrex",
            revision=revision,
        )
    return f"hf-hub:{repo_id}{f'@{revision}' if revision else ''}"


def _require_ours(repository: str, files: Sequence[str]) -> None:
    others = [file for file in files if file not in _OWN]
    if others and FACTS not in files:
        raise ConfigError(
            f"the repository {repository} holds other files, such as {others[0][:80]!r}, and "
            "nothing is written over: name a new one, or one that holds a detector of detrex."
        )


def _refused(repository: str, error: Exception, token: str | None) -> str:
    secret = token or os.environ.get("HF_TOKEN") or ""
    reason = without_secrets(first_line(error, 160), secret, secret.strip()).rstrip(".: ")
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = f"HTTP {status}: {reason}" if status else reason
    cure = "check the network, or save_pretrained to a folder"
    if status in (401, 403):
        cure = "log in by `hf auth login`, or set HF_TOKEN, with a token that may write there"
    return f"{repository} cannot be put on the hub ({reason}): {cure}"
