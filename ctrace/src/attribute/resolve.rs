//! From one cgroup's path and the staged metadata to the containers around it. Pure but for the
//! table that it asks.

use std::sync::Arc;

use super::cgroup::{self, Candidate, Certainty, Role};
use super::nodes::CgroupPath;
use super::staged::Staged;
use crate::event::{CgroupKey, Container, Pod, Runtime};

/// How long the disk is not asked again for what it did not have, nanoseconds; doubles up to
/// [`RETRY_MAX_NS`].
pub const RETRY_MIN_NS: u64 = 100_000_000;
pub const RETRY_MAX_NS: u64 = 30_000_000_000;

/// What is known of one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The containers around the cgroup, outermost first.
    pub chain: Vec<Known>,
    /// The cgroup is a runtime's own, in the innermost container or on the host.
    pub is_helper: bool,
    /// [`Staged::generation`] that this was made from.
    pub generation: u64,
    /// When to ask the disk again, and how long was waited for it, nanoseconds; none where all is
    /// known.
    pub retry: Option<(u64, u64)>,
}

/// A container and how well it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub container: Arc<Container>,
    /// From its runtime's files; else from the path alone.
    pub from_metadata: bool,
    /// Level of its own cgroup below the root of the path; the first is 1.
    pub depth: usize,
}

impl Resolution {
    /// Whether the disk may be asked again at `now`.
    pub fn is_due(&self, now: u64) -> bool {
        self.retry.is_some_and(|(at, _)| now >= at)
    }

    /// Whether metadata that is missing may only be late: a runtime writes it within some 100 ms.
    pub fn may_come_soon(&self) -> bool {
        self.retry.is_some_and(|(_, waited)| waited <= 2 * RETRY_MIN_NS)
    }

    /// This one, with what `old` knew of the same containers: metadata may have left the table.
    pub fn keep(mut self, old: Option<&Resolution>) -> Self {
        for known in self.chain.iter_mut().filter(|known| !known.from_metadata) {
            let old = old.and_then(|old| {
                let is_same = |old: &&Known| old.container.id == known.container.id;
                old.chain.iter().filter(|old| old.from_metadata).find(is_same)
            });
            if let Some(old) = old {
                *known = old.clone();
            }
        }
        self
    }
}

/// Ids in the path of which nothing is staged.
pub fn missing(path: &CgroupPath, key: CgroupKey, staged: &mut Staged) -> Vec<String> {
    let workloads = cgroup::parse(&path.text).into_iter().filter(|c| c.role == Role::Workload);
    let is_missing = |candidate: &Candidate| match candidate.certainty {
        Certainty::Possible => at_level(path, key, candidate.depth, staged).is_none(),
        _ => {
            cgroup::is_hex64(&candidate.id)
                && staged
                    .by_id(&candidate.id)
                    .is_none_or(|known| known.name.is_none() && !known.is_sandbox)
        }
    };
    workloads.filter(is_missing).map(|candidate| candidate.id).collect()
}

/// Resolves the cgroup at `path` from what is staged. `waited`: for the disk, so far, nanoseconds;
/// none where it was not asked.
pub fn resolve(
    path: &CgroupPath,
    key: CgroupKey,
    staged: &mut Staged,
    now: u64,
    waited: Option<u64>,
) -> Resolution {
    let generation = staged.generation();
    let candidates = cgroup::parse(&path.text);
    let mut chain: Vec<Known> = Vec::new();
    let mut is_helper = false;
    for depth in 1..=path.ids.len() {
        let candidate = candidates.iter().find(|candidate| candidate.depth == depth);
        if candidate.is_some_and(|candidate| candidate.role == Role::RuntimeHelper) {
            is_helper = true;
            // nspawn's supervisor is inside the scope of the machine, but outside the machine.
            let id = candidate.map_or("", |candidate| &candidate.id);
            chain.pop_if(|known| known.container.id == id);
            continue;
        }
        let owner = at_level(path, key, depth, staged)
            .map(|container| Known { container, from_metadata: true, depth })
            .or_else(|| of_candidate(candidate?, chain.is_empty(), staged));
        if let Some(known) = owner {
            is_helper = false;
            chain.push(known);
        }
    }
    let retry = (!missing(path, key, staged).is_empty()).then(|| {
        let wait = waited.map_or(RETRY_MIN_NS, |waited| (waited * 2).min(RETRY_MAX_NS));
        (now + wait, wait)
    });
    Resolution { chain, is_helper, generation, retry }
}

/// The container that owns the cgroup `depth` levels below the root, by the cgroup's identity.
fn at_level(
    path: &CgroupPath,
    key: CgroupKey,
    depth: usize,
    staged: &mut Staged,
) -> Option<Arc<Container>> {
    let id = *path.ids.get(depth.checked_sub(1)?)?;
    staged.by_cgroup(CgroupKey { id, ..key })
}

/// The container that a level's name says.
fn of_candidate(candidate: &Candidate, is_outermost: bool, staged: &mut Staged) -> Option<Known> {
    let metadata = staged.by_id(&candidate.id);
    match candidate.certainty {
        Certainty::Possible => return None,
        // A container may name a cgroup of its own as it likes: below one, 64 digits alone prove
        // nothing.
        Certainty::Likely if metadata.is_none() && (!is_outermost || candidate.may_be_pod) => {
            return None;
        }
        Certainty::Likely | Certainty::Certain => {}
    }
    let from_metadata = metadata.is_some();
    let container = metadata.unwrap_or_else(|| Arc::new(of_path(candidate)));
    let depth = candidate.depth;
    Some(Known { container: completed(container, candidate), from_metadata, depth })
}

/// All that a path alone says.
fn of_path(candidate: &Candidate) -> Container {
    // LXC appends `-N` where the cgroup's name was taken, which a name can end in as well.
    let is_numbered = candidate.id.rsplit_once('-').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    let name = match candidate.runtime {
        Some(Runtime::Nspawn) => Some(candidate.id.clone()),
        Some(Runtime::Lxc) if !is_numbered => Some(candidate.id.clone()),
        _ => None,
    };
    Container { id: candidate.id.clone(), name, runtime: candidate.runtime, ..Container::default() }
}

/// `container` with what the path knows besides: a cgroup's name says which engine it was made for,
/// also where that engine shares another one's files.
fn completed(container: Arc<Container>, candidate: &Candidate) -> Arc<Container> {
    let runtime = candidate.runtime.or(container.runtime);
    let uid = container.pod.as_ref().and_then(|pod| pod.uid.clone());
    let pod_uid = uid.or_else(|| candidate.pod_uid.clone());
    let is_known = container.pod.as_ref().and_then(|pod| pod.uid.as_ref()) == pod_uid.as_ref();
    if runtime == container.runtime && is_known {
        return container;
    }
    let pod =
        pod_uid.map(|uid| Pod { uid: Some(uid), ..container.pod.clone().unwrap_or_default() });
    let pod = pod.or_else(|| container.pod.clone());
    Arc::new(Container { runtime, pod, ..(*container).clone() })
}
