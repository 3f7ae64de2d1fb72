//! From what is known of each cgroup to one answer. Pure.

use std::sync::Arc;

use super::cgroup;
use super::resolve::{CgroupPath, Resolution};
use crate::event::{Attribution, CgroupKey, Container, Via};

/// What one cgroup says.
pub fn of_cgroup(key: CgroupKey, path: &CgroupPath, resolution: &Resolution) -> Attribution {
    let unit = if path.is_complete { cgroup::unit(&path.text) } else { None };
    let via = match resolution.chain.last() {
        Some(known) if known.from_metadata => Via::Cgroup,
        Some(_) => Via::CgroupPath,
        None if resolution.is_helper => Via::RuntimeHelper,
        None if unit.is_some() => Via::Unit,
        None if path.is_complete && cgroup::is_plain_host(&path.text) => Via::Host,
        None => Via::Unknown,
    };
    let mut outer: Vec<Arc<Container>> =
        resolution.chain.iter().map(|known| known.container.clone()).collect();
    let container = outer.pop();
    let is_partial = container.as_ref().is_some_and(|container| container.name.is_none())
        && resolution.may_come_soon();
    Attribution {
        unit: unit.filter(|_| container.is_none()).map(Into::into),
        path: path.is_complete.then(|| (key, path.text.clone())),
        container,
        outer,
        via,
        phase: None,
        is_partial,
    }
}

/// The answer to give where `other` is that of a less preferred cgroup.
///
/// A container beats a unit. Of two containers the inner one wins where the other is around it, else
/// the one whose mount namespace the process is in, else the first.
pub fn better(first: Attribution, other: Attribution, of_namespace: Option<&str>) -> Attribution {
    let is_other = match (&first.container, &other.container) {
        (Some(one), Some(two)) if one.id == two.id => rank(&other) > rank(&first),
        (Some(one), Some(two)) => {
            let is_around = |around: &Container, answer: &Attribution| {
                answer.outer.iter().any(|outer| outer.id == around.id)
            };
            is_around(one, &other)
                || (!is_around(two, &first) && of_namespace == Some(two.id.as_str()))
        }
        (Some(_), None) => false,
        (None, Some(_)) => true,
        (None, None) => precedence(&other) > precedence(&first),
    };
    let (answer, rest) = if is_other { (other, first) } else { (first, other) };
    if answer.path.is_some() {
        return answer;
    }
    Attribution { path: rest.path, unit: answer.unit.or(rest.unit), ..answer }
}

/// Of two answers that name the same container, the one that knows more of it.
fn rank(answer: &Attribution) -> (bool, usize) {
    (answer.via == Via::Cgroup, answer.outer.len())
}

/// Which answer without a container to give. One unknown cgroup is enough not to know: an older runc
/// does not join the v2 hierarchy, whose cgroup is then another's, and a host's by its looks.
fn precedence(answer: &Attribution) -> u8 {
    match answer.via {
        Via::RuntimeHelper => 4,
        Via::Unknown if answer.path.is_some() => 3,
        Via::Unknown => 2,
        Via::Unit => 1,
        _ => 0,
    }
}

/// Whether `answer` is about the container `id`, or one inside it.
pub fn is_inside(answer: &Attribution, id: &str) -> bool {
    answer.outer.iter().any(|outer| outer.id == id)
}
