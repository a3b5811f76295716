"""A registry of images: registry.py LAYOUTS FILES CERTIFICATE KEY serves the OCI layouts LAYOUTS/NAME:TAG over HTTPS, for pulling alone,
and the files of FILES below /files."""

import http.server
import json
import pathlib
import re
import ssl
import sys

LAYOUTS, FILES = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
ASKED = re.compile(r"/v2/(?P<name>[a-z0-9/-]+)/(?P<kind>manifests|blobs)/(?P<reference>[\w.:-]+)")


def found(name, kind, reference):
    """A blob's bytes and media type."""
    layouts = [folder for folder in LAYOUTS.iterdir() if folder.name.partition(":")[0] == name]
    if not reference.startswith("sha256:"):
        layouts = [folder for folder in layouts if folder.name == f"{name}:{reference}"]
    for folder in layouts:
        manifest = json.loads((folder / "index.json").read_text())["manifests"][0]
        digest = reference if reference.startswith("sha256:") else manifest["digest"]
        blob = folder / "blobs/sha256" / digest.removeprefix("sha256:")
        if blob.is_file():
            media_type = manifest["mediaType"] if kind == "manifests" else "application/octet-stream"
            return blob.read_bytes(), media_type, digest
    return None


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = ASKED.fullmatch(self.path)
        if self.path == "/v2/":
            self.reply(200, b"{}", {})
            return
        folder, _, file = self.path.rpartition("/")
        if folder == "/files" and (FILES / file).is_file():
            self.reply(200, (FILES / file).read_bytes(), {"content-type": "application/wasm"})
            return
        blob = asked and found(asked["name"], asked["kind"], asked["reference"])
        if not blob:
            self.reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', {"content-type": "application/json"})
            return
        data, media_type, digest = blob
        self.reply(200, data, {"content-type": media_type, "docker-content-digest": digest})

    do_HEAD = do_GET

    def reply(self, status, data, headers):
        self.send_response(status)
        for key, value in ({"content-length": str(len(data))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


server = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Registry)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
