//! The thread's tasks: one gathers asks, one per socket lists.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::asked::Asked;
use super::breaker::Breaker;
use super::connection::{call, get};
use super::cri::{ListContainersRequest, ListPodSandboxRequest};
use super::{Container, Protocol, Report, Socket, cri, rest};

/// How long what takes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The longest that one request may take.
    pub request: Duration,
    /// How long asks are gathered for one list.
    pub gather: Duration,
    /// Least time between the beginnings of two lists at a socket.
    pub between: Duration,
    /// How long a socket is left alone after three failures in a row.
    pub open: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(2),
            gather: Duration::from_millis(200),
            between: Duration::from_secs(1),
            open: Duration::from_secs(30),
        }
    }
}

/// Runs until nobody can ask or nobody listens any more.
pub async fn run(
    sockets: Vec<Arc<Mutex<Report>>>,
    timing: Timing,
    asks: Receiver<String>,
    batches: Sender<Vec<Container>>,
) {
    let mut tasks = JoinSet::new();
    let mut wakes = Vec::new();
    for report in sockets {
        let wake = Arc::new(Notify::new());
        wakes.push(Arc::clone(&wake));
        tasks.spawn(serve(report, timing, wake, batches.clone()));
    }
    tokio::select! {
        () = gather(asks, timing.gather, &wakes) => {}
        () = batches.closed() => {}
    }
}

/// Makes many asks one, for all sockets: an id does not say whose it is.
async fn gather(mut asks: Receiver<String>, time: Duration, wakes: &[Arc<Notify>]) {
    let mut asked = Asked::default();
    while let Some(id) = asks.recv().await {
        if !asked.admit(&id, Instant::now()) {
            continue;
        }
        sleep(time).await;
        while let Ok(id) = asks.try_recv() {
            asked.admit(&id, Instant::now());
        }
        wakes.iter().for_each(|wake| wake.notify_one());
    }
}

/// Lists at one socket: at the beginning, and when woken. A list that fails is tried again, as soon
/// as the breaker allows.
async fn serve(
    report: Arc<Mutex<Report>>,
    timing: Timing,
    wake: Arc<Notify>,
    batches: Sender<Vec<Container>>,
) {
    let socket = lock(&report).socket.clone();
    let mut breaker = Breaker::new(timing.open);
    loop {
        let began = Instant::now();
        let mut next = began + timing.between;
        if breaker.admit(began) {
            let listed = list(&socket, timing.request).await;
            match &listed {
                Ok(_) => breaker.succeeded(),
                Err(_) => breaker.failed(Instant::now()),
            }
            lock(&report).tell(&listed, &breaker);
            if let Ok(list) = listed {
                if batches.send(list).await.is_err() {
                    return;
                }
                wake.notified().await;
            }
        }
        if let Some(until) = breaker.open_until() {
            next = next.max(until);
        }
        sleep_until(next.into()).await;
    }
}

impl Report {
    fn tell(&mut self, listed: &Result<Vec<Container>>, breaker: &Breaker) {
        match listed {
            Ok(_) => {
                self.lists += 1;
                self.error = None;
            }
            Err(error) => {
                self.failures += 1;
                self.error = Some(format!("{error:#}"));
            }
        }
        self.is_open = breaker.open_until().is_some();
    }
}

fn lock(report: &Mutex<Report>) -> std::sync::MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All containers that a runtime knows.
async fn list(socket: &Socket, limit: Duration) -> Result<Vec<Container>> {
    let Socket { protocol, path } = socket;
    match protocol {
        Protocol::Cri => {
            // Containers first: the pods of all of them are there when pods are listed.
            let question = ListContainersRequest {};
            let containers = within(limit, call(path, cri::LIST_CONTAINERS, question)).await?;
            let question = ListPodSandboxRequest {};
            let pods = within(limit, call(path, cri::LIST_POD_SANDBOX, question)).await?;
            cri::enriched(containers, pods)
        }
        Protocol::Docker => {
            let [old, new] = rest::DOCKER_CONTAINERS;
            let mut answer = within(limit, get(path, old)).await?;
            // "client version is too old"
            if answer.0 == StatusCode::BAD_REQUEST {
                answer = within(limit, get(path, new)).await?;
            }
            rest::docker(&good(answer)?).context("docker's list")
        }
        Protocol::Podman => {
            let containers = good(within(limit, get(path, rest::PODMAN_CONTAINERS)).await?)?;
            let pods = good(within(limit, get(path, rest::PODMAN_PODS)).await?)?;
            rest::podman(&containers, &pods).context("podman's lists")
        }
    }
}

async fn within<T>(limit: Duration, request: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, request).await.with_context(|| format!("no answer within {limit:?}"))?
}

fn good((status, body): (StatusCode, Bytes)) -> Result<Bytes> {
    ensure!(status == StatusCode::OK, "the answer is {status}");
    Ok(body)
}
