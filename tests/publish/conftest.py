"""A folder of tables, and a hub on this machine that speaks as much of the Hugging Face API as publishing needs."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.report.conftest import sweep_table

TOKEN = "hf_" + "abcdefghij" * 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """results/ with the table of one sweep, in a folder that commands start in; there are no runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    sweep_table((64, 128), seeds=(0, 1)).to_csv(tmp_path / "results/batch-size.csv", index=False)
    return tmp_path / "results"


class Hub(BaseHTTPRequestHandler):
    """What a hub holds is the server's: repos {name: {path: content}}, commits, refuse (a status for all), heard."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, self.headers["Authorization"]))
        if self.server.refuse:
            self._answer(self.server.refuse, {"error": "refused"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            new = name not in self.server.repos
            self.server.repos.setdefault(name, {})
            self._answer(200 if new else 409, {"url": f"{self.server.url}/datasets/{name}", "id": name})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = self.server.repos[self._repo()]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": _oid(files, file["path"])}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": modes})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            sent = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
            self.server.repos[self._repo()] |= {path: base64.b64decode(text) for path, text in sent.items()}
            self.server.commits.append(sorted(sent))
            oid = f"{len(self.server.commits):040x}"
            self._answer(
                200,
                {
                    "commitUrl": f"{self.server.url}/datasets/{self._repo()}/commit/{oid}",
                    "commitOid": oid,
                    "pullRequestUrl": None,
                },
            )

    def do_GET(self):
        oid = f"{len(self.server.commits):040x}"
        self._answer(200, {"id": self._repo(), "sha": oid, "siblings": [], "tags": [], "private": False})

    def log_message(self, *_):
        pass

    def _repo(self):
        return "/".join(self.path.split("/")[3:5])

    def _answer(self, status, values):
        text = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _oid(files, path):
    """As git names a file's content."""
    if path not in files:
        return None
    return hashlib.sha1(b"blob %d\0" % len(files[path]) + files[path]).hexdigest()


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.repos, server.commits, server.heard, server.refuse = {}, [], [], 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)  # read when another test imported it
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("repro.data.network.pause_seconds", lambda *_: 0)
    yield server
    server.shutdown()
    server.server_close()
