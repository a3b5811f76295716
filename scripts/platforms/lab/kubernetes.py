"""A real API server with etcd and the controller manager. This test plays the kubelet: a pod is a network namespace."""

import json

from .machine import GATE, program, run, until

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
TOKEN = "admin-of-this-test"


class Kubernetes:
    """The cluster, and the pods that this test lets run."""

    def __init__(self, machine):
        self.machine, self.work = machine, machine.work / "kubernetes"
        self.kubeconfig = self.work / "kubeconfig"
        self.pods = {}
        (self.work / "pki").mkdir(parents=True)
        self.certificates()
        self.control_plane()
        self.node("near", "near")
        self.node("far", "far")

    def certificates(self):
        self.kubeconfig.write_text(KUBECONFIG % TOKEN)
        pki = self.work / "pki"
        run("openssl", "genrsa", "-out", pki / "sa.key", "2048")
        run("openssl", "rsa", "-in", pki / "sa.key", "-pubout", "-out", pki / "sa.pub")
        (pki / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        # For aggregated APIs such as external metrics: the API server's certificate as a proxy.
        authority(pki / "proxy-ca", "front-proxy-ca")
        certificate(pki / "proxy", pki / "proxy-ca", "front-proxy")

    def control_plane(self):
        start, pki = self.machine.start, self.work / "pki"
        start("etcd", program("etcd"), "--data-dir", self.work / "data", "--log-level", "warn",
            "--listen-client-urls", "http://127.0.0.1:12379", "--advertise-client-urls", "http://127.0.0.1:12379",
            "--listen-peer-urls", "http://127.0.0.1:12380", "--unsafe-no-fsync")
        start("kube-apiserver", program("kube-apiserver"), "--etcd-servers=http://127.0.0.1:12379", "--secure-port=6443",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={self.work}/pki/api",
            "--service-cluster-ip-range=10.96.0.0/16", f"--token-auth-file={pki}/tokens.csv",
            f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount", "--enable-aggregator-routing=true",
            f"--requestheader-client-ca-file={pki}/proxy-ca.crt", "--requestheader-allowed-names=front-proxy",
            f"--proxy-client-cert-file={pki}/proxy.crt", f"--proxy-client-key-file={pki}/proxy.key",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User")
        until("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        start("kube-controller-manager", program("kube-controller-manager"), f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={pki}/sa.key", "--leader-elect=false", "--bind-address=127.0.0.1",
            "--controllers=*,-nodelifecycle,-nodeipam,-service-lb-controller", "--horizontal-pod-autoscaler-sync-period=5s")

    def kubectl(self, *arguments, text=None, check=True):
        return run(program("kubectl"), "--kubeconfig", self.kubeconfig, *arguments, text=text, check=check)

    def get(self, *arguments):
        """An object as JSON; nothing where there is none."""
        found = self.kubectl("get", *arguments, "-o", "json", check=False)
        return json.loads(found) if found else None

    def apply(self, text, *options):
        return self.kubectl("apply", *options, "-f", "-", text=text if isinstance(text, str) else json.dumps(text))

    def as_json(self, text):
        """YAML as JSON, as kubectl reads it; it wants a kind in it."""
        return self.kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-", text=text)

    def delete(self, text, *options):
        return self.kubectl("delete", "--ignore-not-found", *options, "-f", "-", text=text if isinstance(text, str) else json.dumps(text))

    def crds(self, file):
        """Custom resource definitions; those of Envoy Gateway are larger than what `apply` may note down."""
        self.kubectl("apply", "--server-side", "-f", file)
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def space(self, *names):
        for name in names:
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def service(self, space, name, port, headless=False, protocol="http", **selector):
        """A service; its address, which leads somewhere where a sidecar takes what is sent to it."""
        ports = [{"name": protocol, "port": port, "targetPort": port, "protocol": "TCP"}]
        spec = {"selector": selector or {"app": name}, "ports": ports, **({"clusterIP": "None"} if headless else {})}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": space}, "spec": self.defaults(spec)})
        return self.get("service", name, "-n", space)["spec"]["clusterIP"]

    def defaults(self, service):
        """What the API server adds to a service by itself."""
        return service

    def node(self, name, region):
        """A node in a region of its own; pods are bound to it by name."""
        labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": f"{region}-1"}
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})

    def pod(self, space, name, labels, port=8080, ready=True, node="near"):
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
        self.ready(name, ready)
        return address

    def ready(self, name, ready=True):
        """What a kubelet would say of the pod."""
        space, address = self.pods[name]
        state = "True" if ready else "False"
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": GATE,
            "conditions": [{"type": kind, "status": state} for kind in ("Ready", "ContainersReady")],
        }
        self.kubectl("patch", "pod", name, "-n", space, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def forget(self, name):
        """Deletes the pod's object, as when it ends; its processes go on until they are stopped."""
        space, _ = self.pods.pop(name)
        self.kubectl("delete", "pod", name, "-n", space, "--grace-period=0", "--force", check=False)

    def endpoints(self, space, service):
        """The addresses that the endpoint controller has made of the pods."""
        slices = self.get("endpointslices", "-n", space, "-l", f"kubernetes.io/service-name={service}") or {"items": []}
        return {address for item in slices["items"] for endpoint in item["endpoints"] or []
            if endpoint["conditions"].get("ready") for address in endpoint["addresses"]}

    def token(self, space, account, audience):
        until("the service account", lambda: self.get("serviceaccount", account, "-n", space))
        return self.kubectl("-n", space, "create", "token", account, "--audience", audience, "--duration", "24h")

    def version(self):
        return json.loads(self.kubectl("get", "--raw", "/version"))["gitVersion"]


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
