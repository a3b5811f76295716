"""The registry that the shipped files name, registry.example.com, and what it holds."""

import hashlib
import json
import os
import pathlib
import shutil

from . import crashing
from .kubernetes import authority, certificate
from .machine import GATE, REPO, listens, run, until

HOST = "registry.example.com"


class Registry:
    """Pulling works while it is up. Programs of Go trust its certificate with `environment`."""

    def __init__(self, machine, wasm):
        self.machine, self.work = machine, machine.work / "registry"
        self.images = self.work / "images"
        self.images.mkdir(parents=True)
        authority(self.work / "ca", "registry-ca")
        certificate(self.work / "server", self.work / "ca", HOST)
        (self.work / "ca.crt").chmod(0o644)
        self.environment = {"SSL_CERT_FILE": self.work / "ca.crt"}
        machine.call(HOST)
        # The same as a plain file, for platforms that fetch code over HTTP; no agent has fetched `other.wasm` before.
        self.name, self.sum = HOST, hashlib.sha256(wasm.read_bytes()).hexdigest()
        self.files = self.work / "files"
        self.files.mkdir()
        for name in ("evenkeel.wasm", "other.wasm"):
            shutil.copy(wasm, self.files / name)
        # The native module, and what is none.
        module = pathlib.Path(os.environ["EVENKEEL_MODULE"])
        self.module_sum = hashlib.sha256(module.read_bytes()).hexdigest()
        shutil.copy(module, self.files / module.name)
        (self.files / "text.so").write_text("not a module\n")
        self.text_sum = hashlib.sha256((self.files / "text.so").read_bytes()).hexdigest()
        self.digest = self.image("evenkeel:0.1.0", wasm.read_bytes())
        # The same by a name that no agent has fetched before.
        self.image("evenkeel:0.1.1", wasm.read_bytes())
        # What is no module at all, and a filter that starts and whose every request ends its VM.
        self.image("evenkeel:text", b"not a module\n")
        self.image("evenkeel:crashing", crashing.module())
        self.process = None
        self.up()

    def image(self, name, wasm):
        """Packs a module as scripts/image does; the image's digest."""
        folder = self.work / "packing"
        source = self.work / "module.wasm"
        source.write_bytes(wasm if wasm[:4] == b"\0asm" else b"\0asm" + wasm)
        run(REPO / "scripts/image", source, folder, cwd=REPO)
        shutil.copytree(folder / "oci", self.images / name)
        return json.loads((folder / "oci/index.json").read_text())["manifests"][0]["digest"]

    def up(self):
        self.process = self.machine.python("registry", "registry.py", self.images, self.files, self.work / "server.crt", self.work / "server.key")
        until("the registry", lambda: listens(GATE, 443))

    def away(self):
        self.machine.stop(self.process)
