"""`zeroflow download`, against a server on this machine: what arrives whole is kept, and nothing else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from zeroflow_core.cli import main
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d import downloading, published
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.published import PUBLISHED, git_object_id

SMALL = FastFlow3DConfig(minimum=(-8, -8, -3), maximum=(8, 8, 3), pillar_size=0.5, channels=16, blocks=(1, 2))
NAME = "zeroflow-1x"
PATIENCE = 60.0  # seconds; reached only by tests that fail
# The command, told of a server on this machine and of its file.
DRIVER = """
import sys
from dataclasses import replace
from zeroflow_core.cli.main import main
from zeroflow_core.fastflow3d import published
published.REPOSITORY, name, git_id = sys.argv[1:4]
published.PUBLISHED[name] = replace(published.PUBLISHED[name], git_id=git_id)
sys.argv[1:] = ["download", name]
sys.exit(main())
"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.site.requests.append((self.path, self.headers.get("Range")))
        self.server.site.answer(self)

    def log_message(self, *_) -> None:
        pass


@dataclass
class Site:
    """The authors' repository, here: `answer` says how it answers, and may be replaced."""

    content: bytes = field(repr=False)
    git_id: str
    address: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    answer: Callable[[_Handler], None] = None
    ended: threading.Event = field(default_factory=threading.Event)

    def whole(self, request: _Handler) -> None:
        wanted = request.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(self.content):
            request.send_error(416)
            return
        more = {"Content-Range": f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"} if wanted else {}
        self.say(request, self.content[start:], 206 if wanted else 200, **more)

    def say(self, request: _Handler, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
        request.wfile.flush()

    def half(self, request: _Handler) -> None:
        """Closes the connection in the middle."""
        self.say(request, self.content[: len(self.content) // 2], length=len(self.content))

    def half_and_no_more(self, request: _Handler) -> None:
        """Keeps it open."""
        self.half(request)
        self.ended.wait(PATIENCE)


@pytest.fixture(scope="module")
def weights() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": FastFlow3D(SMALL).state_dict(), "zeroflow": {"grid": SMALL.to_dict()}}, file)
    assert len(file.getvalue()) > 200_000
    return file.getvalue()


@pytest.fixture
def site(weights, tmp_path, monkeypatch) -> Iterator[Site]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "whole").write_bytes(weights)
    site = Site(weights, git_object_id(tmp_path / "whole"))
    site.answer = site.whole
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.site, server.daemon_threads = site, True
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("ZEROFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "REPOSITORY", site.address)
    monkeypatch.setitem(PUBLISHED, NAME, replace(PUBLISHED[NAME], git_id=site.git_id))
    yield site
    site.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def kept(tmp_path) -> Path:
    """Where the file is to be."""
    return tmp_path / "cache" / f"{NAME}.ckpt"


def _part(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.part")


@pytest.fixture
def zeroflow(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: exit code, what it printed, and what it complained of, as one line."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["zeroflow", *map(str, arguments)])
        capsys.readouterr()
        try:
            code = main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return run


def test_whole(site, kept, zeroflow):
    code, out, err = zeroflow("download", NAME)
    assert (code, err) == (0, "")
    assert out.startswith(f"{kept}: downloaded and checked, ") and out.endswith(f" --checkpoint {NAME}\n")
    assert kept.read_bytes() == site.content and list(kept.parent.iterdir()) == [kept]
    assert site.requests == [(f"/raw/{published.COMMIT}/{PUBLISHED[NAME].path}", None)]


def test_what_is_there_is_checked_and_not_fetched_again(site, kept, zeroflow):
    zeroflow("download", NAME)
    code, out, _ = zeroflow("download", NAME, NAME)
    assert code == 0 and out.count(f"{kept}: there already and checked") == 2
    assert len(site.requests) == 1
    kept.write_bytes(kept.read_bytes() + b"\0")
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and f"{kept} is not the published {NAME}" in err and "--force" in err
    assert len(site.requests) == 1
    assert zeroflow("download", NAME, "--force")[0] == 0
    assert kept.read_bytes() == site.content and len(site.requests) == 2


def test_into_another_folder(site, kept, zeroflow, tmp_path):
    code, out, _ = zeroflow("download", NAME, "--to", tmp_path / "a" / "b")
    path = tmp_path / "a" / "b" / kept.name
    assert code == 0 and path.read_bytes() == site.content and not kept.parent.exists()
    assert out.endswith(f"use it with --checkpoint {path}\n")


@pytest.mark.parametrize("close", ["half", "half_and_no_more"])
def test_cut_off_and_resumed(site, kept, zeroflow, monkeypatch, close):
    monkeypatch.setattr(downloading, "_TIMEOUT_S", 0.5)
    site.answer = getattr(site, close)
    code, _, err = zeroflow("download", NAME)
    half = len(site.content) // 2
    assert code == 1 and f"broke off after {half / 1e6:.1f} of {len(site.content) / 1e6:.1f} MB of {NAME}" in err
    assert ("timed out" if close == "half_and_no_more" else "ended early") in err
    assert not kept.exists() and _part(kept).read_bytes() == site.content[:half]
    site.answer = site.whole
    assert zeroflow("download", NAME)[0] == 0
    assert site.requests[-1][1] == f"bytes={half}-" and kept.read_bytes() == site.content
    assert not _part(kept).exists()


def test_a_server_that_cannot_resume_begins_anew(site, kept, zeroflow):
    site.answer = site.half
    zeroflow("download", NAME)
    site.answer = lambda request: site.say(request, site.content)
    assert zeroflow("download", NAME)[0] == 0
    assert site.requests[-1][1] is not None and kept.read_bytes() == site.content


def test_a_part_that_is_no_part_of_the_file(site, kept, zeroflow):
    kept.parent.mkdir()
    _part(kept).write_bytes(bytes(len(site.content) + 5))
    assert zeroflow("download", NAME)[0] == 0
    assert [wanted for _, wanted in site.requests] == [f"bytes={len(site.content) + 5}-", None]
    assert kept.read_bytes() == site.content
    kept.unlink()
    _part(kept).write_bytes(bytes(1000))
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and "was thrown away" in err and list(kept.parent.iterdir()) == []
    assert zeroflow("download", NAME)[0] == 0


def test_a_part_that_is_whole_needs_no_network(site, kept, zeroflow):
    kept.parent.mkdir()
    _part(kept).write_bytes(site.content)
    assert zeroflow("download", NAME)[0] == 0
    assert site.requests == [] and kept.read_bytes() == site.content


@pytest.mark.parametrize(
    "body",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: b"<html>Please log in</html>",
        lambda content: b"",
    ],
    ids=["cut", "longer", "one bit", "a page", "empty"],
)
def test_other_content_is_thrown_away(site, kept, zeroflow, body):
    site.answer = lambda request: site.say(request, body(site.content))
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and f"is not {NAME} ({len(body(site.content)):,} bytes of other content)" in err
    assert list(kept.parent.iterdir()) == []


def test_what_does_not_end_is_not_kept(site, kept, zeroflow, monkeypatch):
    monkeypatch.setattr(downloading, "MOST_BYTES", 100_000)
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and "or never ends" in err and list(kept.parent.iterdir()) == []


def test_a_length_that_is_not_said_is_no_obstacle(site, kept, zeroflow):
    def unsaid(request: _Handler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(site.content)

    site.answer = unsaid
    assert zeroflow("download", NAME)[0] == 0 and kept.read_bytes() == site.content


@pytest.mark.parametrize("status, reason", [(403, "Forbidden"), (404, "Not Found"), (503, "Service Unavailable")])
def test_refused(site, kept, zeroflow, status, reason):
    site.answer = lambda request: request.send_error(status)
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and f"the server answered {status} {reason}" in err
    assert f"Download {PUBLISHED[NAME].url} where" in err and f"put the file here: {kept}" in err
    assert list(kept.parent.iterdir()) == []


def test_redirected(site, kept, zeroflow):
    def elsewhere(request: _Handler) -> None:
        if request.path.startswith("/raw/"):
            site.say(request, b"", 302, Location="/elsewhere")
        else:
            site.whole(request)

    site.answer = site.half
    zeroflow("download", NAME)
    site.answer = elsewhere
    assert zeroflow("download", NAME)[0] == 0
    assert site.requests[-1] == ("/elsewhere", f"bytes={len(site.content) // 2}-")
    assert kept.read_bytes() == site.content


def test_redirected_for_ever(site, zeroflow):
    site.answer = lambda request: site.say(request, b"", 302, Location=request.path)
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and "the server answered 302" in err


def test_through_a_proxy(site, kept, zeroflow, monkeypatch):
    monkeypatch.setattr(published, "REPOSITORY", "http://weights.invalid")
    monkeypatch.setenv("http_proxy", site.address)
    assert zeroflow("download", NAME)[0] == 0
    assert site.requests[0][0] == PUBLISHED[NAME].url and kept.read_bytes() == site.content


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://weights.invalid", "http://127.0.0.1:nonsense"])
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(site, kept, zeroflow, monkeypatch, address):
    monkeypatch.setattr(published, "REPOSITORY", address)
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and f"there is no connection to {address.split('/')[2].split(':')[0]} (" in err
    assert f"Download {PUBLISHED[NAME].url} where there is a network and put the file here: {kept}" in err
    kept.write_bytes(site.content)  # as it says
    code, out, _ = zeroflow("download", NAME)
    assert code == 0 and "there already and checked" in out


def test_a_folder_that_cannot_be_written(site, zeroflow, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZEROFLOW_CACHE", str(tmp_path / "file" / "cache"))
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and f"cannot write {tmp_path / 'file' / 'cache'}/{NAME}.ckpt: Not a directory; give another" in err
    assert site.requests == []


def test_a_full_disk(site, kept, zeroflow, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading, "open", lambda *_: Full(), raising=False)
    code, _, err = zeroflow("download", NAME)
    assert code == 1 and f"cannot write {kept}: No space left on device" in err


def test_two_at_the_same_time_fetch_it_once(site, kept):
    one_is_there = threading.Event()

    def slowly(request: _Handler) -> None:
        one_is_there.set()
        time.sleep(0.3)
        site.whole(request)

    site.answer = slowly
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(downloading.download(PUBLISHED[NAME], kept.parent)))
        for _ in range(2)
    ]
    threads[0].start()
    assert one_is_there.wait(PATIENCE)
    threads[1].start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(results) == [(kept, False), (kept, True)] and len(site.requests) == 1
    assert kept.read_bytes() == site.content


def test_how_far_it_is(site, kept):
    told = []
    downloading.download(PUBLISHED[NAME], kept.parent, on_progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, len(site.content)) and told[-1] == (len(site.content), len(site.content))
    assert told == sorted(told)


def test_ctrl_c_leaves_no_half_file_under_the_name_and_the_same_command_goes_on(site, kept):
    site.answer = site.half_and_no_more
    half = len(site.content) // 2
    command = [sys.executable, "-c", DRIVER, site.address, NAME, site.git_id]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + PATIENCE
        while not (_part(kept).exists() and _part(kept).stat().st_size):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130 and err == "Stopped; the same command goes on from here.\n"
    assert not kept.exists()
    there = _part(kept).stat().st_size
    assert 0 < there <= half and _part(kept).read_bytes() == site.content[:there]
    site.answer = site.whole
    subprocess.run(command, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
    assert site.requests[-1][1] == f"bytes={there}-"
    assert kept.read_bytes() == site.content


def test_the_right_file_of_another_network_is_said_to_be_of_no_use(site, kept, zeroflow, monkeypatch, tmp_path):
    torch.save({"state_dict": {"model.deflow.weight": torch.zeros(3)}}, tmp_path / "whole")
    monkeypatch.setitem(PUBLISHED, NAME, replace(PUBLISHED[NAME], git_id=git_object_id(tmp_path / "whole")))
    site.content = (tmp_path / "whole").read_bytes()
    code, out, err = zeroflow("download", NAME)
    assert (code, out) == (1, "") and f"checkpoint {kept}: not FastFlow3D" in err


def test_the_list(site, kept, zeroflow, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    zeroflow("download", NAME)
    code, out, _ = zeroflow("download", "--list")
    assert code == 0 and all(name in out for name in PUBLISHED) and "CC BY-NC-SA 4.0" in out and "82 MB" in out
    (here,) = [line for line in out.splitlines() if "yes" in line.split()]
    assert here.split()[0] == NAME and f"Here means in {kept.parent}" in out
    _, out, _ = zeroflow("download", "--list", "zeroflow-5x")
    assert "zeroflow-5x" in out and NAME not in out
    assert len(site.requests) == 1


def test_what_is_asked_for_in_vain(site, zeroflow):
    code, _, err = zeroflow("download")
    assert code == 1 and "zeroflow download --list shows what there is" in err
    code, _, err = zeroflow("download", NAME, "zeroflow-xl")
    assert code == 1 and "no published checkpoint is called 'zeroflow-xl'; there are: zeroflow-1x, " in err
    assert site.requests == []


def test_what_is_downloaded_serves_a_command(site, kept, zeroflow, tmp_path):
    code, _, err = zeroflow("export", NAME, "--format", "torch", "--no-check", "--out", tmp_path / "student.pt")
    assert code == 1 and f"run: zeroflow download {NAME}" in err
    assert site.requests == [], "no other command may use the network"
    zeroflow("download", NAME)
    code, out, _ = zeroflow("export", NAME, "--format", "torch", "--no-check", "--out", tmp_path / "student.pt")
    assert code == 0 and f": {NAME} as TorchScript" in out


def test_a_failure_is_one_sentence_for_python_too(site, kept):
    site.answer = lambda request: request.send_error(404)
    with pytest.raises(ZeroFlowError, match=f"{NAME} cannot be downloaded: the server answered 404"):
        downloading.download(PUBLISHED[NAME], kept.parent)
