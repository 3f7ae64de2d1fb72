//! All containers that are known, each once, with what can be seen of it now.
//!
//! A container is listed where its own cgroup lives: the outermost one of its levels, in any
//! hierarchy. What only its runtime's files tell of is listed where its first process runs, or where
//! all are asked for.

use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::cgroup::{self, Certainty, Role};
use super::resolve::{self, CgroupPath};
use super::staged::Entry;
use super::{Attributor, is_hex64};
use crate::event::{CgroupKey, CgroupPlace, Container, Listed, ListedUnit, Runtime, Source, State};

mod live;
#[cfg(test)]
mod tests;

/// What to list.
pub struct Ask<'a> {
    pub wanted: &'a dyn Fn(&Container) -> bool,
    /// Also what has neither a cgroup nor a process.
    pub all: bool,
    /// Also what a table does not show: tasks, memory and namespaces.
    pub details: bool,
}

/// What a container's cgroups in several hierarchies have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    id: String,
    /// Of an id in free text, which is unique in one runtime only.
    runtime: Option<Runtime>,
    /// Of an id in free text: the file that claims the cgroup.
    source: Option<PathBuf>,
    /// Ids of the containers around it, where a name alone says whose the cgroup is: a container may
    /// name a cgroup of its own after another container.
    outer: Vec<String>,
}

/// A cgroup that is a container's own.
pub struct Own {
    pub group: Group,
    pub container: Arc<Container>,
    pub outer: Vec<Arc<Container>>,
    pub place: CgroupPlace,
    /// What the files say of the container, the best first.
    told: Vec<Entry>,
}

/// A container that was found, and what the files say of it.
struct Found {
    listed: Listed,
    told: Vec<Entry>,
}

impl Attributor {
    /// The containers of this host, as the last walk and the records since have told.
    pub fn inventory(&mut self, ask: &Ask) -> Vec<Listed> {
        let mut found: Vec<Found> = Vec::new();
        let mut index: FxHashMap<Group, usize> = FxHashMap::default();
        for key in self.living() {
            let Some(Own { group, container, outer, place, told }) = self.own(key) else {
                continue;
            };
            let at = *index.entry(group).or_insert(found.len());
            if at == found.len() {
                let listed = Listed { container, ..Listed::default() };
                found.push(Found { listed, told });
            }
            let Listed { outer: known, cgroups, .. } = &mut found[at].listed;
            if outer.len() > known.len() {
                *known = outer;
            }
            cgroups.push(place);
        }
        self.add_known_from_files(&mut found);
        let mounts = self.cgroups.mounts();
        found.retain(|found| (ask.wanted)(&found.listed.container));
        let mut list = Vec::new();
        for Found { mut listed, told } in found {
            listed.cgroups.sort_by_key(|place| place.key.hierarchy);
            listed.sources = sources(&listed, &told);
            live::look(&mut listed, &told, &mounts, ask.details);
            let lives = !listed.cgroups.is_empty() || listed.process.is_some();
            if lives || ask.all {
                list.push(listed);
            }
        }
        list.sort_by(|one, other| order(one).cmp(&order(other)));
        list
    }

    /// The systemd units that have a cgroup and are no containers.
    pub fn units(&mut self) -> Vec<ListedUnit> {
        let mut units: FxHashMap<Arc<str>, ListedUnit> = FxHashMap::default();
        for key in self.living() {
            let (CgroupPath { text, is_complete, ids: _ }, _) = self.nodes.build(key);
            let Some(name) = cgroup::unit(&text).filter(|_| is_complete) else { continue };
            let above = text.rsplit_once('/').map_or("", |(above, _)| above);
            let is_own = text.ends_with(name) && cgroup::unit(above) != Some(name);
            if !is_own || self.own(key).is_some() {
                continue;
            }
            let new = || ListedUnit { name: name.to_owned(), cgroups: Vec::new(), processes: 0 };
            let place = CgroupPlace { key, controllers: Vec::new(), path: text.clone() };
            units.entry(text.clone()).or_insert_with(new).cgroups.push(place);
        }
        let mounts = self.cgroups.mounts();
        let mut units: Vec<ListedUnit> = units.into_values().collect();
        for unit in &mut units {
            unit.cgroups.sort_by_key(|place| place.key.hierarchy);
            unit.processes = live::processes(&unit.cgroups, &mounts);
        }
        units.sort_by(|one, other| one.cgroups[0].path.cmp(&other.cgroups[0].path));
        units
    }

    /// Grows when [`Attributor::own`] may answer otherwise.
    pub fn metadata_generation(&self) -> u64 {
        self.catalog.staged.generation()
    }

    /// Grows when a cgroup comes or goes.
    pub fn turnover(&self) -> u64 {
        self.nodes.births() + self.nodes.deaths()
    }

    /// Whether a cgroup lives, as far as is known.
    pub fn lives(&self, key: CgroupKey) -> bool {
        self.nodes.lives(key)
    }

    /// The cgroups that live, as far as is known.
    pub fn living(&self) -> Vec<CgroupKey> {
        self.nodes.living().collect()
    }

    /// The container whose own cgroup this is, by what is known without the disk: none for a cgroup
    /// inside it.
    pub fn own(&mut self, key: CgroupKey) -> Option<Own> {
        let (path, _) = self.nodes.build(key);
        let level = path.ids.len();
        if !path.is_complete || level == 0 {
            return None;
        }
        let staged = &mut self.catalog.staged;
        let is_claimed = staged.by_cgroup(key).is_some();
        if !is_claimed && !is_named(&path.text, level) {
            return None;
        }
        let mut chain = resolve::resolve(&path, key, staged, None, 0, None).chain;
        let own = chain.pop().filter(|known| known.depth == level)?;
        let container = own.container;
        let outer: Vec<Arc<Container>> = chain.into_iter().map(|known| known.container).collect();
        let told = staged.entries_of(&container.id, container.runtime, key);
        let is_hex = is_hex64(&container.id);
        let group = Group {
            id: container.id.clone(),
            runtime: container.runtime.filter(|_| !is_hex),
            source: told.first().filter(|_| !is_hex).map(|entry| entry.source().to_owned()),
            outer: match is_claimed {
                true => Vec::new(),
                false => outer.iter().map(|outer| outer.id.clone()).collect(),
            },
        };
        let place = CgroupPlace { key, controllers: Vec::new(), path: path.text };
        Some(Own { group, container, outer, place, told })
    }

    /// Adds the containers that no cgroup is known of.
    fn add_known_from_files(&self, found: &mut Vec<Found>) {
        let used: FxHashSet<(String, PathBuf)> =
            found.iter().flat_map(|found| &found.told).map(name_of).collect();
        let mut by_container: FxHashMap<(String, PathBuf), Vec<Entry>> = FxHashMap::default();
        for entry in self.catalog.staged.entries() {
            let name = name_of(entry);
            if used.contains(&name) {
                continue;
            }
            let (id, source) = name;
            // An id of 64 digits is one container's. Others are as unique as their bundle, or file.
            let place = match &entry.metadata().bundle {
                _ if is_hex64(&id) => PathBuf::new(),
                Some(bundle) => bundle.clone(),
                None => source,
            };
            by_container.entry((id, place)).or_default().push(entry.clone());
        }
        for mut told in by_container.into_values() {
            told.sort_by_key(Entry::order);
            let Some(best) = told.first() else { continue };
            let listed = Listed { container: best.container.clone(), ..Listed::default() };
            found.push(Found { listed, told });
        }
    }
}

/// Whether the name of the level says that it is a container's.
fn is_named(path: &str, level: usize) -> bool {
    cgroup::parse(path).last().is_some_and(|candidate| {
        candidate.depth == level
            && candidate.role == Role::Workload
            && candidate.certainty != Certainty::Possible
    })
}

fn name_of(entry: &Entry) -> (String, PathBuf) {
    (entry.container.id.clone(), entry.source().to_owned())
}

fn sources(listed: &Listed, told: &[Entry]) -> Vec<Source> {
    let file = |entry: &Entry| entry.source().to_string_lossy().into_owned();
    let mut sources: Vec<Source> =
        told.iter().map(|entry| Source { fact: "metadata", from: file(entry) }).collect();
    if !listed.cgroups.is_empty() {
        sources.push(Source { fact: "cgroup", from: "walk".to_owned() });
    }
    sources
}

/// What lives first; then by name, and ids for those that have none.
fn order(listed: &Listed) -> (bool, &str, &str) {
    let is_idle = !matches!(listed.state, Some(State::Running | State::Paused));
    let container = &listed.container;
    (is_idle, container.name.as_deref().unwrap_or(&container.id), &container.id)
}
