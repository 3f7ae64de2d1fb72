//! Daemons for the tests: a Unix socket and a behaviour.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use super::super::worker::Timing;
use super::super::{Container, Enricher, Protocol, Socket};

/// Times of a fast clock. Requests have long enough for a busy machine.
pub const TIMING: Timing = Timing {
    request: Duration::from_millis(300),
    gather: Duration::from_millis(50),
    between: Duration::from_millis(20),
    open: Duration::from_secs(1),
};

/// Long enough for whatever is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const LIST: &str = r#"[{"Id": "c1", "Names": ["/web"], "Labels": {"k": "v"}}]"#;

/// A daemon; each connection has a thread.
pub struct Fake {
    pub socket: Socket,
    /// When each connection was accepted.
    accepted: Arc<Mutex<Vec<Instant>>>,
    /// Connections that the other side has closed, where the behaviour waits for that.
    pub closed: Arc<AtomicUsize>,
    _directory: TempDir,
}

impl Fake {
    /// `behave`: what happens on a connection, with its number from 0; true: it was closed.
    pub fn start(
        protocol: Protocol,
        behave: impl Fn(usize, UnixStream) -> bool + Send + Sync + 'static,
    ) -> Fake {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = Socket { protocol, path: directory.path().join("socket") };
        let listener = UnixListener::bind(&socket.path).expect("a socket");
        let (accepted, closed) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (times, count_closed) = (Arc::clone(&accepted), Arc::clone(&closed));
        let behave = Arc::new(behave);
        // They wait for connections until the tests' process ends.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = {
                    let mut times = times.lock().expect("no thread panics with it");
                    times.push(Instant::now());
                    times.len() - 1
                };
                let (behave, closed) = (Arc::clone(&behave), Arc::clone(&count_closed));
                thread::spawn(move || {
                    if behave(number, stream) {
                        closed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Fake { socket, accepted, closed, _directory: directory }
    }

    pub fn connections(&self) -> usize {
        self.times().len()
    }

    pub fn times(&self) -> Vec<Instant> {
        self.accepted.lock().expect("no thread panics with it").clone()
    }
}

pub fn start(fake: &Fake) -> (Enricher, Receiver<Vec<Container>>) {
    Enricher::start_with(vec![fake.socket.clone()], TIMING).expect("a thread")
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The next batch; `None`: the thread has ended.
pub fn next(receiver: &mut Receiver<Vec<Container>>) -> Option<Vec<Container>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, receiver.recv()).await })
        .expect("a batch or the end")
}

/// Reads a request of HTTP/1.1 without a body; its first line.
pub fn request(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        bytes.extend(byte);
    }
    String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned()
}

pub fn answer(stream: &mut UnixStream, status: &str, body: &str) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
}

/// A docker daemon's one answer.
pub fn docker_list(stream: &mut UnixStream) -> bool {
    request(stream);
    answer(stream, "200 OK", LIST);
    false
}

/// Reads until the other side closes.
pub fn hang(stream: &mut UnixStream) -> bool {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    true
}

/// Writes the same again and again until nobody reads.
pub fn pour(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    while stream.write_all(bytes).is_ok() {}
    true
}
