"""A server on this machine that answers as the Hugging Face hub does, to uploads and downloads."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants, file_download

from tests.reference.file_server import serving

TOKEN = "hf_localtesttoken0000000"


class HubServer(ThreadingHTTPServer):
    """Keeps repositories in memory: ``repositories[name][branch]`` has files by name.

    Attributes:
        asked: ``(method, path)`` of each request.
        commits: what each commit said: repository, branch, message, files.
        refuse: a status to answer everything that writes with.
        private: which repositories were made private.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.private = {}, {}
        self.asked, self.commits, self.refuse = [], [], None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def revision(self, files):
        """A commit's name: a digest of what is in it."""
        content = b"".join(name.encode() + files[name] for name in sorted(files))
        return hashlib.sha1(content).hexdigest()

    def files_of(self, repository, revision):
        """Files of a branch or of a commit; None where there is no such thing."""
        branches = self.repositories.get(repository, {})
        if revision in branches:
            return branches[revision]
        commits = {self.revision(files): files for files in branches.values()}
        return commits.get(revision)


@contextmanager
def hub_on_this_machine(monkeypatch, cache):
    """Serve a hub that huggingface_hub asks in the place of the public one; `cache`: its folder."""
    with serving(HubServer) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # What huggingface_hub read of it when it was imported.
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            return self.answer({"name": "owner", "type": "user"})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            files = self.server.files_of(*found.groups())
            if files is None:
                return self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
            rows = [
                {"type": "file", "path": n, "size": len(b), "oid": ""} for n, b in files.items()
            ]
            return self.answer(rows)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, revision, name = found.groups()
            files = self.server.files_of(repository, revision)
            if files is None:
                return self.answer({"error": "Repository not found"}, 404, "RepoNotFound")
            if name not in files:
                return self.answer({"error": "Entry not found"}, 404, "EntryNotFound")
            return self.send_file(files, name)
        return self.answer({"error": "unknown"}, 404)

    def do_POST(self):
        self.server.asked.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.server.refuse or self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "You may not write here"}, self.server.refuse or 401)
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'owner'}/{wanted['name']}"
            known = name in self.server.repositories
            self.server.repositories.setdefault(name, {"main": {}})
            if not known:
                self.server.private[name] = "private" in (wanted.get("visibility"), *wanted)
            return self.answer({"url": f"{self.server.address}/{name}"}, 409 if known else 200)
        repository, action, branch = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", path
        ).groups()
        branches = self.server.repositories[repository]
        if action == "branch":
            known = branch in branches
            branches.setdefault(branch, dict(branches["main"]))
            return self.answer({}, 409 if known else 200)
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": name, **modes} for name in names]})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        branches[branch].update(files)
        self.server.commits.append((repository, branch, message, sorted(files)))
        oid = self.server.revision(branches[branch])
        url = f"{self.server.address}/{repository}/commit/{oid}"
        return self.answer({"success": True, "commitUrl": url, "commitOid": oid})

    def send_file(self, files, name):
        body = files[name]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.revision(files))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def answer(self, content, status=200, code=""):
        body = json.dumps(content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass
