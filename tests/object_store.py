"""A real S3 server on this machine (moto's), which may be told to fail, and what a client needs to reach it."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

SECRET = "a-secret-that-nobody-may-see"
KEY = "AKIAEXAMPLEOFAKEY"
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass
class Store:
    """A running server; `failing` and `breaking` hold request methods and key endings, each for one request.

    A request that fails is answered by 503; of one that breaks the answer ends half-way.
    """

    endpoint: str
    failing: list[tuple[str, str]] = field(default_factory=list)
    breaking: list[tuple[str, str]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """boto3's client."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        )  # fmt: skip

    def contents(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix."""
        client = self.client()
        listing = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return {
            entry["Key"].removeprefix(prefix): client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            for entry in listing
        }

    def _answering(self, application: Application) -> Application:
        def answer(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            request = environment["REQUEST_METHOD"], environment["PATH_INFO"]
            self.requests.append(request)
            if _drawn(self.failing, request):
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
            answered = application(environment, start_response)
            if _drawn(self.breaking, request):
                whole = b"".join(answered)
                return [whole[: len(whole) // 2]]
            return answered

        return answer


def _drawn(faults: list[tuple[str, str]], request: tuple[str, str]) -> bool:
    """Whether a request is one of the faults, which is then used up."""
    for fault in faults:
        if request[0] == fault[0] and request[1].endswith(fault[1]):
            faults.remove(fault)
            return True
    return False


def start_store() -> tuple[Store, Callable[[], None]]:
    """Start a server on a free port with an empty bucket `oscar`; returns it and what stops it."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store("")
    application = store._answering(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    store.endpoint = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    store.client().create_bucket(Bucket="oscar")
    return store, stop
