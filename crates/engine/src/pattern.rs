//! Cluster names with `*`, for names that a control plane generates.

/// Whether `name` is a pattern rather than the name of one cluster. `*` alone is not a pattern: it stands for every
/// cluster that no other entry names.
pub fn is_pattern(name: &str) -> bool {
    name != "*" && name.contains('*')
}

/// Whether `name` matches `pattern`, in which each `*` stands for any number of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// Whether configurations that name these clusters, or patterns, have one in common: the same name, or with `loosely` a
/// name that a pattern of the other matches.
pub fn meet<'a>(ones: impl Iterator<Item = &'a str>, others: &[String], loosely: bool) -> bool {
    let mut ones = ones;
    ones.any(|one| {
        others.iter().any(|other| one == other || loosely && (matches(one, other) || matches(other, one)))
    })
}

/// Number of literal characters in a pattern: of several that match, the one with the most takes precedence.
pub(crate) fn literal(pattern: &str) -> usize {
    pattern.chars().filter(|c| *c != '*').count()
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn each_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("httproute/default/web/rule/*", "httproute/default/web/rule/0/backend/1", true),
            ("httproute/default/web/rule/*", "httproute/default/web/rule", false),
            (
                "outbound|80|*|web.default.svc.cluster.local",
                "outbound|80||web.default.svc.cluster.local",
                true,
            ),
            (
                "outbound|80|*|web.default.svc.cluster.local",
                "outbound|80|v2|web.default.svc.cluster.local",
                true,
            ),
            (
                "outbound|80|*|web.default.svc.cluster.local",
                "outbound|81||web.default.svc.cluster.local",
                false,
            ),
            ("*web", "web", true),
            ("*web", "webx", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-bc", true),
            ("a*b*c", "acb", false),
            ("a*ba", "aba", true),
            ("ab*ba", "aba", false),
            ("**", "", true),
            ("web", "web", true),
            ("web", "web2", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn configurations_meet_in_a_cluster() {
        let meet = |ones: &[&str], other: &str, loosely| {
            super::meet(ones.iter().copied(), &["x".to_owned(), other.to_owned()], loosely)
        };
        assert!(meet(&["a", "web"], "web", false) && meet(&["web-*"], "web-*", false));
        assert!(!meet(&["a", "web-*"], "web-1", false) && !meet(&[], "web", true));
        assert!(
            meet(&["web-*"], "web-1", true) && meet(&["web-1"], "web-*", true) && meet(&["*"], "web", true)
        );
        assert!(!meet(&["web-*"], "api-*", true));
    }

    #[test]
    fn a_star_alone_is_no_pattern() {
        assert!(!is_pattern("*") && !is_pattern("web") && is_pattern("web/*"));
        assert!(literal("web/*") > literal("*b*"));
    }
}
