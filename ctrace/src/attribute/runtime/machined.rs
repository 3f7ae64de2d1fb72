//! systemd-nspawn and others that register with systemd-machined: `/run/systemd/machines/<name>`,
//! lines of `KEY=value` (systemd `src/machine/machine.c`, `machine_save`). Virtual machines are left
//! out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Backend, Files, IdIn, Init, Metadata, Placement, Store, safe_name};
use crate::event::{Container, Runtime};

/// The slice of a machine's unit, unless its administrator says otherwise.
const SLICE: &str = "/machine.slice";

pub struct Machined {
    stores: Vec<Store>,
}

impl Machined {
    /// `directories`: by default `/run/systemd/machines`.
    pub fn new(directories: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.clone(),
            depth: 0,
            file: Files::Any,
            id: IdIn::FileName,
            runtime: None,
            is_users: false,
        };
        Self { stores: directories.iter().map(store).collect() }
    }
}

impl Backend for Machined {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, _: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let id = safe_name(Some(path))?;
        let text = String::from_utf8_lossy(content);
        let pairs = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = pairs.filter_map(|line| line.split_once('='));
        let mut values: HashMap<&str, String> =
            pairs.map(|(key, value)| (key, unquoted(value))).collect();
        if values.remove("CLASS").as_deref() != Some("container") {
            return Ok(Vec::new());
        }
        if values.remove("NAME").is_some_and(|name| name != id) {
            return Err("the file is another machine's".into());
        }
        // Called a scope also where it is a service.
        let unit = values.remove("SCOPE").filter(|unit| !unit.is_empty() && !unit.contains('/'));
        let placement = unit
            .map_or(Placement::Unsaid, |unit| Placement::InHierarchies(format!("{SLICE}/{unit}")));
        let pid = values.remove("LEADER").and_then(|pid| pid.parse().ok());
        let is_nspawn = values.remove("SERVICE").as_deref() == Some("systemd-nspawn");
        let container = Container {
            name: Some(id.clone()),
            id,
            runtime: is_nspawn.then_some(Runtime::Nspawn),
            ..Container::default()
        };
        let init = pid.map(|pid| Init { pid, start_ticks: None });
        Ok(vec![Metadata { placement, init, ..Metadata::new(path, container) }])
    }
}

/// A value as systemd reads it: without the quotes around it, `\` before a character undone.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let mut plain = String::new();
    let mut characters = inner.unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' { characters.next() } else { None };
        plain.push(escaped.unwrap_or(character));
    }
    plain
}
