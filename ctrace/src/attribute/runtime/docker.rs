//! Docker: `<data-root>/containers/<id>/config.v2.json` (moby `container/container.go`,
//! `Container.toDisk`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Metadata, Placement, Store, id_of, said};
use crate::event::{Container, Runtime};

pub struct Docker {
    stores: Vec<Store>,
}

impl Docker {
    /// `data_roots`: dockerd's `--data-root`, by default `/var/lib/docker`.
    pub fn new(data_roots: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.join("containers"),
            depth: 1,
            file: "config.v2.json",
            runtime: Runtime::Docker,
        };
        Self { stores: data_roots.iter().map(store).collect() }
    }
}

#[derive(Deserialize)]
struct ConfigV2 {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Config")]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Image")]
    image: Option<String>,
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl Backend for Docker {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let ConfigV2 { id, name, config } =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if id_of(path)? != id {
            return Err("the file is another container's".into());
        }
        let Config { image, labels } = config.unwrap_or(Config { image: None, labels: None });
        let container = Container {
            id,
            name: said(name.map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned())),
            runtime: Some(store.runtime),
            image: said(image),
            labels: labels.unwrap_or_default(),
            pod: None,
        };
        Ok(vec![Metadata {
            container,
            source: path.to_owned(),
            bundle: None,
            placement: Placement::Unsaid,
            init: None,
        }])
    }
}
