//! What the mount namespace of a process says, and the processes that it descends from.

use std::time::Instant;

use super::identity::{Identity, Kinship};
use super::inventory::Ask;
use super::namespaces::Claim;
use super::{Attributor, answer, inits, mountinfo};
use crate::event::{Attribution, CgroupKey, Phase, Via};

impl Attributor {
    /// Compares the cgroups' answer with the mount namespace.
    pub(super) fn place(
        &mut self,
        answer: &mut Attribution,
        who: &Identity,
        is_in_host: bool,
        now: u64,
    ) {
        let Some(id) = answer.container.as_ref().map(|container| container.id.clone()) else {
            return;
        };
        if is_in_host {
            answer.phase = Some(Phase::RuntimeInit);
            return;
        }
        // What its first process is in outweighs what its mounts name.
        let is_open = |via| via == Via::Mountinfo && who.is_first_in_pid_ns;
        let claimed = self.claimed(who.mnt_ns.id, now).filter(|(_, via)| !is_open(*via));
        let Some((claimed, _)) = claimed else {
            self.claim(answer, who);
            return;
        };
        if answer::is_inside(&claimed, &id) {
            let path = answer.path.take();
            let phase = Some(Phase::Joining);
            *answer = Attribution { path, via: Via::Namespace, phase, ..claimed };
        } else if claimed.container.is_some_and(|claimed| answer::is_inside(answer, &claimed.id)) {
            answer.phase = Some(Phase::RuntimeInit);
        }
    }

    /// The mount namespace is the container's, where the process surely has been put into it: it is
    /// the first in a pid namespace. Others may be a runtime's, still where the runtime is, or have
    /// gone on into another container's mounts.
    fn claim(&mut self, answer: &Attribution, who: &Identity) {
        let Some(id) = who.mnt_ns.id else { return };
        match &answer.path {
            Some((key, _)) if who.is_first_in_pid_ns => {
                self.namespaces.set_claim(id, Claim::Cgroup(*key));
            }
            _ => self.namespaces.note_unclaimed(id),
        }
    }

    /// Whose the mount namespace is known to be, and how.
    pub(super) fn claimed(&mut self, id: Option<u64>, now: u64) -> Option<(Attribution, Via)> {
        let (answer, via) = match self.namespaces.claim(id?)? {
            Claim::Cgroup(key) => (self.of_cgroup(key, now).0, Via::Namespace),
            Claim::Id { id, has_cgroup: _ } => {
                let container = self.catalog.staged.by_id(&id);
                (Attribution { container, ..Attribution::default() }, Via::Mountinfo)
            }
        };
        answer.container.is_some().then_some((answer, via))
    }

    /// What the mount namespace says of a process that no cgroup names a container for.
    pub(super) fn of_namespace(
        &mut self,
        who: &Identity,
        kin: Kinship,
        now: u64,
    ) -> Option<Attribution> {
        let id = who.mnt_ns.id?;
        if self.namespaces.claim(id).is_none() && self.namespaces.is_due(id, now) {
            let of_init = who.mnt_ns.inode.and_then(|inode| self.own_cgroup(inode));
            match of_init {
                Some(key) => self.namespaces.set_claim(id, Claim::Cgroup(key)),
                None => self.read_mounts(id, who, kin, now),
            }
        }
        let Some((answer, via)) = self.claimed(Some(id), now) else {
            self.namespaces.note_unclaimed(id);
            return None;
        };
        // A container that was told to have no cgroup of its own is joined as soon as its namespace.
        let is_joined =
            matches!(self.namespaces.claim(id), Some(Claim::Id { has_cgroup: false, .. }));
        let phase = (!is_joined).then_some(Phase::Joining);
        Some(Attribution { via, phase, unit: None, ..answer })
    }

    /// The cgroup of the container whose first process has the mount namespace with that inode.
    fn own_cgroup(&mut self, inode: u32) -> Option<CgroupKey> {
        let births = self.nodes.births();
        if self.inits.is_due(births) {
            let began = Instant::now();
            let listed = self.inventory(&Ask { wanted: &|_| true, all: false, details: false });
            self.inits.set(&listed, births, began);
        }
        self.inits.cgroup_of(inode)
    }

    /// Reads the mounts of the process, or, where it is gone already, of its parent.
    fn read_mounts(&mut self, namespace: u64, who: &Identity, kin: Kinship, now: u64) {
        let Some(inode) = who.mnt_ns.inode else { return };
        let of = |process| mountinfo::read(process, inode);
        let mounts = kin.process.and_then(of).or_else(|| kin.parent.and_then(of));
        self.namespaces.set_read(namespace, mounts.is_some(), now);
        let Some(id) = mounts.as_deref().and_then(mountinfo::container_id) else { return };
        if self.catalog.staged.by_id(id).is_none() {
            self.catalog.look_up(id, &*self.cgroups);
        }
        // Anybody with a mount namespace of his own can mount what looks like a container's files, and
        // a container has another's where it shares its network: only where the runtime knows it, and
        // its first process is there, or nowhere.
        if self.catalog.staged.by_id(id).is_none() {
            return;
        }
        let has_cgroup = self.nodes.any_named(id);
        let is_there = match self.catalog.staged.init(id) {
            Some(init) => inits::namespace(init) == Some(inode),
            None => !has_cgroup,
        };
        if is_there {
            let claim = Claim::Id { id: id.to_owned(), has_cgroup };
            self.namespaces.set_claim(namespace, claim);
        }
    }

    /// What is known of the process, or else of its parent.
    pub(super) fn of_kin(&mut self, kin: Kinship) -> Option<Attribution> {
        let Kinship { process, parent } = kin;
        let known = [process, parent].into_iter().flatten();
        known.into_iter().find_map(|key| Some((**self.processes.get(&key)?).clone()))
    }
}
