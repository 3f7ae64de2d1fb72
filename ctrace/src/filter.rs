//! Which events the user asked for. Pure.

mod condition;

use wildmatch::WildMatch;

pub use condition::Condition;

use crate::event::{Attribution, Container, Event, Pod, Process, Subject, matches};

/// What an event must be to be shown: one of each list that is not empty, and all of the conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Container names or id prefixes.
    pub containers: Vec<String>,
    /// Names of Kubernetes or podman pods, or their UIDs.
    pub pods: Vec<String>,
    /// Kubernetes namespaces.
    pub namespaces: Vec<String>,
    /// Image references, with `*` and `?`.
    pub images: Vec<WildMatch>,
    /// Process ids in the initial pid namespace.
    pub pids: Vec<u32>,
    /// Paths of cgroups, from the root of a hierarchy: these and what is below them.
    pub cgroups: Vec<String>,
    /// What the event's fields must be: all of these.
    pub conditions: Vec<Condition>,
}

impl Filter {
    /// Whether an event is wanted. Gaps in the stream always are.
    pub fn wants(&self, event: &Event) -> bool {
        let is_asked_for = || event.about().any(|subject| self.wants_subject(subject));
        event.subject.is_none()
            || (is_asked_for() && self.conditions.iter().all(|condition| condition.holds(event)))
    }

    /// Whether one of the event's processes is asked for, whoever's it is.
    pub fn wants_a_process(&self, event: &Event) -> bool {
        event.subject.is_none() || event.about().any(|one| self.wants_process(&one.process))
    }

    fn wants_subject(&self, subject: &Subject) -> bool {
        let counted_on = subject.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        self.wants_process(&subject.process)
            && (self.wants_path(&subject.attribution) || self.is_below(counted_on))
            && self.wants_container(&subject.attribution)
    }

    /// Whether anything is asked that a cgroup or a namespace can answer.
    pub fn is_of_places(&self) -> bool {
        let Self { containers, pods, namespaces, images, pids: _, cgroups, conditions: _ } = self;
        !(containers.is_empty()
            && pods.is_empty()
            && namespaces.is_empty()
            && images.is_empty()
            && cgroups.is_empty())
    }

    /// Whether an event of what is there, whichever process it is of, may be wanted.
    pub fn may_want(&self, place: &Attribution) -> bool {
        place.is_partial || (self.wants_path(place) && self.wants_container(place))
    }

    /// Whether the process is asked for, whoever's it is.
    fn wants_process(&self, process: &Process) -> bool {
        self.pids.is_empty() || process.pid.is_some_and(|pid| self.pids.contains(&pid))
    }

    /// Whether anything is asked of pods, which may be known only to the runtime.
    pub fn asks_of_pods(&self) -> bool {
        !(self.pods.is_empty() && self.namespaces.is_empty())
    }

    fn wants_path(&self, attribution: &Attribution) -> bool {
        self.cgroups.is_empty() || self.is_below(attribution.path.as_ref().map(|(_, path)| &**path))
    }

    fn is_below(&self, path: Option<&str>) -> bool {
        let Some(path) = path else { return false };
        self.cgroups.iter().any(|top| {
            let top = top.trim_end_matches('/');
            path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// One container must be all that is asked: it, or one around it.
    fn wants_container(&self, attribution: &Attribution) -> bool {
        !self.asks_of_containers() || attribution.containers().any(|one| self.wants_one(one))
    }

    fn asks_of_containers(&self) -> bool {
        let Self { containers, pods, namespaces, images, pids: _, cgroups: _, conditions: _ } =
            self;
        !(containers.is_empty() && pods.is_empty() && namespaces.is_empty() && images.is_empty())
    }

    /// Whether the container by itself is all that is asked.
    pub fn wants_one(&self, container: &Container) -> bool {
        let Self { containers, pods, namespaces, images, pids: _, cgroups: _, conditions: _ } =
            self;
        any(containers, |selector| matches(container, selector))
            && any(pods, |pod| is_in_pod(container, pod))
            && any(namespaces, |namespace| {
                let pod = container.pod.as_ref();
                pod.and_then(|pod| pod.namespace.as_ref()) == Some(namespace)
            })
            && any(images, |glob| container.image.as_ref().is_some_and(|image| glob.matches(image)))
    }
}

/// An empty list asks nothing.
fn any<T>(list: &[T], is: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(is)
}

fn is_in_pod(container: &Container, selector: &str) -> bool {
    let Some(Pod { name, uid, .. }) = &container.pod else { return false };
    name.as_deref() == Some(selector) || uid.as_deref() == Some(selector)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{CgroupKey, Deadliness, Exit, Oom, Payload, Signal, SignalVia};

    fn container(name: &str, image: &str, pod: Option<(&str, &str)>) -> Arc<Container> {
        let pod = pod.map(|(namespace, name)| Pod {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            ..Pod::default()
        });
        let (name, image) = (Some(name.to_owned()), Some(image.to_owned()));
        Container { id: "x".into(), name, image, pod, ..Container::default() }.into()
    }

    fn event(container: Option<Arc<Container>>, outer: Vec<Arc<Container>>, path: &str) -> Event {
        let key = CgroupKey { hierarchy: 0, id: 5 };
        let path = Some((key, path.into()));
        let mut subject = Subject::default();
        subject.process.pid = Some(7);
        subject.attribution =
            Attribution { container, outer, path, ..Attribution::default() }.into();
        Event { time_ns: 0, subject: Some(subject), payload: Payload::Exit(Exit::default()) }
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn one_of_a_kind_and_all_kinds() {
        let web = event(Some(container("web", "nginx:1", Some(("prod", "shop")))), vec![], "/a/b");
        let filter = |containers, pods, namespaces, image: &[&str]| Filter {
            containers: list(containers),
            pods: list(pods),
            namespaces: list(namespaces),
            images: image.iter().map(|glob| WildMatch::new(glob)).collect(),
            ..Filter::default()
        };
        assert!(Filter::default().wants(&web));
        assert!(filter(&["db", "web"], &[], &[], &[]).wants(&web));
        assert!(filter(&["web"], &["shop"], &["prod"], &["nginx:*"]).wants(&web));
        assert!(!filter(&["web"], &["shop"], &["test"], &[]).wants(&web));
        assert!(!filter(&[], &[], &[], &["nginx"]).wants(&web));
        assert!(!filter(&["web"], &[], &[], &[]).wants(&event(None, vec![], "/a")));
    }

    #[test]
    fn the_container_around_counts_but_not_a_half_of_each() {
        let inner = container("in", "bb", None);
        let outer = container("out", "kind", None);
        let nested = event(Some(inner), vec![outer], "/a");
        let filter = |name: &str, image: &str| Filter {
            containers: list(&[name]),
            images: vec![WildMatch::new(image)],
            ..Filter::default()
        };
        assert!(filter("out", "kind").wants(&nested));
        assert!(!filter("out", "bb").wants(&nested));
    }

    #[test]
    fn a_signals_sender_counts_but_not_an_oom_kills_trigger() {
        let [web, db] = ["web", "db"].map(|name| Some(container(name, "bb", None)));
        let other = event(db, vec![], "/db").subject.expect("made so");
        let of = |payload| Event { payload, ..event(web.clone(), vec![], "/web") };
        let signal = of(Payload::Signal(Box::new(Signal {
            number: 9,
            code: 0,
            via: SignalVia::Process,
            sender: Some(other.clone()),
            is_group: true,
            result: 0,
            address: None,
            syscall: None,
            deadliness: Deadliness::Fatal,
            init: None,
        })));
        let kill = of(Payload::OomKill(Box::new(Oom { trigger: other, ..Oom::default() })));
        let filter = |name, path: &[&str]| Filter {
            containers: list(&[name]),
            cgroups: list(path),
            ..Filter::default()
        };
        assert!(filter("web", &[]).wants(&signal) && filter("db", &[]).wants(&signal));
        assert!(!filter("y", &[]).wants(&signal));
        assert!(!filter("db", &["/web"]).wants(&signal), "not a half of each");
        assert!(filter("web", &[]).wants(&kill) && !filter("db", &[]).wants(&kill));
    }

    #[test]
    fn processes_and_cgroups() {
        let event = event(None, vec![], "/system.slice/ssh.service");
        let pids = |pid| Filter { pids: vec![pid], ..Filter::default() };
        assert!(pids(7).wants(&event) && !pids(8).wants(&event));
        let below = |path: &str| Filter { cgroups: list(&[path]), ..Filter::default() };
        for path in ["/", "/system.slice", "/system.slice/", "/system.slice/ssh.service"] {
            assert!(below(path).wants(&event), "{path}");
        }
        for path in ["/system", "/system.slice/ssh", "/x"] {
            assert!(!below(path).wants(&event), "{path}");
        }
    }

    #[test]
    fn what_may_still_get_a_name_may_be_wanted() {
        let filter = Filter { containers: list(&["web"]), ..Filter::default() };
        let partial = Attribution { is_partial: true, ..Attribution::default() };
        assert!(filter.may_want(&partial) && !filter.may_want(&Attribution::default()));
    }

    #[test]
    fn gaps_are_always_shown() {
        let filter = Filter { containers: list(&["web"]), ..Filter::default() };
        let mut lost = event(None, vec![], "/");
        lost.subject = None;
        assert!(filter.wants(&lost));
    }
}
