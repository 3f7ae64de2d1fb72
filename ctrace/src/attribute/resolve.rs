//! From one cgroup's path and the staged metadata to the containers around it. Pure but for the
//! table that it asks.

use std::sync::Arc;

use super::cgroup::{self, Candidate, Certainty, Role};
use super::staged::Staged;
use crate::event::{CgroupKey, Container, Pod, Runtime};

/// How long the disk is not asked again for what it did not have, nanoseconds; doubles up to
/// [`RETRY_MAX_NS`].
pub const RETRY_MIN_NS: u64 = 100_000_000;
pub const RETRY_MAX_NS: u64 = 30_000_000_000;

/// Where a cgroup is.
#[derive(Debug, PartialEq, Eq)]
pub struct CgroupPath {
    /// Below the root of the hierarchy, with a leading slash.
    pub text: Arc<str>,
    /// `text` begins at the root; else its outermost levels are missing.
    pub is_complete: bool,
    /// Ids of the levels of `text`, outermost first, the cgroup's own last.
    pub ids: Box<[u64]>,
}

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

    /// Whether a container is here of which no runtime's files say anything: its runtime may keep them
    /// elsewhere.
    pub fn is_runtime_missing(&self) -> bool {
        self.chain.iter().any(|known| !known.from_metadata && cgroup::is_hex64(&known.container.id))
    }
}

/// Ids in the path of which nothing is staged. A word that may be an id does not count above a
/// container: there, `docker` or `kubepods` are directories.
pub fn missing(path: &CgroupPath, key: CgroupKey, staged: &mut Staged) -> Vec<String> {
    let mut missing = Vec::new();
    let mut is_above_container = false;
    for candidate in cgroup::parse(&path.text).into_iter().rev() {
        let Candidate { id, certainty, role, depth, .. } = candidate;
        let is_word = certainty == Certainty::Possible;
        if role != Role::Workload || (is_word && is_above_container) {
            continue;
        }
        let is_missing = if is_word {
            path.ids
                .get(depth - 1)
                .is_none_or(|id| staged.by_cgroup(CgroupKey { id: *id, ..key }).is_none())
        } else {
            let is_poor = |known: Arc<Container>| known.name.is_none() && !known.is_sandbox;
            cgroup::is_hex64(&id) && staged.by_id(&id).is_none_or(is_poor)
        };
        is_above_container |= !is_word || !is_missing;
        if is_missing {
            missing.push(id);
        }
    }
    missing
}

/// Resolves the cgroup at `path` from what is staged, and from what was known when that was `old`: the
/// table forgets. `waited`: for the disk, so far, nanoseconds; none where it was not asked.
pub fn resolve(
    path: &CgroupPath,
    key: CgroupKey,
    staged: &mut Staged,
    old: Option<&Resolution>,
    now: u64,
    waited: Option<u64>,
) -> Resolution {
    let generation = staged.generation();
    let mut candidates = cgroup::parse(&path.text);
    if let Some((user, level)) = cgroup::user(&path.text) {
        // A user may name his cgroups after anybody's container.
        candidates.retain(|found| found.depth <= level || !staged.is_others(&found.id, user));
    }
    let mut chain: Vec<Known> = Vec::new();
    let mut is_helper = false;
    for (depth, id) in (1..).zip(&path.ids) {
        let candidate = candidates.iter().find(|candidate| candidate.depth == depth);
        if candidate.is_some_and(|candidate| candidate.role == Role::RuntimeHelper) {
            is_helper = true;
            // nspawn's supervisor is inside the scope of the machine, but outside the machine.
            let id = candidate.map_or("", |candidate| &candidate.id);
            chain.pop_if(|known| known.container.id == id);
            continue;
        }
        let level = CgroupKey { id: *id, ..key };
        let owner = staged
            .by_cgroup(level)
            .map(|container| Known { container, from_metadata: true, depth })
            .or_else(|| of_candidate(candidate?, chain.is_empty(), staged));
        let owner = match owner {
            Some(known) if known.from_metadata => Some(known),
            named => {
                let is_forgotten = |old: &&Known| {
                    let is_same = |named: &Known| named.container.id == old.container.id;
                    let is_free = named.is_none() && !staged.is_claimed(level);
                    old.depth == depth && (is_free || named.as_ref().is_some_and(is_same))
                };
                let old = old.map_or(&[][..], |old| &old.chain);
                let known = old.iter().filter(|old| old.from_metadata).find(is_forgotten);
                known.cloned().or(named)
            }
        };
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
