//! The OCI runtime specification's `config.json`, which every engine hands to its low-level runtime.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Placement;

/// What is of interest here.
#[derive(Default, Deserialize)]
pub struct Spec {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath", default)]
    cgroups_path: Option<String>,
}

/// Annotations and placement.
pub fn parse(content: &[u8]) -> Result<(BTreeMap<String, String>, Placement), String> {
    let Spec { annotations, linux } =
        serde_json::from_slice(content).map_err(|error| error.to_string())?;
    let path = linux.and_then(|linux| linux.cgroups_path);
    // `<slice>:<prefix>:<id>` is for systemd, and a relative path depends on the caller's cgroup.
    let absolute = path.filter(|path| path.starts_with('/') && !path.contains(':'));
    let placement = absolute.map_or(Placement::Unsaid, Placement::InHierarchies);
    Ok((annotations.unwrap_or_default(), placement))
}
