"""What lab/api.py knows of resources: their names, selectors, and what changes an object."""

import base64
import json
import re
import time

# group/version: plural, kind, and "-" where it lives in no namespace.
BUILT_IN = {
    "v1": "namespaces:Namespace:- nodes:Node:- pods:Pod services:Service endpoints:Endpoints secrets:Secret configmaps:ConfigMap "
          "serviceaccounts:ServiceAccount events:Event",
    "apps/v1": "deployments:Deployment daemonsets:DaemonSet replicasets:ReplicaSet statefulsets:StatefulSet",
    "autoscaling/v2": "horizontalpodautoscalers:HorizontalPodAutoscaler",
    "policy/v1": "poddisruptionbudgets:PodDisruptionBudget",
    "batch/v1": "jobs:Job",
    "discovery.k8s.io/v1": "endpointslices:EndpointSlice",
    "coordination.k8s.io/v1": "leases:Lease",
    "networking.k8s.io/v1": "ingresses:Ingress ingressclasses:IngressClass:-",
    "certificates.k8s.io/v1": "certificatesigningrequests:CertificateSigningRequest:-",
    "admissionregistration.k8s.io/v1": "mutatingwebhookconfigurations:MutatingWebhookConfiguration:- "
                                       "validatingwebhookconfigurations:ValidatingWebhookConfiguration:-",
    "apiextensions.k8s.io/v1": "customresourcedefinitions:CustomResourceDefinition:-",
    "authentication.k8s.io/v1": "tokenreviews:TokenReview:-",
    "authorization.k8s.io/v1": "subjectaccessreviews:SubjectAccessReview:- selfsubjectaccessreviews:SelfSubjectAccessReview:-",
}
PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<space>[^/]+)(?=/[^/]+(?:/|$)))?/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
TERM = re.compile(r"(?P<absent>!)?(?P<key>[^=!\s]+)\s*(?:(?P<equal>==?|!=)\s*(?P<value>.*)|(?P<word>notin|in)\s*\((?P<values>.*)\))?")
resources = {}


def known(group_version, plural, kind, namespaced):
    resources.setdefault(group_version, {})[plural] = (kind, namespaced)


for _group_version, _listed in BUILT_IN.items():
    for _entry in _listed.split():
        _plural, _kind, *_cluster = _entry.split(":")
        known(_group_version, _plural, _kind, not _cluster)


def defined(crd):
    """A new kind; the status that its definition then has."""
    spec = crd["spec"]
    for version in spec["versions"]:
        if version["served"]:
            known(f"{spec['group']}/{version['name']}", spec["names"]["plural"], spec["names"]["kind"], spec["scope"] == "Namespaced")
    return {
        "conditions": [{"type": kind, "status": "True"} for kind in ("Established", "NamesAccepted")],
        "acceptedNames": spec["names"],
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
    }


def merged(into, patch):
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    made = dict(into) if isinstance(into, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif not key.startswith("$"):
            made[key] = merged(made.get(key), value)
    return made


def json_patched(document, operations):
    """RFC 6902, as far as control planes use it."""
    for operation in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = document
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if operation["op"] == "remove":
            place.pop(int(last) if isinstance(place, list) else last, None)
        elif isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), operation["value"])
        else:
            place[last] = operation["value"]
    return document


def selected(labels, selector):
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        found = TERM.fullmatch(term.strip())
        value = labels.get(found["key"])
        if found["equal"]:
            holds = (value == found["value"]) != (found["equal"] == "!=")
        elif found["word"]:
            holds = (value in [one.strip() for one in found["values"].split(",")]) != (found["word"] == "notin")
        else:
            holds = (value is None) == bool(found["absent"])
        if not holds:
            return False
    return True


def matches(item, query):
    """Whether an object is what a question's selectors ask for."""
    if not selected(item["metadata"].get("labels") or {}, query.get("labelSelector", "")):
        return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, wanted = term.partition("=")
        unequal, value = key.endswith("!"), item
        for part in key.rstrip("!").split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        if (str(value) == wanted.lstrip("=")) == unequal:
            return False
    return True


def token(space, account, audiences):
    """A token as the API server makes them, but for its signature, which only the API server checks."""
    now = int(time.time())
    claims = {
        "iss": "https://kubernetes.default.svc",
        "sub": f"system:serviceaccount:{space}:{account}",
        "aud": audiences,
        "iat": now,
        "exp": now + 86400,
        "kubernetes.io": {"namespace": space, "serviceaccount": {"name": account}},
    }
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "RS256"}, claims)]
    return ".".join(parts) + ".c2lnbmVk"


def review(kind, body):
    """The answer to a review: every token is good, everything is allowed."""
    if kind != "TokenReview":
        return {"allowed": True}
    claims = json.loads(base64.urlsafe_b64decode(body["spec"]["token"].split(".")[1] + "=="))
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{claims['kubernetes.io']['namespace']}", "system:authenticated"]
    return {"authenticated": True, "user": {"username": claims["sub"], "groups": groups}, "audiences": body["spec"].get("audiences", [])}
