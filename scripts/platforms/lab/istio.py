"""The real istiod, and Istio's own agent with its own bootstrap and a stock Envoy in the place of Istio's proxy."""

import json
import os

from .machine import GATE, built_file, program, run, until

CALLED = "istiod.istio-system.svc"
MESH = """
defaultConfig: { discoveryAddress: "istiod.istio-system.svc:15012", proxyStatsMatcher: { inclusionRegexps: [".*evenkeel.*", ".*upstream_rq.*", ".*wasm.*"] }, extraStatTags: [upstream, reason, state, signal] }
rootNamespace: istio-system
trustDomain: cluster.local
"""
# A stock Envoy has none of Istio's own extensions.
WITHOUT_EXTENSIONS = {"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false"}
UID = 1337


class Istio:
    """A mesh under STRICT mTLS."""

    def __init__(self, kubernetes, registry):
        self.kubernetes, self.machine, self.registry = kubernetes, kubernetes.machine, registry
        self.work = self.machine.work / "istio"
        (self.work / "istiod").mkdir(parents=True)
        self.template = self.work / "bootstrap.json"
        self.template.write_bytes(built_file("istio-bootstrap.json").read_bytes())
        kubernetes.crds(built_file("istio-crds.yaml"))
        kubernetes.space("istio-system")
        self.machine.call(CALLED)
        self.istiod()
        until("Istio's certificate authority", lambda: kubernetes.get("configmap", "istio-ca-root-cert", "-n", "default"))

    def istiod(self):
        (self.work / "mesh.yaml").write_text(MESH)
        self.process = self.machine.start("istiod", program("istiod"), "discovery", "--kubeconfig", self.kubernetes.kubeconfig, "--registries", "Kubernetes",
            "--meshConfig", self.work / "mesh.yaml", "--domain", "cluster.local", "--grpcAddr", "0.0.0.0:15010", "--secureGRPCAddr",
            "0.0.0.0:15012", "--httpAddr", "127.0.0.1:18080", "--httpsAddr", "127.0.0.1:15017", "--monitoringAddr", "127.0.0.1:15014",
            "--ctrlz_address", "127.0.0.1", folder=self.work / "istiod", environment={
                "POD_NAMESPACE": "istio-system", "POD_NAME": "istiod-0", "SERVICE_ACCOUNT": "istiod", "CLUSTER_ID": "Kubernetes",
                "PILOT_CERT_PROVIDER": "istiod", "JWT_POLICY": "third-party-jwt", "ISTIOD_CUSTOM_HOST": CALLED,
                "INJECTION_WEBHOOK_CONFIG_NAME": "", "VALIDATION_WEBHOOK_CONFIG_NAME": "", **WITHOUT_EXTENSIONS})

    def away(self):
        """istiod ends; proxies go on with what they have."""
        self.machine.stop(self.process)

    def proxy(self, pod, labels, role="sidecar", drain="5s", settings=None):
        """Starts the agent in a pod's namespace; for a sidecar its traffic is redirected first. `settings` are the pod's own, as the annotation
        proxy.istio.io/config has them."""
        space, address = self.kubernetes.pods[pod]
        folder = self.work / pod
        for part in ("var/run/secrets/tokens", "var/run/secrets/istio", "etc/istio/proxy", "lib/data"):
            (folder / part).mkdir(parents=True)
        (folder / "var/run/secrets/tokens/istio-token").write_text(self.kubernetes.token(space, "default", "istio-ca"))
        found = until("the root certificate", lambda: self.kubernetes.get("configmap", "istio-ca-root-cert", "-n", space))
        (folder / "var/run/secrets/istio/root-cert.pem").write_text(found["data"]["root-cert.pem"])
        run("chown", "-R", f"{UID}:{UID}", folder)
        if role == "sidecar":
            # Prometheus scrapes 9464 past the proxy, as the port of an exporter.
            run("ip", "netns", "exec", pod, program("pilot-agent"), "istio-iptables", "-p", "15001", "-z", "15006", "-u", UID, "-m", "REDIRECT",
                "-i", "*", "-b", "*", "-d", "15090,15021,15020,9464")
        environment = {
            "POD_NAME": pod, "POD_NAMESPACE": space, "INSTANCE_IP": address, "HOST_IP": GATE, "TRUST_DOMAIN": "cluster.local",
            "SERVICE_ACCOUNT": "default", "HOME": folder, "CA_ADDR": f"{CALLED}:15012", "PILOT_CERT_PROVIDER": "istiod",
            "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_INTERCEPTION_MODE": "REDIRECT" if role == "sidecar" else "NONE",
            "ISTIO_META_MESH_ID": "cluster.local", "ISTIO_META_APP_CONTAINERS": "app",
            "ISTIO_META_POD_PORTS": json.dumps([{"containerPort": 8080, "protocol": "TCP"}]),
            "ISTIO_METAJSON_LABELS": json.dumps(labels),
            "PROXY_CONFIG": json.dumps({"discoveryAddress": f"{CALLED}:15012", "binaryPath": os.environ["ENVOY"], "concurrency": 2,
                "terminationDrainDuration": drain, **(settings or {})}),
            **self.registry.environment,
        }
        # The agent keeps fetched modules below /var/lib/istio.
        return self.machine.start(f"proxy-{pod}", "setpriv", "--reuid", UID, "--regid", UID, "--clear-groups", program("pilot-agent"), "proxy",
            role, "--templateFile", self.template, "--domain", f"{space}.svc.cluster.local", "--proxyLogLevel", "warning",
            "--proxyComponentLogLevel", "wasm:info,config:info", inside=pod, folder=folder, environment=environment, mounts=[(folder / "lib", "/var/lib/istio")])

    def admin(self, pod, path):
        return self.machine.ask(pod, f"http://127.0.0.1:15000/{path}")

    def serving(self, pod):
        """Waits until the proxy has all of its configuration."""
        until(f"the proxy of {pod}", lambda: self.admin(pod, "ready").strip() == "LIVE", 90)

    def stats(self, pod, pattern):
        """Envoy's own figures whose names match, by name."""
        lines = (line.rpartition(": ") for line in self.admin(pod, f"stats?filter={pattern}").splitlines())
        return {name: int(value) for name, _, value in lines if value.isdigit()}
