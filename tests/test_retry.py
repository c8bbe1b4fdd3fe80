"""What can pass by itself is tried again, with growing pauses; what cannot is raised at once; the end names all."""

import datetime
import http.server
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.utils import format_datetime

import pytest
import requests
import torch

from repro.config.errors import InputError, Interrupted
from repro.data import network as retry
from repro.data.eval_sets import webdataset_task
from repro.data.network import MayPass, retried, weights_from_hub


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with the server's `answers` in turn, then for ever with the last: a status, headers and a body, of
    which `cut` bytes are not sent."""

    def do_GET(self):
        self.server.asked.append(self.path)
        answers = self.server.answers
        status, headers, body, cut = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) - cut])

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.asked, server.answers = [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses made, none of which is waited for."""
    made: list[float] = []
    monkeypatch.setattr("time.sleep", made.append)
    return made


GOOD = (200, {}, b"retrieval", 0)
BUSY = (503, {}, b"", 0)
CUT_OFF = (200, {}, b"retrieval", 4)
UNKNOWN = (520, {}, b"", 0)
"""Not among those that the hub's own library asks again for, for half a minute each time."""


def fetched(server) -> str:
    def attempt() -> str:
        answer = requests.get(f"{server.url}/x", timeout=10)
        answer.raise_for_status()
        return answer.text

    return retried(f"{server.url}/x", attempt)


@pytest.mark.parametrize("failing", [BUSY, CUT_OFF, (429, {}, b"", 0), (408, {}, b"", 0), (500, {}, b"", 0)])
def test_what_fails_twice_in_a_passing_way_comes_at_the_third_try(server, pauses, caplog, failing):
    server.answers = [failing, failing, GOOD]
    with caplog.at_level(logging.WARNING):
        assert fetched(server) == "retrieval"
    assert len(server.asked) == 3
    warnings = [record.getMessage() for record in caplog.records if record.name == "repro.data.network"]
    assert len(warnings) == 2
    assert f"{server.url}/x: " in warnings[0] and "try 2 of 5 in 1." in warnings[0]


def test_pauses_double_each_time(server, pauses):
    server.answers = [BUSY]
    with pytest.raises(InputError):
        fetched(server)
    for pause, least in zip(pauses, (1, 2, 4, 8), strict=True):
        assert least <= pause <= 1.25 * least


def test_the_end_names_the_place_the_last_error_and_the_tries(server, pauses):
    server.answers = [BUSY]
    with pytest.raises(InputError, match=rf"{server.url}/x: 503 Server Error.* \(tried 5 times\)"):
        fetched(server)
    assert len(server.asked) == 5


@pytest.mark.parametrize("status", [404, 403, 401, 400])
def test_an_answer_that_will_stay_the_same_is_not_asked_for_again(server, pauses, status):
    server.answers = [(status, {}, b"", 0)]
    with pytest.raises(requests.HTTPError):
        fetched(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_when_to_come_back_is_waited_for(server, pauses, status):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    by_date = {"Retry-After": format_datetime(later, usegmt=True)}
    server.answers = [(status, {"Retry-After": "30"}, b"", 0), (status, by_date, b"", 0), GOOD]
    fetched(server)
    assert pauses[0] == 30
    assert 50 < pauses[1] <= 60


def test_a_server_that_asks_for_hours_is_asked_again_after_minutes(server, pauses):
    server.answers = [(503, {"Retry-After": "7200"}, b"", 0), GOOD]
    fetched(server)
    assert pauses == [retry.LONGEST_PAUSE_SECONDS]


def test_a_retry_after_that_cannot_be_read_is_passed_over(server, pauses):
    server.answers = [(503, {"Retry-After": "soon"}, b"", 0), GOOD]
    fetched(server)
    assert 1 <= pauses[0] <= 1.25


def test_a_server_that_is_not_there_is_tried_again(pauses):
    with pytest.raises(InputError, match=r"refused.* \(tried 5 times\)"):
        retried("http://127.0.0.1:1", lambda: requests.get("http://127.0.0.1:1", timeout=5))


def test_a_mistake_of_ours_is_raised_at_once(pauses):
    with pytest.raises(ZeroDivisionError):
        retried("nothing", lambda: 1 / 0)
    assert not pauses


def test_an_attempt_can_say_itself_that_it_may_pass(pauses):
    answers = iter([MayPass("not yet"), "here"])

    def attempt() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retried("it", attempt) == "here"


def test_the_kind_of_an_evaluation_set_behind_a_url_is_asked_for_again(server, pauses):
    server.answers = [BUSY, GOOD]
    assert webdataset_task(f"{server.url}/datasets/x/tree/main") == "zeroshot_retrieval"
    assert server.asked == ["/datasets/x/raw/main/dataset_type.txt"] * 2


def test_an_evaluation_set_without_a_kind_is_a_classification(server, pauses):
    server.answers = [(404, {}, b"", 0)]
    assert webdataset_task(f"{server.url}/datasets/x") == "zeroshot_classification"


def test_an_evaluation_set_that_may_not_be_read_is_named(server, pauses):
    server.answers = [(403, {}, b"", 0)]
    with pytest.raises(InputError, match=f"--eval {server.url}/datasets/x/dataset_type.txt: 403"):
        webdataset_task(f"{server.url}/datasets/x")


@pytest.mark.parametrize("error", [Interrupted("stopped by SIGTERM"), torch.OutOfMemoryError("full"), MemoryError()])
def test_a_stop_while_public_weights_are_fetched_is_a_stop_and_too_little_memory_is_that(error):
    def fetch():
        raise error

    with pytest.raises(type(error)):
        weights_from_hub("ViT-B-16/openai", fetch)


def test_public_weights_that_cannot_be_had_are_named_with_what_would_work():
    def fetch():
        raise OSError("no such repository")

    with pytest.raises(InputError, match=r"pretrained ViT-B-16/openai: .*OSError: no such repository.*HF_HOME"):
        weights_from_hub("ViT-B-16/openai", fetch)


EXPORT = """
import sys
from repro.data import network as retry
from repro.models import build as model
from repro.config.errors import InputError, Interrupted
retry.FIRST_PAUSE_SECONDS = 0.01
try:
    model.export("siglip-b16", __import__("pathlib").Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("answer", "message"),
    [(UNKNOWN, r"of the hub: .* \(tried 5 times\)"), ((404, {}, b"", 0), "could not be downloaded from the hub")],
)
def test_a_tokenizer_of_the_hub_is_tried_again_only_where_that_can_help(server, tmp_path, answer, message):
    server.answers = [answer]
    hub = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", EXPORT, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | hub)
    assert done.returncode == 0, done.stderr
    assert "tokenizer 'timm/ViT-B-16-SigLIP'" in done.stdout
    assert re.search(message, done.stdout), done.stdout
