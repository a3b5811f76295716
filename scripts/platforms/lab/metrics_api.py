"""Stands in for prometheus-adapter and metrics-server: metrics_api.py PORT CERTIFICATE KEY RULES PROMETHEUS PODS.

External metrics as the rules of prometheus-adapter's configuration (as JSON) make them of what Prometheus has; the processor time of
pods from their processes, which the file PODS lists: {"NAMESPACE": {"POD": PROCESS}}."""

import datetime
import http.server
import json
import os
import pathlib
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PORT, CERTIFICATE, KEY, RULES, PROMETHEUS, PODS = sys.argv[1:7]
EXTERNAL, RESOURCE = "/apis/external.metrics.k8s.io/v1beta1", "/apis/metrics.k8s.io/v1beta1"
RULES = json.loads(pathlib.Path(RULES).read_text())["externalRules"]
used = {}


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def asked(path, **query):
    with urllib.request.urlopen(f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=5) as answer:
        return json.load(answer)["data"]


def external(name):
    """The values of a metric; nothing where no series makes one of this name."""
    for rule in RULES:
        series = asked("series", **{"match[]": rule["seriesQuery"], "start": time.time() - 20})
        names = {re.sub(rule["name"]["matches"], rule["name"]["as"], one["__name__"], count=1) for one in series}
        if name in names:
            found = asked("query", query=rule["metricsQuery"])["result"]
            return [{"metricName": name, "metricLabels": one["metric"], "timestamp": now(), "value": one["value"][1]} for one in found]
    return None


def milliseconds(process):
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def pods(space):
    """What each pod used since it was asked for before, in thousandths of a processor."""
    for pod, process in json.loads(pathlib.Path(PODS).read_text()).get(space, {}).items():
        try:
            time_then, spent_then = used.get(pod, (0, 0))
            time_now, spent = time.monotonic(), milliseconds(process)
        except OSError:
            continue
        used[pod] = (time_now, spent)
        if time_then:
            usage = {"cpu": f"{1000 * (spent - spent_then) / 1000 / (time_now - time_then):.0f}m", "memory": "20Mi"}
            yield {
                "metadata": {"name": pod, "namespace": space},
                "timestamp": now(),
                "window": "5s",
                "containers": [{"name": "app", "usage": usage}],
            }


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, body, status=200):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path = self.path.partition("?")[0].rstrip("/")
        found = re.fullmatch(f"(?P<group>{EXTERNAL}|{RESOURCE})(?:/namespaces/(?P<space>[^/]+)/(?P<name>[^/]+))?", path)
        if not found:
            self.fault(404, "NotFound")
            return
        group = found["group"]
        try:
            if not found["space"]:
                named = [{"name": "pods", "kind": "PodMetrics"}] if group == RESOURCE else [
                    {"name": rule["name"]["as"], "kind": "ExternalMetricValueList"} for rule in RULES]
                listed = [one | {"singularName": "", "namespaced": True, "verbs": ["get", "list"]} for one in named]
                self.reply({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group.removeprefix("/apis/"), "resources": listed})
                return
            kind, items = ("PodMetricsList", list(pods(found["space"]))) if group == RESOURCE else ("ExternalMetricValueList", external(found["name"]))
        except (urllib.error.URLError, OSError) as error:
            self.fault(500, f"{error}")
            return
        if items is None:
            self.fault(404, "NotFound")
        else:
            self.reply({"kind": kind, "apiVersion": group.removeprefix("/apis/"), "metadata": {}, "items": items})

    def fault(self, status, reason):
        self.reply({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": f"{reason}: {self.path}", "code": status}, status)


server = http.server.ThreadingHTTPServer(("0.0.0.0", int(PORT)), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
