//! What the runtimes know and keep on no disk: pod labels, podman's labels and pods. Asked at their
//! sockets, only where the user wants it.
//!
//! A thread of its own does it all: a daemon that hangs, lies or dies costs that thread some time
//! and nobody else any. Each socket has a task, so that one daemon never waits for another.

mod asked;
mod breaker;
mod connection;
pub mod cri;
mod rest;
mod socket;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use connection::call;
pub use socket::{Protocol, Socket};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::event::{Container, Pod};
use worker::Timing;

/// Batches that wait for the receiver; with more, the asking waits.
const BATCHES: usize = 2;

/// The most containers, or pods, that one answer may have: an empty one is two bytes on the wire and
/// a hundred times that in memory.
const MAX_ENTRIES: usize = 1 << 16;

/// Asks that wait for the thread; while it has so many, one more changes nothing.
const ASKS: usize = 256;

/// How asking at a socket goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub socket: Socket,
    /// Lists that came.
    pub lists: u64,
    /// Lists that failed.
    pub failures: u64,
    /// Why the last one failed; gone with one that came. May hold the daemon's words.
    pub error: Option<String>,
    /// Whether it is left alone for a while, after three failures in a row.
    pub is_open: bool,
}

/// The handle of the thread that asks. The thread ends when this or the receiver is dropped.
#[derive(Debug)]
pub struct Enricher {
    asks: Sender<String>,
    reports: Vec<Arc<Mutex<Report>>>,
}

impl Enricher {
    /// Starts the thread. It lists all containers at once, and again when asked; each batch is one
    /// socket's whole list. The receiver ends with the thread.
    pub fn start(sockets: Vec<Socket>) -> io::Result<(Enricher, Receiver<Vec<Container>>)> {
        Self::start_with(sockets, Timing::default())
    }

    fn start_with(
        sockets: Vec<Socket>,
        timing: Timing,
    ) -> io::Result<(Enricher, Receiver<Vec<Container>>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (asks, asked) = mpsc::channel(ASKS);
        let (batches, receiver) = mpsc::channel(BATCHES);
        let report = |socket| Report { socket, lists: 0, failures: 0, error: None, is_open: false };
        let reports: Vec<_> =
            sockets.into_iter().map(|socket| Arc::new(Mutex::new(report(socket)))).collect();
        let shared = reports.clone();
        // The name is cut at 15 bytes by the kernel.
        thread::Builder::new().name("enrich".to_owned()).spawn(move || {
            runtime.block_on(worker::run(shared, timing, asked, batches));
        })?;
        Ok((Enricher { asks, reports }, receiver))
    }

    /// Wants to know about a container; never waits. The answer is a batch with the id in it, if a
    /// runtime knows it. For an id that none knows, asks count ever more seldom.
    pub fn ask(&self, id: &str) {
        // Full: a list is about to be made, and it has all containers.
        let _ = self.asks.try_send(id.to_owned());
    }

    /// How it goes at each socket.
    pub fn reports(&self) -> Vec<Report> {
        let reports = self.reports.iter();
        reports
            .map(|report| report.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }
}

/// The pod that the kubelet's labels of a container name
/// (`k8s.io/kubernetes/pkg/kubelet/types/labels.go`).
fn pod_of_labels(labels: &BTreeMap<String, String>) -> Option<Pod> {
    let label = |key: &str| labels.get(key).cloned().and_then(said);
    let pod = Pod {
        name: label("io.kubernetes.pod.name"),
        namespace: label("io.kubernetes.pod.namespace"),
        uid: label("io.kubernetes.pod.uid"),
        labels: None,
    };
    (pod != Pod::default()).then_some(pod)
}

/// An image's reference; an image's id is none.
fn reference(image: String) -> Option<String> {
    let is_id = image.starts_with("sha256:") || crate::event::is_hex64(&image);
    said(image).filter(|_| !is_id)
}

/// Runtimes write an empty text for what they do not know.
fn said(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
