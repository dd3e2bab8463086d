"""The services behind URLs, through fsspec: how each is reached, what is tried again, what is said when it refuses.

Credentials come from the environment of each service alone: no message, record or URL of ours holds one.
"""

import contextlib
import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from durable.errors import DurableError, with_hint

Result = TypeVar("Result")

SCHEMES = {
    "s3": ("s3fs", "pip install 'symbert[s3]'"),
    "gs": ("gcsfs", "pip install gcsfs"),
    "hf": ("huggingface_hub", "pip install huggingface_hub"),
    "memory": ("fsspec", "pip install fsspec"),
}
"""For each scheme the package that speaks it, and how to come by it; `file` is a local path."""
CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
    "for a public bucket FSSPEC_S3='{\"anon\": true}'",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    "hf": "accept the data set's terms on its page, and set HF_TOKEN",
}

ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
CONNECT_SECONDS, SILENT_SECONDS = 5, 30
PATIENCE_SECONDS = 60
# What s3fs makes of 500 and of 503 and SlowDown.
TRANSIENT_NUMBERS = frozenset({getattr(errno, "EREMOTEIO", errno.EIO), errno.EBUSY})
TRANSIENT_ANSWERS = frozenset({408, 429, 500, 502, 503, 504})
SECRETS = re.compile(r"(?i)key|secret|token|password|credential")


def ask(url: str, action: Callable[[Any], Result], wanted: tuple[type[Exception], ...] = ()) -> Result:
    """What `action` does with the file system of a URL; errors of the types `wanted` are the caller's.

    Raises DurableError, naming the URL, if the service refuses, or goes on not answering.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

    files = filesystem(url.partition("://")[0])
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(PATIENCE_SECONDS),
        wait=wait_random_exponential(FIRST_WAIT, LONGEST_WAIT),
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    try:
        return attempts(action, files)
    except _service_errors() as error:
        if isinstance(error, wanted):
            raise
        raise _in_plain_words(url, error) from None


@functools.cache
def filesystem(scheme: str) -> Any:
    """The fsspec file system of a scheme, set up from the environment, without retries and listings of its own."""
    import fsspec

    options: dict[str, Any] = {}
    if scheme == "s3":
        settings = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS, "retries": {"max_attempts": 0}}
        # Of a large file s3fs holds ten parts of 50 MiB in memory while it copies it; two keep a connection busy.
        options = {"config_kwargs": {**limits, **settings}, "use_listings_cache": False, "max_concurrency": 2}
    package, remedy = SCHEMES[scheme]
    try:
        files = fsspec.filesystem(scheme, **options)
    except ImportError:
        raise with_hint(DurableError(f"{scheme}:// needs {package}, which is not installed"), remedy) from None
    if scheme == "s3":
        files.retries = 1  # it would try five times what is tried five times here
    return files


def _is_transient(error: BaseException) -> bool:
    """Whether trying again may help: no answer, a broken connection, or a service that says so."""
    if isinstance(error, _errors_of("huggingface_hub.errors", "OfflineModeIsEnabled")):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno in TRANSIENT_NUMBERS:
        return True
    if getattr(getattr(error, "response", None), "status_code", None) in TRANSIENT_ANSWERS:
        return True
    broken = (
        *_errors_of("http.client", "IncompleteRead"),
        *_errors_of("botocore.exceptions", "HTTPClientError", "ConnectionError"),
        *_errors_of("aiohttp", "ClientPayloadError", "ClientConnectionError"),
        *_errors_of("httpx", "TransportError"),
        *_errors_of("httpx2", "TransportError"),
    )
    return isinstance(error, broken)


def _service_errors() -> tuple[type[Exception], ...]:
    """What a file system may raise; errors of libraries that nobody has loaded cannot come."""
    return (
        OSError,
        *_errors_of("http.client", "IncompleteRead"),
        *_errors_of("botocore.exceptions", "BotoCoreError", "ClientError"),
        *_errors_of("aiohttp", "ClientError"),
        *_errors_of("huggingface_hub.errors", "HfHubHTTPError", "HFValidationError"),
        *_errors_of("httpx", "HTTPError"),
        *_errors_of("httpx2", "HTTPError"),
        *_errors_of("google.auth.exceptions", "GoogleAuthError"),
        *_errors_of("gcsfs.retry", "HttpError"),
    )


def _errors_of(module: str, *names: str) -> tuple[type[Exception], ...]:
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))


def _in_plain_words(url: str, error: Exception) -> DurableError:
    said = without_secrets(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, FileNotFoundError):
        return with_hint(DurableError(f"{url} does not exist"), "check bucket and key, as in s3://bucket/folder")
    if isinstance(error, PermissionError) or status in {401, 403} or "redentials" in type(error).__name__:
        return with_hint(
            DurableError(f"{url}: access was denied: {said}"),
            CREDENTIALS.get(url.partition("://")[0], "ask for access"),
        )
    if _is_transient(error):
        return with_hint(
            DurableError(f"{url}: the service does not answer as it should, however often it is asked: {said}"),
            "check the network, and AWS_ENDPOINT_URL where the service is not Amazon's; the same command continues",
        )
    return with_hint(DurableError(f"{url}: {said}"), "the same command continues when that is mended")


def without_secrets(text: str) -> str:
    """`text` without user names and passwords in URLs, signatures, and whatever the environment calls a secret."""
    text = re.sub(r"[^/\s]*@", "***@", text)
    text = re.sub(r"\?\S*", "?***", text)
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets() -> set[str]:
    found = {value for name, value in os.environ.items() if SECRETS.search(name)}
    with contextlib.suppress(KeyError):
        for options in sys.modules["fsspec.config"].conf.values():
            found |= {str(value) for name, value in options.items() if SECRETS.search(name)}
    return {value for value in found if len(value) >= 8}
