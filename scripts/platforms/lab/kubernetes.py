"""Kubernetes as far as a control plane sees it: lab/api.py keeps the objects, a pod is a network namespace, and this test plays the
kubelet and the controller of endpoints."""

import json

from .api_kinds import token
from .machine import GATE, program, run, until

PORT = 6443
KUBECONFIG = f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{PORT}"}}}}]
users: [{{name: u, user: {{}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""


class Kubernetes:
    """The cluster, and the pods that this test lets run."""

    def __init__(self, machine):
        self.machine, self.work = machine, machine.work / "kubernetes"
        self.kubeconfig = self.work / "kubeconfig"
        self.services, self.pods, self.labels = {}, {}, {}
        self.work.mkdir()
        self.kubeconfig.write_text(KUBECONFIG)
        self.machine.python("api", "api.py", PORT)
        until("the API", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        self.space("default", "kube-system")
        self.node("near", "near")
        self.node("far", "far")

    def kubectl(self, verb, *arguments, text=None, check=True):
        # There is no schema to validate by.
        unchecked = ["--validate=false"] if verb == "apply" else []
        return run(program("kubectl"), "--kubeconfig", self.kubeconfig, verb, *unchecked, *arguments, text=text, check=check)

    def get(self, *arguments):
        """An object as JSON; nothing where there is none."""
        found = self.kubectl("get", *arguments, "-o", "json", check=False)
        return json.loads(found) if found else None

    def apply(self, text):
        return self.kubectl("apply", "-f", "-", text=text if isinstance(text, str) else json.dumps(text))

    def delete(self, text):
        return self.kubectl("delete", "--ignore-not-found", "-f", "-", text=text if isinstance(text, str) else json.dumps(text))

    def crds(self, file):
        """Custom resource definitions; some are larger than what a plain `apply` may note down."""
        self.kubectl("apply", "--server-side", "-f", file)

    def space(self, *names):
        for name in names:
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def token(self, space, account, audience):
        return token(space, account, [audience])

    def node(self, name, region):
        """A node in a region of its own; pods are bound to it by name."""
        labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": f"{region}-1"}
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})

    def service(self, space, name, port, headless=False, **selector):
        """A service; its address, which leads somewhere where a sidecar takes what is sent to it."""
        selector = selector or {"app": name}
        self.services[space, name] = (port, selector)
        address = "None" if headless else f"10.96.0.{len(self.services)}"
        ports = [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}]
        spec = {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "selector": selector, "ports": ports}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": space}, "spec": spec})
        self.list_endpoints()
        return address

    def pod(self, space, name, labels, port=8080, node="near"):
        """A pod that runs in a network namespace of its name; its address."""
        address = self.machine.namespace(name)
        self.apply({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": space, "labels": labels},
            "spec": {
                "nodeName": node,
                "serviceAccountName": "default",
                "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": port}]}],
            },
        })
        self.pods[name] = (space, address)
        self.labels[name] = (labels, node)
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": GATE,
            "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")],
        }
        self.kubectl("patch", "pod", name, "-n", space, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        self.list_endpoints()
        return address

    def forget(self, name):
        """Deletes the pod's object, as when it ends; its processes go on until they are stopped."""
        space, _ = self.pods.pop(name)
        self.kubectl("delete", "pod", name, "-n", space, "--grace-period=0", "--force", check=False)
        self.list_endpoints()

    def endpoints(self, space, service):
        """The addresses that are listed for a service."""
        slices = self.get("endpointslices", "-n", space, "-l", f"kubernetes.io/service-name={service}") or {"items": []}
        return {address for item in slices["items"] for endpoint in item["endpoints"] for address in endpoint["addresses"]}

    def list_endpoints(self):
        """What the controller of EndpointSlices does."""
        for (space, service), (port, selector) in self.services.items():
            endpoints = [
                {
                    "addresses": [address],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": self.labels[pod][1],
                    "zone": f"{self.labels[pod][1]}-1",
                    "targetRef": {"kind": "Pod", "name": pod, "namespace": space},
                }
                for pod, (home, address) in self.pods.items()
                if home == space and selector.items() <= self.labels[pod][0].items()
            ]
            self.apply({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{service}-1", "namespace": space, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            })


def authority(path, name):
    """A certificate authority of the test's own."""
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", f"/CN={name}",
        "-keyout", f"{path}.key", "-out", f"{path}.crt")


def certificate(path, authority_path, name):
    """A certificate for a host name."""
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
        "-keyout", f"{path}.key", "-out", f"{path}.csr")
    run("openssl", "x509", "-req", "-in", f"{path}.csr", "-CA", f"{authority_path}.crt", "-CAkey", f"{authority_path}.key",
        "-CAcreateserial", "-days", "365", "-copy_extensions", "copy", "-out", f"{path}.crt")
