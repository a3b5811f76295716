"""What scales a Deployment: KEDA's operator and metrics adapter, or a stand-in for prometheus-adapter beside the controller manager."""

import base64
import json

from .kubernetes import authority, certificate
from .machine import GATE, built_file, listens, program, until

EXTERNAL = "v1beta1.external.metrics.k8s.io"


def leading_here(kubernetes, space, name, port):
    """A service whose requests come out at a port of this machine."""
    ports = [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]
    kubernetes.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": space}, "spec": {"ports": ports}})
    kubernetes.apply({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-here", "namespace": space, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [GATE], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })


def serves(kubernetes, group):
    """Waits until the API server has the group."""
    until(f"the API {group}", lambda: kubernetes.kubectl("get", "--raw", f"/apis/{group}", check=False), 90)


class Keda:
    """The operator, which makes the certificates of both, and the adapter."""

    def __init__(self, kubernetes):
        self.kubernetes, self.machine = kubernetes, kubernetes.machine
        self.work = self.machine.work / "keda"
        (self.work / "certs").mkdir(parents=True)
        account = self.work / "secrets/kubernetes.io/serviceaccount"
        account.mkdir(parents=True)
        (account / "namespace").write_text("keda")
        kubernetes.crds(built_file("keda-crds.yaml"))
        kubernetes.space("keda")
        leading_here(kubernetes, "keda", "keda-metrics-apiserver", 6444)
        kubernetes.kubectl("apply", "-f", built_file("keda-api-service.yaml"))
        self.machine.call("keda-operator.keda.svc.cluster.local")
        self.operator()
        found = until("KEDA's certificates", self.certificates, 90)
        for file, value in found.items():
            (self.work / "certs" / file).write_bytes(base64.b64decode(value))
        certs = self.work / "certs"
        config = [f"--{kind}kubeconfig={kubernetes.kubeconfig}" for kind in ("", "lister-", "authentication-", "authorization-")]
        self.adapter = self.machine.start("keda-adapter", program("keda-adapter"), "--secure-port=6444", f"--client-ca-file={certs}/ca.crt",
            f"--tls-cert-file={certs}/tls.crt", f"--tls-private-key-file={certs}/tls.key", f"--cert-dir={certs}", "--port=18090",
            "--metrics-service-address=keda-operator.keda.svc.cluster.local:9666", *config, environment=self.environment(), mounts=self.mounts())
        serves(kubernetes, "external.metrics.k8s.io/v1beta1")

    def environment(self):
        return {"KUBECONFIG": self.kubernetes.kubeconfig, "POD_NAMESPACE": "keda", "POD_NAME": "keda-operator", "WATCH_NAMESPACE": ""}

    def mounts(self):
        return [(self.work / "certs", "/certs"), (self.work / "secrets", "/run/secrets")]

    def operator(self):
        """It ends once it has made its certificates, and is started again, as a Deployment would."""
        command = [program("keda-operator"), "--leader-elect=false", "--enable-cert-rotation=true", "--metrics-bind-address=:18088",
            "--health-probe-bind-address=:18089"]
        again = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh", *command]
        self.process = self.machine.start("keda-operator", *again, environment=self.environment(), mounts=self.mounts())

    def away(self):
        """Leaves external metrics to another adapter: there can be one."""
        self.machine.stop(self.process)
        self.machine.stop(self.adapter)
        self.kubernetes.kubectl("delete", "apiservice", EXTERNAL)

    def certificates(self):
        data = (self.kubernetes.get("secret", "kedaorg-certs", "-n", "keda") or {}).get("data") or {}
        return data if {"ca.crt", "tls.crt", "tls.key"} <= data.keys() else None


class Adapter:
    """The stand-in for prometheus-adapter and metrics-server, with the rules of the shipped file."""

    def __init__(self, kubernetes, rules, prometheus, processes):
        self.machine, self.processes = kubernetes.machine, processes
        self.work = self.machine.work / "adapter"
        self.work.mkdir()
        authority(self.work / "ca", "adapter-ca")
        certificate(self.work / "server", self.work / "ca", "prometheus-adapter.monitoring.svc")
        (self.work / "rules.json").write_text(kubernetes.as_json("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: rules }\n" + rules))
        self.listed()
        self.machine.python("adapter", "metrics_api.py", 6445, self.work / "server.crt", self.work / "server.key", self.work / "rules.json",
            f"http://{prometheus.address}:9090", self.work / "pods.json")
        until("the adapter", lambda: listens(GATE, 6445))
        leading_here(kubernetes, "monitoring", "prometheus-adapter", 6445)
        for group in ("external.metrics.k8s.io", "metrics.k8s.io"):
            kubernetes.apply({
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"v1beta1.{group}"},
                "spec": {
                    "service": {"name": "prometheus-adapter", "namespace": "monitoring"},
                    "group": group,
                    "version": "v1beta1",
                    "insecureSkipTLSVerify": True,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                },
            })
            serves(kubernetes, f"{group}/v1beta1")

    def listed(self):
        """Tells the stand-in of the pods that run."""
        new = self.work / "pods.new"
        new.write_text(json.dumps({"shop": self.processes()}))
        new.rename(self.work / "pods.json")
