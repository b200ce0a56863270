"""The Hub's errors: which are worth another try, and what each asks of the user. None of them repeats the token."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library that the client of the Hub uses, whichever that is
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from optimum_si.errors import ConfigurationError, PublishError


logger = logging.getLogger(__name__)

#: Seconds before each further try of a request that lost its connection.
WAITS = (1, 4, 16)
_LOGIN = "log in with `hf auth login`, set HF_TOKEN, or give token=, with the right to write"
_Result = TypeVar("_Result")


def checked_token(token: str | bool | None) -> str | bool | None:
    """A token without the white space around it; one that no header can carry is refused before it is sent."""
    if not isinstance(token, str):
        if token is not False and (own := get_token()) is not None:
            checked_token(own)  # that of HF_TOKEN or of `hf auth login`
        return token
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise PublishError(f"the token is empty or holds characters that no token has: {_LOGIN}.")
    return token


def retried(send: Callable[[], _Result]) -> _Result:
    """Try again when the connection is lost or the Hub has a moment of weakness."""
    for wait in WAITS:
        try:
            return send()
        except Exception as error:
            cause = _cause(error)
            if cause is None or 0 < _status(cause) < 500 and _status(cause) != 429:
                raise
            logger.warning("the upload was interrupted (%s); trying again in %d s", type(cause).__name__, wait)
            time.sleep(wait)
    return send()


@contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """The Hub's errors, in words that say what to do."""
    try:
        yield
    except HFValidationError as error:
        raise ConfigurationError(
            f"repo_id={repo_id!r} is no name that the Hub allows ({error}): give 'owner/name'."
        ) from error
    except LocalTokenNotFoundError:
        raise PublishError(f"pushing to {repo_id!r} needs a token: {_LOGIN}.") from None
    except OfflineModeIsEnabled as error:
        raise PublishError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it.") from error
    except PublishError:
        raise
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, HfHubHTTPError) and _status(cause):
            raise PublishError(_advice(repo_id, cause)) from error
        if cause is not None:
            raise PublishError(
                f"the connection to the Hub was lost while pushing to {repo_id!r} ({type(cause).__name__}). Run the "
                "same again: files that have arrived are not sent twice."
            ) from error
        if isinstance(error, RuntimeError) and type(error).__module__ in ("builtins", "hf_xet"):
            said = str(error).strip().splitlines()[0][:300]
            raise PublishError(
                f"uploading to {repo_id!r} failed ({said}). Run the same again: files that have arrived are not sent "
                "twice."
            ) from error
        if _is_of_the_client(error):
            # Without the error itself, which may quote a header.
            raise PublishError(
                f"the Hub's answer for {repo_id!r} cannot be understood ({type(error).__name__}): is there a proxy in "
                f"between, or another server at HF_ENDPOINT? If not, {_LOGIN}."
            ) from None
        raise


def _is_of_the_client(error: Exception) -> bool:
    """Whether an error comes from reading what the Hub answered, or from sending what it cannot be sent."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    kinds = (ValueError, KeyError, TypeError, AttributeError)
    return isinstance(error, kinds) and any(name.startswith(("huggingface_hub", "httpx")) for name in frames)


def _cause(error: BaseException | None) -> HTTPError | None:
    """The error of HTTP behind one, which the client wraps where a file is uploaded apart from the commit."""
    while error is not None:
        if isinstance(error, HTTPError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _advice(repo_id: str, error: HfHubHTTPError) -> str:
    status = _status(error)
    said = (error.server_message or str(error)).strip().splitlines()[0][:300]
    if status == 401:
        return f"the Hub does not accept the token for {repo_id!r}, or there is none: {_LOGIN}."
    if status == 403:
        return f"no right to write to {repo_id!r} ({said}): choose a name of your own, or use a token that may write."
    if status == 412:
        return (
            f"{repo_id!r} changed while this push was under way, and nothing was committed: look at what changed "
            "there, then push again."
        )
    if status >= 500 or status == 429:
        return f"the Hub cannot take {repo_id!r} now ({status}: {said}). Run the same again later: it resumes."
    return f"the Hub refused the push to {repo_id!r} ({status}: {said})."


def _status(error: HTTPError) -> int:
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    return 0 if response is None else int(response.status_code)
