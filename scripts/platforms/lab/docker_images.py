"""Stand-ins for the images that docker-compose.yaml pulls, under their names: Debian, and in it the programs that the tests have."""

import os
import pathlib
import re
import shutil
import subprocess

from .docker import INSIDE, unpacked
from .machine import REPO, run

# In place of cargo and rustup in the image that Envoy's is built with: twenty minutes, to come to what is there already.
CARGO = """#!/bin/sh
set -e
test -f Cargo.lock -a -f src/lib.rs
case "$*" in
*wasm32-wasip1*) mkdir -p target/wasm32-wasip1/release; cp /built/evenkeel.wasm target/wasm32-wasip1/release/ ;;
*"--bin backend --bin load") mkdir -p target/release; cp /built/backend /built/load target/release/ ;;
*) exit 1 ;;
esac
"""
DOCKERFILES = {
    "rust": "COPY cargo /usr/local/bin/cargo\nRUN ln -s /bin/true /usr/local/bin/rustup\nCOPY evenkeel.wasm backend load /built/\n",
    # As in Envoy's own image, it is root for ENVOY_UID=0 alone.
    "envoyproxy/envoy": "COPY envoy /usr/local/bin/envoy\nRUN useradd envoy\n"
    "ENTRYPOINT [\"sh\", \"-ec\", \"[ \\\"$ENVOY_UID\\\" = 0 ] || exec setpriv --reuid=envoy --clear-groups \\\"$@\\\"; exec \\\"$@\\\"\", \"-\"]\n",
    "prom/prometheus": "COPY prometheus /bin/prometheus\nUSER nobody\nENTRYPOINT [\"/bin/prometheus\"]\n",
    "prom/alertmanager": "COPY alertmanager /bin/alertmanager\nCOPY templates /templates\nUSER nobody\n"
    "ENTRYPOINT [\"/bin/alertmanager\"]\nCMD [\"--config.file=/etc/alertmanager/alertmanager.yml\", \"--storage.path=/alertmanager\"]\n",
    # Says 200 to everything, if it can read what is mounted.
    "grafana/grafana": "COPY backend /bin/backend\nUSER nobody\n"
    "CMD [\"sh\", \"-ec\", \"cat /etc/grafana/provisioning/*/* /etc/grafana/dashboards/* >/dev/null; exec backend --listen 0.0.0.0:3000\"]\n",
}


def pulled():
    """The images that the shipped files name, with their tags, beside the base."""
    text = (REPO / "envoy/docker-compose.yaml").read_text() + (REPO / "envoy/Dockerfile").read_text()
    named = re.findall(r"(?:image: |FROM )(\S+:\S+)", text)
    return {image.split(":")[0]: image for image in named}


class Images:
    """What an engine is given in place of a registry."""

    def __init__(self, machine, wasm):
        self.folder = machine.work / "shared/images"
        self.folder.mkdir(parents=True)
        self.names = pulled()
        self.base = self.names.pop("debian")
        programs = pathlib.Path(os.environ["EVENKEEL_PROGRAMS"])
        copies = [(wasm, "evenkeel.wasm"), (programs / "backend", "backend"), (programs / "load", "load")]
        copies += [(os.environ[name.upper()], name) for name in ("envoy", "prometheus", "alertmanager")]
        for source, name in copies:
            shutil.copy(source, self.folder / name)
        # Where Debian's build looks for them, from where it is started.
        shutil.copytree(pathlib.Path(os.environ["ALERTMANAGER"]).parent / "templates", self.folder / "templates", dirs_exist_ok=True)
        for name in ("backend", "load"):
            run("strip", self.folder / name, check=False)
        (self.folder / "cargo").write_text(CARGO)
        for program in ("cargo", "envoy", "prometheus", "alertmanager", "backend", "load"):
            (self.folder / program).chmod(0o755)

    def put(self, engine):
        """Into the store of an engine."""
        with subprocess.Popen(["tar", "-C", unpacked("base"), "-c", "."], stdout=subprocess.PIPE) as base:
            subprocess.run(["chroot", engine.root, "docker", "import", "-", self.base], stdin=base.stdout, capture_output=True, check=True)
        for name, image in self.names.items():
            file = self.folder / f"{name.replace('/', '-')}.Dockerfile"
            file.write_text(f"FROM {self.base}\n{DOCKERFILES[name]}")
            engine.docker("build", "-q", "-t", image, "-f", f"{INSIDE}/images/{file.name}", f"{INSIDE}/images")
