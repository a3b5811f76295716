"""The real Envoy Gateway with its Kubernetes provider, and the Envoy that it would have had started."""

import base64
import os
import re

from .machine import GATE, built_file, listens, program, run, until

SPACE = "envoy-gateway-system"
SERVICE = f"envoy-gateway.{SPACE}.svc.cluster.local"
SETTINGS = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {{ controllerName: gateway.envoyproxy.io/gatewayclass-controller }}
provider: {{ type: Kubernetes }}
extensionApis: {{ enableBackend: true, enableLua: true, enableEnvoyPatchPolicy: {patches} }}
"""
CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: eg }
spec: { controllerName: gateway.envoyproxy.io/gatewayclass-controller }
"""


class EnvoyGateway:
    """Proxies run in network namespaces of their own, with the arguments of the Deployment that Envoy Gateway makes."""

    def __init__(self, kubernetes, registry):
        self.kubernetes, self.machine, self.registry = kubernetes, kubernetes.machine, registry
        self.work = self.machine.work / "envoy-gateway"
        self.work.mkdir()
        kubernetes.crds(built_file("gateway-api-crds.yaml"))
        kubernetes.crds(built_file("envoy-gateway-crds.yaml"))
        kubernetes.space(SPACE)
        self.machine.call(SERVICE, f"{SERVICE}.", "envoy-gateway")
        self.environment = {"KUBECONFIG": kubernetes.kubeconfig, "ENVOY_GATEWAY_NAMESPACE": SPACE, **registry.environment}
        whole = os.environ | {key: str(value) for key, value in self.environment.items()}
        run(program("envoy-gateway"), "certgen", "--disable-topology-injector", env=whole)
        for secret in ("envoy-gateway", "envoy"):
            self.secret(secret)
        kubernetes.apply(CLASS)
        self.process = None
        self.serve()

    def serve(self, patches=True):
        """Starts Envoy Gateway, or starts it again."""
        if self.process:
            self.machine.stop(self.process)
        (self.work / "settings.yaml").write_text(SETTINGS.format(patches=str(patches).lower()))
        self.process = self.machine.start("envoy-gateway", program("envoy-gateway"), "server", "--config-path", self.work / "settings.yaml",
            environment=self.environment, mounts=[(self.work / "envoy-gateway", "/certs")])
        until("Envoy Gateway", lambda: listens(GATE, 18000), 120)

    def secret(self, name):
        folder = self.work / name
        folder.mkdir()
        found = until(f"the secret {name}", lambda: self.kubernetes.get("secret", name, "-n", SPACE))
        for file, value in found["data"].items():
            (folder / file).write_bytes(base64.b64decode(value))

    def deployment(self, owner):
        """What Envoy Gateway has made for a Gateway, or for all of a class: `gateway-name=shop`, `gatewayclass=eg`."""
        def made():
            return self.kubernetes.get("deployment", "-n", SPACE, "-l", f"gateway.envoyproxy.io/owning-{owner}")["items"]
        return until(f"the Deployment for {owner}", made)[0]

    def proxy(self, pod, owner):
        """Starts an Envoy as the Deployment says, in a namespace of its own; the process and its address."""
        deployment = self.deployment(owner)
        container = next(c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == "envoy")
        secrets = until("the proxies' SDS files", lambda: self.kubernetes.get("configmap", deployment["metadata"]["name"], "-n", SPACE))
        folder = self.work / pod
        (folder / "sds").mkdir(parents=True)
        (folder / "tmp").mkdir()
        for file, text in secrets["data"].items():
            (folder / "sds" / file).write_text(text)
        address = self.machine.namespace(pod)
        known = {"ENVOY_POD_NAME": pod, "ENVOY_POD_NAMESPACE": SPACE, "ENVOY_GATEWAY_NAMESPACE": SPACE, "ENVOY_SERVICE_ZONE": "near-1"}
        arguments = [re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], argument) for argument in container["args"]]
        given = {variable["name"]: variable["value"] for variable in container.get("env", []) if "value" in variable}
        mounts = [(self.work / "envoy", "/certs"), (folder / "sds", "/sds"), (self.registry.work / "ca.crt", "/etc/ssl/certs/ca-certificates.crt")]
        # As an image has it that is made for the module.
        mounts.append((self.registry.files, "/etc/envoy"))
        # Modules that it fetches are kept in a folder for temporary files: each pod has its own.
        process = self.machine.start(f"proxy-{pod}", os.environ["ENVOY"], *arguments, "--concurrency", "2", inside=pod,
            environment={**given, **known, "TMPDIR": folder / "tmp"}, mounts=mounts)
        return process, address

    def admin(self, pod, path):
        return self.machine.ask(pod, f"http://127.0.0.1:19000/{path}")

    def stats(self, pod, pattern):
        lines = (line.rpartition(": ") for line in self.admin(pod, f"stats?filter={pattern}").splitlines())
        return {name: int(value) for name, _, value in lines if value.isdigit()}

    def members(self, pod, cluster):
        """The addresses that the proxy has for a cluster."""
        return set(re.findall(rf"^{re.escape(cluster)}::([\d.:]+)::cx_active", self.admin(pod, "clusters"), re.MULTILINE))

    def conditions(self, kind, name, space):
        """What does not hold of a policy, with the messages."""
        status = (self.kubernetes.get(kind, name, "-n", space) or {}).get("status", {})
        told = [condition for ancestor in status.get("ancestors", []) for condition in ancestor["conditions"]]
        return [f"{kind}: {condition['type']}: {condition['message']}" for condition in told if condition["status"] != "True"]
