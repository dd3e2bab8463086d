import http.server
import io
import json
import shutil
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocklists.compile import compile_folder
from blocklists.errors import BlocklistError
from blocklists.fetch import fetch
from blocklists.index import Index
from blocklists.lock import LOCK_NAME
from durable.files import file_sha256

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the server's certificate")


class Server:
    """An https server on this machine; `pages` maps paths to bodies, redirects (a URL), or announced lengths."""

    def __init__(self, certificate: Path) -> None:
        self.pages: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.announced: dict[str, int] = {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.end_headers()
                    return
                if self.path not in server.pages:
                    self.send_error(404)
                    return
                body = server.pages[self.path]
                self.send_response(200)
                self.send_header("Content-Length", str(server.announced.get(self.path, len(body))))
                self.send_header("Last-Modified", "Thu, 03 Jul 2025 04:00:00 GMT")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.http.server_port}{path}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run(
        [*command, "-keyout", folder / "key", "-out", folder / "certificate"], check=True, capture_output=True
    )
    both = folder / "both.pem"
    both.write_bytes((folder / "key").read_bytes() + (folder / "certificate").read_bytes())
    return both


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server(certificate)
    yield running
    running.close()


def archive(members: dict[str, bytes | str], mode: str = "w:gz") -> bytes:
    """A tar of files (bytes) and symbolic links (the target as text)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


LISTS: dict[str, bytes | str] = {
    "blacklists/README": b"read me",
    "blacklists/adult/domains": b"one.example\n",
    "blacklists/adult/urls": b"host.example/page\n",
    "blacklists/porn": "adult",
    "blacklists/malware/domains": b"two.example\n",
    "blacklists/malware/domains.24733": b"old.example\n",
}


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w"])
def test_the_lists_of_an_archive_are_fetched_and_pinned(server: Server, tmp_path: Path, mode: str) -> None:
    server.pages["/lists"] = archive(LISTS, mode)
    lock = fetch(server.url("/lists"), tmp_path / "ut1")
    assert lock == json.loads((tmp_path / "ut1" / LOCK_NAME).read_text("utf-8"))
    assert lock["source"] == server.url("/lists")
    assert lock["last_modified"] == "Thu, 03 Jul 2025 04:00:00 GMT"
    assert lock["licence"] == "CC BY-SA 4.0"
    assert lock["aliases"] == {"porn": "adult"}
    assert lock["files"]["adult/domains"] == file_sha256(tmp_path / "ut1" / "adult" / "domains")
    index = Index.of_folder(tmp_path / "ut1", ["porn", "malware"])
    assert len(index) == 3
    assert index.header["source"]["archive_sha256"] == lock["archive_sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ut1"]


def good_copy(server: Server, out: Path) -> bytes:
    server.pages["/good"] = archive(LISTS)
    fetch(server.url("/good"), out)
    return compile_folder(out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"files": null}', "`files` is None, expected an object"),
        ('{"files": {"../x": "0"}}', r"`files` names '\.\./x', expected the name of a file inside the folder"),
        ("{", "Expecting property name"),
    ],
)
def test_a_damaged_lock_file_is_refused(server: Server, tmp_path: Path, content: str, message: str) -> None:
    good_copy(server, tmp_path / "ut1")
    (tmp_path / "ut1" / LOCK_NAME).write_text(content)
    with pytest.raises(BlocklistError, match=rf"lock\.json is damaged: {message}"):
        Index.of_folder(tmp_path / "ut1")


FAULTS = {
    "cut inside": archive(LISTS)[:-30],
    "flipped bit": bytes([*archive(LISTS)[:60], archive(LISTS)[60] ^ 1, *archive(LISTS)[61:]]),
    "no checksum at the end": archive(LISTS)[:-8],
    "not an archive": b"<html>busy</html>",
    "empty": b"",
    "no lists": archive({"blacklists/README": b"x"}),
    "lists at the top": archive({"domains": b"a.example"}),
    "outside": archive({"../../adult/../domains": b"a.example"}),
    "only links": archive({"blacklists/porn": "/etc", "x/domains": "/etc/passwd"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_archive_is_refused_and_the_last_good_copy_kept(server: Server, tmp_path: Path, fault: str) -> None:
    before = good_copy(server, tmp_path / "ut1")
    server.pages["/bad"] = FAULTS[fault]
    with pytest.raises(BlocklistError, match="/bad"):
        fetch(server.url("/bad"), tmp_path / "ut1")
    assert compile_folder(tmp_path / "ut1") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ut1"]


def test_members_are_never_written_outside_the_folder(server: Server, tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "../../escaped/domains": b"a.example",
        "/absolute/domains": b"b.example",
        "x/link": "../../..",
        "x/link/domains": b"c.example",
        "adult/domains": b"d.example",
    }
    server.pages["/hostile"] = archive(members)
    fetch(server.url("/hostile"), tmp_path / "in" / "ut1")
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("domains"))
    assert files == [f"in/ut1/{name}/domains" for name in ("absolute", "adult", "escaped", "link")]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_an_archive_larger_than_asked_for_is_refused(server: Server, tmp_path: Path) -> None:
    server.pages["/large"] = archive(LISTS, "w")
    with pytest.raises(BlocklistError, match="holds more than 1,000 bytes"):
        fetch(server.url("/large"), tmp_path / "ut1", most_bytes=1000)
    assert not (tmp_path / "ut1").exists()


def test_a_small_archive_of_very_large_lists_is_refused(server: Server, tmp_path: Path) -> None:
    server.pages["/bomb"] = archive({"adult/domains": b"a.example\n" * 1_000_000})
    with pytest.raises(BlocklistError, match="holds more than"):
        fetch(server.url("/bomb"), tmp_path / "ut1", most_bytes=100_000)
    assert not (tmp_path / "ut1").exists()


def test_a_download_that_breaks_off_is_an_error(server: Server, tmp_path: Path) -> None:
    server.pages["/short"] = archive(LISTS)
    server.announced["/short"] = len(archive(LISTS)) + 100
    with pytest.raises(BlocklistError, match="/short"):
        fetch(server.url("/short"), tmp_path / "ut1")


@pytest.mark.parametrize("url", ["http://127.0.0.1/lists", "file:///etc/passwd", "ftp://a.example/x"])
def test_only_https_is_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(BlocklistError, match="not an https address"):
        fetch(url, tmp_path / "ut1")


def test_a_redirect_away_from_https_is_not_followed(server: Server, tmp_path: Path) -> None:
    server.redirects["/moved"] = "http://127.0.0.1/lists"
    with pytest.raises(BlocklistError, match="not an https address"):
        fetch(server.url("/moved"), tmp_path / "ut1")


def test_an_answer_of_404_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BlocklistError, match="/absent answered 404"):
        fetch(server.url("/absent"), tmp_path / "ut1")


def test_a_certificate_nobody_vouches_for_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    server.pages["/lists"] = archive(LISTS)
    with pytest.raises(BlocklistError, match="certificate"):
        fetch(server.url("/lists"), tmp_path / "ut1")


def test_a_server_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    url = server.url("/lists")
    server.close()
    with pytest.raises(BlocklistError, match="could not be read"):
        fetch(url, tmp_path / "ut1")


def test_another_archive_than_the_pinned_one_is_refused(server: Server, tmp_path: Path) -> None:
    server.pages["/lists"] = archive(LISTS)
    with pytest.raises(BlocklistError, match="expected 00ff"):
        fetch(server.url("/lists"), tmp_path / "ut1", sha256="00FF")
    pinned = fetch(server.url("/lists"), tmp_path / "ut1")["archive_sha256"]
    assert fetch(server.url("/lists"), tmp_path / "ut1", sha256=pinned)["archive_sha256"] == pinned


def test_a_folder_that_was_not_fetched_is_never_replaced(server: Server, tmp_path: Path) -> None:
    server.pages["/lists"] = archive(LISTS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(BlocklistError, match="was not made by"):
        fetch(server.url("/lists"), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "all of it"


def test_a_list_changed_since_it_was_fetched_is_refused(server: Server, tmp_path: Path) -> None:
    good_copy(server, tmp_path / "ut1")
    with (tmp_path / "ut1" / "malware" / "domains").open("a") as file:
        file.write("added.example\n")
    with pytest.raises(BlocklistError, match=r"malware/domains is not the file that .* pins"):
        compile_folder(tmp_path / "ut1")
