//! What a policy is for.

use serde_json::Value;

use super::Manifests;

/// A Gateway, a route, or a part of either.
#[derive(Clone, Debug)]
pub(super) struct Target<'d> {
    pub kind: &'d str,
    /// None where the manifest leaves it to how it is applied.
    pub namespace: Option<&'d str>,
    pub name: &'d str,
    /// A listener of the Gateway, or a rule of the route.
    pub section: Option<&'d str>,
}

impl PartialEq for Target<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.is_of(other) && self.section == other.section
    }
}

impl<'d> Target<'d> {
    /// The route that a manifest is.
    pub fn of_route(manifest: &'d Value) -> Option<Target<'d>> {
        let kind = manifest["kind"].as_str().filter(|kind| kind.ends_with("Route"))?;
        let name = manifest["metadata"]["name"].as_str()?;
        Some(Target { kind, namespace: namespace(manifest), name, section: None })
    }

    pub fn shown(&self) -> String {
        let whole = format!("{} {}", self.kind, self.name);
        match self.section {
            Some(section) => format!("{whole}, {section}"),
            None => whole,
        }
    }

    /// The beginning of the names that Envoy Gateway gives to the clusters of this route.
    pub fn clusters(&self) -> String {
        format!("{}/{}/{}/rule/", self.kind.to_lowercase(), self.namespace.unwrap_or_default(), self.name)
    }

    /// Whether both are the same object, or parts of it.
    fn is_of(&self, other: &Target<'_>) -> bool {
        self.kind == other.kind && self.name == other.name && meet(self.namespace, other.namespace)
    }

    /// Whether a policy for `other` takes one for this out of force: this is its route, or its Gateway as far as the
    /// manifests say.
    pub fn is_above(&self, other: &Target<'_>, manifests: Manifests<'_>) -> bool {
        if self.is_of(other) {
            return self.section.is_none() && other.section.is_some();
        }
        if self.kind != "Gateway" || other.kind == "Gateway" {
            return false;
        }
        let is_it = |manifest: &Value| Target::of_route(manifest).is_some_and(|route| route.is_of(other));
        let Some((_, manifest)) = manifests.iter().find(|(_, manifest)| is_it(manifest)) else {
            return true;
        };
        let mut parents = manifest["spec"]["parentRefs"].as_array().into_iter().flatten();
        let of = |parent: &Value| meet(parent["namespace"].as_str().or(other.namespace), self.namespace);
        // Which Gateway a set of listeners belongs to is not in the route.
        let is_gateway = |parent: &Value| parent["kind"].as_str().is_none_or(|kind| kind == "Gateway");
        parents.any(|parent| !is_gateway(parent) || parent["name"] == self.name && of(parent))
    }
}

/// The targets of a policy: those that it names, and those of the manifests that its selectors select.
pub(super) fn targets<'d>(policy: &'d Value, manifests: Manifests<'d>) -> Vec<Target<'d>> {
    let spec = &policy["spec"];
    let several = spec["targetRefs"].as_array().into_iter().flatten();
    let named = several.chain(spec.get("targetRef")).filter_map(|target| {
        let (kind, name) = (target["kind"].as_str()?, target["name"].as_str()?);
        Some(Target { kind, namespace: namespace(policy), name, section: target["sectionName"].as_str() })
    });
    let selectors = spec["targetSelectors"].as_array().into_iter().flatten();
    let selected = selectors.flat_map(|selector| {
        let selects = move |manifest: &&(String, Value)| {
            selector["kind"] == manifest.1["kind"]
                && meet(namespace(&manifest.1), namespace(policy))
                && is_selected(selector, &manifest.1["metadata"]["labels"])
        };
        manifests.iter().filter(selects).filter_map(|(_, manifest)| {
            let (kind, name) = (manifest["kind"].as_str()?, manifest["metadata"]["name"].as_str()?);
            Some(Target { kind, namespace: namespace(manifest), name, section: None })
        })
    });
    named.chain(selected).collect()
}

/// Whether a selector selects an object with these labels.
fn is_selected(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    equal.into_iter().all(|(label, value)| labels[label] == *value)
        && expressions.all(|expression| {
            let label = &labels[expression["key"].as_str().unwrap_or_default()];
            let among = expression["values"].as_array().is_some_and(|values| values.contains(label));
            match expression["operator"].as_str() {
                Some("In") => among,
                Some("NotIn") => !among,
                Some("Exists") => !label.is_null(),
                Some("DoesNotExist") => label.is_null(),
                _ => false,
            }
        })
}

/// The namespace that a manifest gives; Kustomize, Argo CD or `kubectl -n` may give it later.
pub(super) fn namespace(manifest: &Value) -> Option<&str> {
    manifest["metadata"]["namespace"].as_str()
}

/// Whether two namespaces may be the same one.
pub(super) fn meet(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}
