"""A stand-in for the API server of Kubernetes: api.py PORT keeps objects, lists and watches them.

No admission, validation, defaults or controllers: enough for control planes that read resources and write in JSON, and for kubectl.
lab/standin.py plays the controllers."""

import http.server
import json
import queue
import sys
import threading
import time
import urllib.parse
import uuid

from api_kinds import PATH, defined, json_patched, matches, merged, resources, review

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
lock = threading.RLock()
objects, watchers, clock = {}, [], [1]


def tell(what, store, item):
    for watched, space, events in watchers:
        if watched == store and space in (None, item["metadata"].get("namespace")):
            events.put((what, item))


def keep(store, key, item):
    """Keeps an object under a new version, and tells those that watch."""
    clock[0] += 1
    meta, old = item["metadata"], objects.setdefault(store, {}).get(key)
    meta["resourceVersion"] = str(clock[0])
    meta.setdefault("uid", str(uuid.uuid4()))
    meta.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    if not old or old.get("spec") != item.get("spec"):
        meta["generation"] = (old["metadata"].get("generation", 0) if old else 0) + 1
    if store == ("apiextensions.k8s.io", "customresourcedefinitions"):
        item["status"] = defined(item)
    objects[store][key] = item
    tell("MODIFIED" if old else "ADDED", store, item)
    return item


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fault(self, status, reason):
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": f"{reason}: {self.path}", "code": status}
        self.reply(told, status)

    def dispatch(self):
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        text = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.discovery(path.rstrip("/")):
            return
        if "protobuf" in self.headers.get("content-type", "") and text:
            self.fault(415, "UnsupportedMediaType")
            return
        self.body = json.loads(text) if text else None
        at = PATH.fullmatch(path.rstrip("/"))
        group_version = at and (at["core"] or f"{at['group']}/{at['version']}")
        resource = at and resources.get(group_version, {}).get(at["plural"])
        if not resource:
            self.fault(404, "NotFound")
            return
        self.group_version, (self.kind, _), self.at = group_version, resource, at
        self.store = (at["group"] or "", at["plural"])
        with lock:
            watcher = self.act()
        if watcher:
            self.stream(watcher)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = dispatch

    def discovery(self, path):
        group_version = path.removeprefix("/apis/").removeprefix("/api/")
        if path in ("/readyz", "/healthz", "/livez"):
            self.reply(b"ok")
        elif path == "/version":
            self.reply({"major": "1", "minor": "36", "gitVersion": "stand-in"})
        elif path == "/api":
            self.reply({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            groups = {}
            for group_version in list(resources):
                group, slash, version = group_version.partition("/")
                if slash:
                    groups.setdefault(group, []).append({"groupVersion": group_version, "version": version})
            listed = [{"name": group, "versions": versions, "preferredVersion": versions[0]} for group, versions in groups.items()]
            self.reply({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        elif group_version in resources:
            listed = [
                {"name": plural + part, "singularName": kind.lower(), "kind": kind, "namespaced": namespaced, "verbs": VERBS}
                for plural, (kind, namespaced) in list(resources[group_version].items())
                for part in ("", "/status")
            ]
            self.reply({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed})
        else:
            return False
        return True

    def partial(self):
        return "as=PartialObjectMetadata" in self.headers.get("accept", "")

    def shown(self, item):
        """The object in the version that was asked for, as metadata alone where that was."""
        if self.partial():
            return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": item["metadata"]}
        return item | {"apiVersion": self.group_version, "kind": self.kind}

    def here(self, kept):
        return [item for (space, _), item in kept.items() if self.at["space"] in (None, space)]

    def act(self):
        at, body, kept = self.at, self.body, objects.setdefault(self.store, {})
        key = (at["space"] or "", at["name"])
        if self.command == "GET" and not at["name"]:
            if self.query.get("watch") in ("true", "1"):
                return self.watch(kept)
            kind, version = ("PartialObjectMetadata", "meta.k8s.io/v1") if self.partial() else (self.kind, self.group_version)
            items = [self.shown(item) for item in self.here(kept) if matches(item, self.query)]
            self.reply({"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": str(clock[0])}, "items": items})
        elif self.command == "POST" and self.kind.endswith("Review"):
            self.reply(body | {"status": review(self.kind, body)}, 201)
        elif self.command == "POST" or (self.command == "PATCH" and key not in kept and "apply-patch" in self.headers["content-type"]):
            self.create(kept)
        elif key not in kept:
            self.fault(404, "NotFound")
        elif self.command == "GET":
            self.reply(self.shown(kept[key]))
        elif self.command == "DELETE":
            item = kept.pop(key)
            clock[0] += 1
            item["metadata"]["resourceVersion"] = str(clock[0])
            tell("DELETED", self.store, item)
            self.reply({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        else:
            self.change(key, json.loads(json.dumps(kept[key])))
        return None

    def create(self, kept):
        meta = self.body["metadata"]
        meta["name"] = meta.get("name") or meta["generateName"] + uuid.uuid4().hex[:5]
        if self.at["space"]:
            meta["namespace"] = self.at["space"]
        key = (self.at["space"] or "", meta["name"])
        if key in kept:
            self.fault(409, "AlreadyExists")
        else:
            self.reply(self.shown(keep(self.store, key, self.body)), 201)

    def change(self, key, old):
        content, version = self.headers.get("content-type", ""), old["metadata"]["resourceVersion"]
        if self.command == "PUT":
            new = self.body
            if new["metadata"].get("resourceVersion", version) != version:
                self.fault(409, "Conflict")
                return
        elif "json-patch" in content:
            new = json_patched(json.loads(json.dumps(old)), self.body)
        else:
            new = merged(old, self.body)
        # A status changes by itself, and the rest without it.
        if self.at["sub"] == "status":
            new = old | {"status": new.get("status")}
        elif "status" in old:
            new = new | {"status": old["status"]}
        kept = ("uid", "creationTimestamp", "generation", "resourceVersion")
        new["metadata"] = new["metadata"] | {field: old["metadata"][field] for field in kept if field in old["metadata"]}
        self.reply(self.shown(old if new == old else keep(self.store, key, new)))

    def watch(self, kept):
        events, since = queue.Queue(), self.query.get("resourceVersion") or "0"
        initial = self.query.get("sendInitialEvents") == "true" or since == "0"
        for item in self.here(kept):
            if initial or int(item["metadata"]["resourceVersion"]) > int(since):
                events.put(("ADDED" if initial else "MODIFIED", item))
        if self.query.get("sendInitialEvents") == "true":
            end = {"resourceVersion": str(clock[0]), "annotations": {"k8s.io/initial-events-end": "true"}}
            events.put(("BOOKMARK", {"metadata": end}))
        watcher = (self.store, self.at["space"], events)
        watchers.append(watcher)
        return watcher

    def stream(self, watcher):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        end = time.time() + float(self.query.get("timeoutSeconds", 3600))
        try:
            while (left := end - time.time()) > 0:
                try:
                    what, item = watcher[2].get(timeout=left)
                except queue.Empty:
                    break
                if what == "BOOKMARK" or matches(item, self.query):
                    line = json.dumps({"type": what, "object": self.shown(item)}).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            with lock:
                watchers.remove(watcher)


http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
