"""Kubernetes without its own programs: lab/api.py keeps the objects, this plays the controllers that matter here."""

import os

from .api_kinds import token
from .kubernetes import Kubernetes
from .machine import program, run, until

PORT = 6443
KUBECONFIG = f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{PORT}"}}}}]
users: [{{name: u, user: {{}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


class StandIn(Kubernetes):
    """The same for its users. Endpoints follow pods at once."""

    def certificates(self):
        self.kubeconfig.write_text(KUBECONFIG)
        self.services, self.labels = {}, {}

    def control_plane(self):
        self.machine.python("api", "api.py", PORT)
        until("the API's stand-in", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        self.space("default", "kube-system")

    def kubectl(self, verb, *arguments, text=None, check=True):
        # There is no schema to validate by.
        unchecked = ["--validate=false"] if verb == "apply" else []
        return run(program("kubectl"), "--kubeconfig", self.kubeconfig, verb, *unchecked, *arguments, text=text, check=check)

    def crds(self, file):
        self.kubectl("apply", "--server-side", "-f", file)

    def token(self, space, account, audience):
        return token(space, account, [audience])

    def service(self, space, name, port, headless=False, protocol="http", **selector):
        self.services[space, name] = (port, protocol, selector or {"app": name})
        address = super().service(space, name, port, headless, protocol, **selector)
        self.list_endpoints()
        return address

    def defaults(self, service):
        address = service.get("clusterIP") or f"10.96.0.{len(self.services)}"
        return service | {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address]}

    def pod(self, space, name, labels, port=8080, ready=True, node="near"):
        self.labels[name] = (labels, node)
        return super().pod(space, name, labels, port, ready, node)

    def ready(self, name, ready=True):
        super().ready(name, ready)
        self.labels[name] = (*self.labels[name][:2], ready)
        self.list_endpoints()

    def forget(self, name):
        super().forget(name)
        self.list_endpoints()

    def list_endpoints(self):
        """What the EndpointSlice controller does."""
        for (space, service), (port, protocol, selector) in self.services.items():
            endpoints = []
            for pod, (home, address) in self.pods.items():
                labels, node, ready = self.labels[pod]
                if home == space and selector.items() <= labels.items():
                    endpoints.append({
                        "addresses": [address],
                        "conditions": {"ready": ready, "serving": ready, "terminating": False},
                        "nodeName": node,
                        "zone": f"{node}-1",
                        "targetRef": {"kind": "Pod", "name": pod, "namespace": space},
                    })
            self.apply({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{service}-1", "namespace": space, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{"name": protocol, "port": port, "protocol": "TCP"}],
            })

    def version(self):
        return "by a stand-in for its API server"


def cluster(machine):
    """The stand-in, or the real one where that is asked for."""
    return Kubernetes(machine) if os.environ.get("KUBERNETES") == "real" else StandIn(machine)
