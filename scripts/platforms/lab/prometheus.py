"""A real Prometheus in a pod of its own."""

import json
import urllib.parse
import urllib.request

from .machine import listens, until

# As the signals of the shipped files want it.
LABELS = {"namespace": "shop", "service": "web"}


class Prometheus:
    """Scrapes the exporters of the pods `targets`, and proxies, once they are named."""

    def __init__(self, kubernetes, space, binary, targets):
        self.machine, self.binary = kubernetes.machine, binary
        self.address = kubernetes.pod(space, "prometheus", {"app": "prometheus"}, port=9090)
        kubernetes.service(space, "prometheus", 9090)
        self.folder = self.machine.work / "prometheus"
        self.folder.mkdir()
        self.scrape(targets)
        self.proxies()
        jobs = [
            {"job_name": "web", "scrape_interval": "1s", **self.discovered("web")},
            {"job_name": "proxies", "scrape_interval": "1s", "metrics_path": "/_evenkeel/metrics", **self.discovered("proxies")},
        ]
        (self.folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}))
        self.process = None
        self.up()

    def up(self):
        self.process = self.machine.start("prometheus", self.binary, f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address={self.address}:9090", inside="prometheus")
        until("Prometheus", lambda: listens(self.address, 9090))

    def away(self):
        self.machine.stop(self.process)

    def scrape(self, targets):
        self.listed("web", [f"{address}:9464" for address in targets], LABELS)

    def proxies(self, *targets):
        """The proxies whose status pages are scraped."""
        self.listed("proxies", list(targets), {})

    def listed(self, job, targets, labels):
        new = self.folder / f"{job}.new"
        new.write_text(json.dumps([{"targets": targets, "labels": labels}]))
        new.rename(self.folder / f"{job}.json")

    def discovered(self, job):
        return {"file_sd_configs": [{"files": [str(self.folder / f"{job}.json")], "refresh_interval": "1s"}]}

    def value(self, query):
        """What a query comes to; nothing where it has no answer or there is no Prometheus."""
        url = f"http://{self.address}:9090/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None
