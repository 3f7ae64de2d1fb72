//! The grammar of cgroup paths: what a path alone says about containers, pods and systemd units.
//!
//! Sources of the shapes: runc `libcontainer/cgroups`, `containerd/pkg/cri`, CRI-O
//! `internal/config/cgmgr`, `containers/common/pkg/cgroups`, kubelet `cm/cgroup_manager_linux.go`,
//! LXC `cgfsng.c`, systemd's control group documentation.

use crate::event::Runtime;
pub use crate::event::is_hex64;

#[cfg(test)]
mod tests;

/// How much the form of a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Only a container runtime makes such a name: `docker-<64 hex>.scope`.
    Certain,
    /// 64 hexadecimal digits where any runtime, or none, may have put them.
    Likely,
    /// Any word can be the id of a `runc`, `crun` or `ctr` container: only its state can tell.
    Possible,
}

/// Whose processes the cgroup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The container's own.
    Workload,
    /// A runtime's, on behalf of containers: conmon, `lxc.monitor`.
    RuntimeHelper,
}

/// One level of a path that may be a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The runtime's id; empty for a helper that serves many containers.
    pub id: String,
    /// The runtime, where the name says so.
    pub runtime: Option<Runtime>,
    pub certainty: Certainty,
    pub role: Role,
    /// UID of the Kubernetes pod at or above this level, with dashes (a static pod's has none).
    pub pod_uid: Option<String>,
    /// Level below the root of the path; the first is 1.
    pub depth: usize,
    /// It has a container of podman's just below it: with the cgroupfs manager, podman gives a pod 64
    /// digits below any parent that its user chose. Only metadata can tell it from a container that
    /// runs podman.
    pub may_be_pod: bool,
}

/// The names of a path's levels, outermost first.
pub fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// All levels of `path` that may be containers, outermost first.
pub fn parse(path: &str) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut pod_uid = None;
    let mut above = Above::default();
    for (index, name) in components(path).enumerate() {
        let in_name = pod_uid_of(name);
        if in_name.is_some() {
            pod_uid = in_name.clone();
        }
        let depth = index + 1;
        if let Some(found) = classify(&above, depth, name) {
            let Found { id, runtime, certainty, role } = found;
            let is_podman = runtime == Some(Runtime::Podman) && role == Role::Workload;
            let pod_uid = pod_uid.clone();
            if let Some(above) = candidates.last_mut().filter(|_| is_podman) {
                above.may_be_pod = above.certainty == Certainty::Likely && above.depth + 1 == depth;
            }
            let may_be_pod = false;
            candidates.push(Candidate { id, runtime, certainty, role, pod_uid, depth, may_be_pod });
        }
        above = Above { name, is_pod: in_name.is_some(), first: above.first.or(Some(name)) };
    }
    candidates
}

/// The systemd unit that `path` belongs to: the first level below the leading slices, and below a
/// user's manager that manager's unit.
pub fn unit(path: &str) -> Option<&str> {
    let mut unit = None;
    for name in components(path) {
        if name.ends_with(".slice") {
            continue;
        }
        if !is_unit(name) {
            break;
        }
        unit = Some(name);
        if !(name.starts_with("user@") && name.ends_with(".service")) {
            break;
        }
    }
    unit
}

/// The uid of the user to whom systemd gave the cgroups below, and the level of his manager's unit,
/// below which he makes cgroups of any name. Root's are not counted.
pub fn user(path: &str) -> Option<(u32, usize)> {
    let uid_of = |name: &str| name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok();
    let mut levels = (1..).zip(components(path));
    levels.find_map(|(depth, name)| Some((uid_of(name)?, depth))).filter(|(uid, _)| *uid != 0)
}

/// Nothing in `path` but slices of systemd: no unit, no container, nobody else's cgroup.
pub fn is_plain_host(path: &str) -> bool {
    components(path).all(|name| name.ends_with(".slice") && !name.contains(':'))
}

/// What lies above the level in question.
#[derive(Default)]
struct Above<'p> {
    /// The level just above; empty at the root.
    name: &'p str,
    /// That level is a Kubernetes pod.
    is_pod: bool,
    /// The outermost level.
    first: Option<&'p str>,
}

struct Found {
    id: String,
    runtime: Option<Runtime>,
    certainty: Certainty,
    role: Role,
}

impl Found {
    fn certain(id: impl Into<String>, runtime: impl Into<Option<Runtime>>) -> Option<Self> {
        Some(Self {
            id: id.into(),
            runtime: runtime.into(),
            certainty: Certainty::Certain,
            role: Role::Workload,
        })
    }

    fn helper(id: impl Into<String>, runtime: Runtime) -> Option<Self> {
        Some(Self { role: Role::RuntimeHelper, ..Self::certain(id, runtime)? })
    }

    fn possible(id: &str, runtime: impl Into<Option<Runtime>>) -> Option<Self> {
        let free_text = !id.starts_with('.')
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b));
        let certainty = Certainty::Possible;
        free_text.then_some(Self { certainty, ..Self::certain(id, runtime)? })
    }
}

fn classify(above: &Above, depth: usize, name: &str) -> Option<Found> {
    if let Some(helper) = helper(above, name) {
        return Some(helper);
    }
    if let Some((runtime, id)) = prefixed(name) {
        return Found::certain(id, runtime);
    }
    if let Some((runtime, id)) = slice_form(name) {
        return Found::certain(id, runtime);
    }
    if is_hex64(name) {
        return match above.name {
            "docker" => Found::certain(name, Runtime::Docker),
            // A pod of podman's, with the cgroupfs manager; its containers are below it.
            "libpod_parent" => None,
            _ if above.is_pod => Found::certain(name, None),
            _ => Some(Found { certainty: Certainty::Likely, ..Found::certain(name, None)? }),
        };
    }
    if let Some(lxc) = name.strip_prefix("lxc.payload.").filter(|lxc| !lxc.is_empty()) {
        return Found::certain(lxc, Runtime::Lxc);
    }
    if above.name == "lxc" && depth == 2 {
        return Found::certain(name, Runtime::Lxc);
    }
    if above.first == Some("ecs") && is_ecs(name) {
        return Found::certain(name, None);
    }
    if let Some(machine) = machine(above, name) {
        return Found::certain(machine, Runtime::Nspawn);
    }
    if let Some(scope) = name.strip_suffix(".scope") {
        // `<prefix>-<id>.scope`: how runc and crun name scopes that nobody named for them.
        let (runtime, id) = scope
            .strip_prefix("runc-")
            .map(|id| (Runtime::Runc, id))
            .or_else(|| Some((Runtime::Crun, scope.strip_prefix("crun-")?)))?;
        return Found::possible(id, runtime);
    }
    if is_unit(name) || name.ends_with(".slice") || pod_uid_of(name).is_some() {
        return None;
    }
    Found::possible(name, None)
}

/// Cgroups of the runtimes' own processes.
fn helper(above: &Above, name: &str) -> Option<Found> {
    let scope = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in [("libpod-conmon-", Runtime::Podman), ("crio-conmon-", Runtime::CriO)]
    {
        if let Some(id) = scope.strip_prefix(prefix).filter(|id| is_hex64(id)) {
            return Found::helper(id, runtime);
        }
    }
    if above.name == "libpod_parent" && name == "conmon" {
        return Found::helper("", Runtime::Podman);
    }
    if let Some(lxc) = name.strip_prefix("lxc.monitor.") {
        return Found::helper(lxc, Runtime::Lxc);
    }
    if name == "lxc.pivot" {
        return Found::helper("", Runtime::Lxc);
    }
    if name == "supervisor" {
        return Found::helper(unescape(machine_unit(above.name)?), Runtime::Nspawn);
    }
    None
}

/// `docker-<64 hex>`, `cri-containerd-<64 hex>.scope` and their like.
fn prefixed(name: &str) -> Option<(Runtime, &str)> {
    const PREFIXES: [(&str, Runtime); 6] = [
        ("docker-", Runtime::Docker),
        ("cri-containerd-", Runtime::Containerd),
        ("crio-", Runtime::CriO),
        ("libpod-payload-", Runtime::Podman),
        ("libpod-", Runtime::Podman),
        ("nerdctl-", Runtime::Nerdctl),
    ];
    let scope = name.strip_suffix(".scope").unwrap_or(name);
    PREFIXES.iter().find_map(|(prefix, runtime)| {
        let id = scope.strip_prefix(prefix).filter(|id| is_hex64(id))?;
        Some((*runtime, id))
    })
}

/// `<slice>.slice:cri-containerd:<id>`: a path meant for systemd, used as a directory's name.
fn slice_form(name: &str) -> Option<(Runtime, &str)> {
    let mut parts = name.split(':');
    let (slice, prefix, id) = (parts.next()?, parts.next()?, parts.next()?);
    let runtime = match prefix {
        "cri-containerd" => Runtime::Containerd,
        "crio" => Runtime::CriO,
        "docker" => Runtime::Docker,
        "libpod" => Runtime::Podman,
        "nerdctl" => Runtime::Nerdctl,
        _ => return None,
    };
    let whole = parts.next().is_none() && slice.len() > ".slice".len();
    (whole && slice.ends_with(".slice") && !id.is_empty()).then_some((runtime, id))
}

/// The machine of a unit in `machine.slice`, unless it is a virtual machine or libvirt's, which are
/// not nspawn's.
fn machine(above: &Above, name: &str) -> Option<String> {
    let machine = unescape(machine_unit(name)?);
    let foreign = ["qemu-", "lxc-", "xen-"].iter().any(|prefix| machine.starts_with(prefix));
    (above.name == "machine.slice" && !foreign && !machine.is_empty()).then_some(machine)
}

/// The escaped machine's name in `machine-<name>.scope`, or in `systemd-nspawn@<name>.service`, which
/// `machinectl start` starts.
fn machine_unit(name: &str) -> Option<&str> {
    let scope = || name.strip_prefix("machine-")?.strip_suffix(".scope");
    let service = || name.strip_prefix("systemd-nspawn@")?.strip_suffix(".service");
    scope().or_else(service)
}

/// Undoes systemd's `\xNN`; what is not such an escape stays.
fn unescape(escaped: &str) -> String {
    let bytes = escaped.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code =
            bytes[at..].strip_prefix(b"\\x").and_then(|rest| rest.get(..2)).and_then(|hex| {
                u8::from_str_radix(std::str::from_utf8(hex).ok().filter(|hex| is_hex(hex))?, 16)
                    .ok()
            });
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// `pod<uid>` or `…-pod<uid>.slice`: a UID of 36 characters, or a static pod's 32 digits.
fn pod_uid_of(name: &str) -> Option<String> {
    let name = name.split(':').next().unwrap_or(name);
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let start = name.rfind("pod")?;
    let uid = &name[start + "pod".len()..];
    let begins_word = start == 0 || name[..start].ends_with('-');
    (begins_word && (is_uuid(uid) || (uid.len() == 32 && is_hex(uid))))
        .then(|| uid.replace('_', "-"))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-' || byte == b'_',
            _ => is_hex_digit(byte),
        })
}

/// `<32 hex>-<digits>`: a container of an ECS task.
fn is_ecs(name: &str) -> bool {
    name.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && is_hex(task)
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// A unit of systemd that can hold processes.
fn is_unit(name: &str) -> bool {
    [".service", ".scope", ".mount", ".socket", ".swap"].iter().any(|kind| name.ends_with(kind))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(is_hex_digit)
}

/// Runtimes write lower case only.
fn is_hex_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}
