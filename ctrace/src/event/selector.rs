//! Which container a user means.

use super::Container;

/// 64 hexadecimal digits, as docker, podman and the CRI name their containers.
pub fn is_hex64(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Shortest prefix of an id that selects: fewer digits would select strangers on a host with more
/// than a few hundred containers.
const MIN_PREFIX: usize = 4;

/// Whether `selector` means `container`: its exact name, its exact id, or at least 4 first
/// digits of an id that has 64. An id of free text has no prefixes: `web` is not `web2`.
pub fn matches(container: &Container, selector: &str) -> bool {
    let named = container.name.as_deref() == Some(selector);
    let prefix = selector.len() >= MIN_PREFIX
        && is_hex64(&container.id)
        && container.id.starts_with(selector);
    !selector.is_empty() && (named || container.id == selector || prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";

    fn container(id: &str, name: Option<&str>) -> Container {
        Container { id: id.into(), name: name.map(Into::into), ..Container::default() }
    }

    #[test]
    fn name_id_and_prefix() {
        let batch = container(ID, Some("batch"));
        for selector in ["batch", "b977", "b9771916bc00", ID] {
            assert!(matches(&batch, selector), "{selector}");
        }
        for selector in ["", "b97", "bat", "batch2", "/batch", "B977", "0977", &format!("{ID}0")] {
            assert!(!matches(&batch, selector), "{selector}");
        }
    }

    #[test]
    fn free_text_is_exact() {
        let web = container("abcdef", None);
        assert!(matches(&web, "abcdef") && !matches(&web, "abcd"));
    }
}
