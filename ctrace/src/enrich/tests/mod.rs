//! The enricher against daemons that fail in every way, and against ones that answer.

mod fake;
mod grpc;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::worker::Timing;
use super::*;
use fake::*;

/// The breaker opens after three failures, the socket is left alone, then tried once.
fn check_opens(behave: impl Fn(&mut UnixStream) -> bool + Copy + Send + Sync + 'static) {
    for protocol in [Protocol::Cri, Protocol::Docker, Protocol::Podman] {
        let fake = Fake::start(protocol, move |_, mut stream| behave(&mut stream));
        let (enricher, mut receiver) = start(&fake);
        wait_until("the breaker opens", || enricher.reports()[0].is_open);
        let [report] = enricher.reports().try_into().expect("one socket");
        let Report { socket, lists, failures, error, is_open } = report;
        assert_eq!((&socket, lists, failures, is_open), (&fake.socket, 0, 3, true));
        assert!(error.is_some(), "{protocol:?}");
        // Asking is free, whatever the daemon does.
        let asking = Instant::now();
        for number in 0..10_000 {
            enricher.ask(&number.to_string());
        }
        assert!(asking.elapsed() < PATIENCE / 10, "10,000 asks took {:?}", asking.elapsed());
        wait_until("the trial", || enricher.reports()[0].failures == 4);
        let [.., third, trial] = fake.times()[..] else { panic!("no connections") };
        assert_eq!(fake.connections(), 4, "{protocol:?}");
        // A machine may be slow in accepting the third, but not by half a second.
        assert!(trial - third > TIMING.open / 2, "left alone for {:?}", trial - third);
        // The thread lives, and nothing came.
        assert_eq!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        drop(enricher);
        assert_eq!(next(&mut receiver), None);
    }
}

#[test]
fn a_daemon_that_never_answers() {
    check_opens(hang);
}

#[test]
fn no_connection_is_left_to_a_daemon_that_hangs() {
    for protocol in [Protocol::Cri, Protocol::Docker, Protocol::Podman] {
        let fake = Fake::start(protocol, |_, mut stream| hang(&mut stream));
        let (enricher, _receiver) = start(&fake);
        wait_until("the breaker opens", || enricher.reports()[0].is_open);
        wait_until("all are closed", || fake.closed.load(Ordering::SeqCst) == 3);
        let error = enricher.reports()[0].error.clone().expect("an error");
        assert!(error.contains("no answer within"), "{error}");
    }
}

#[test]
fn a_daemon_that_closes_at_once() {
    check_opens(|_| false);
}

#[test]
fn a_daemon_that_closes_in_the_middle_of_its_answer() {
    check_opens(|stream| {
        request(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[");
        false
    });
}

#[test]
fn a_daemon_that_sends_garbage() {
    check_opens(|stream| {
        // A generator of all bytes in an order without a period that matters.
        let garbage: Vec<u8> = (1..=20_000_u32)
            .scan(1_u32, |state, _| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some(state.to_be_bytes()[0])
            })
            .collect();
        let _ = stream.write_all(&garbage);
        hang(stream)
    });
}

#[test]
fn a_daemon_whose_headers_never_end() {
    check_opens(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        pour(stream, b"X-More: and more\r\n")
    });
}

/// SETTINGS, then PING frames without end, whose answers are never read (RFC 9113, 6.5 and 6.7).
fn pour_pings(stream: &mut UnixStream) -> bool {
    let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    pour(stream, &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
}

#[test]
fn a_daemon_that_pours_frames_of_http2() {
    check_opens(pour_pings);
}

#[test]
fn no_connection_is_left_to_a_daemon_that_pours_frames() {
    let fake = Fake::start(Protocol::Cri, |_, mut stream| pour_pings(&mut stream));
    let (enricher, _receiver) = start(&fake);
    wait_until("the breaker opens", || enricher.reports()[0].is_open);
    wait_until("all are closed", || fake.closed.load(Ordering::SeqCst) == 3);
}

#[test]
fn an_answer_without_end_is_cut() {
    let slow = Timing { request: PATIENCE, ..TIMING };
    let fake = Fake::start(Protocol::Docker, |_, mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        pour(&mut stream, &[b' '; 1 << 16])
    });
    let (enricher, _receiver) =
        Enricher::start_with(vec![fake.socket.clone()], slow).expect("a thread");
    wait_until("a failure", || enricher.reports()[0].failures > 0);
    let error = enricher.reports()[0].error.clone().expect("an error");
    assert!(error.contains("length limit exceeded"), "{error}");
}

#[test]
fn a_socket_that_is_not_there() {
    let path = "/nonexistent/docker.sock".into();
    let sockets = vec![Socket { protocol: Protocol::Docker, path }];
    let (enricher, _receiver) = Enricher::start_with(sockets, TIMING).expect("a thread");
    wait_until("the breaker opens", || enricher.reports()[0].is_open);
    let error = enricher.reports()[0].error.clone().expect("an error");
    assert!(error.contains("connecting"), "{error}");
}

#[test]
fn a_daemon_that_comes_back_is_listed_without_being_asked() {
    let fake = Fake::start(Protocol::Docker, |number, mut stream| {
        // Three failures, a trial that fails too, and then an answer.
        number >= 4 && docker_list(&mut stream)
    });
    let (enricher, mut receiver) = start(&fake);
    let batch = next(&mut receiver).expect("a batch");
    assert_eq!(batch[0].id, "c1");
    let [report] = enricher.reports().try_into().expect("one socket");
    let Report { socket: _, lists, failures, error, is_open } = report;
    assert_eq!((lists, failures, error, is_open), (1, 4, None, false));
}

#[test]
fn a_daemon_that_hangs_does_not_hold_up_another() {
    let hung = Fake::start(Protocol::Cri, |_, mut stream| hang(&mut stream));
    let good = Fake::start(Protocol::Docker, |_, mut stream| docker_list(&mut stream));
    let timing = Timing { request: 2 * PATIENCE, ..TIMING };
    let sockets = vec![hung.socket.clone(), good.socket.clone()];
    let (enricher, mut receiver) = Enricher::start_with(sockets, timing).expect("a thread");
    assert_eq!(next(&mut receiver).expect("a batch")[0].id, "c1");
    enricher.ask("c2");
    assert_eq!(next(&mut receiver).expect("a batch")[0].id, "c1");
    assert_eq!((hung.connections(), good.connections()), (1, 2));
}

#[test]
fn many_asks_are_one_list() {
    let fake = Fake::start(Protocol::Docker, |_, mut stream| docker_list(&mut stream));
    let timing = Timing { gather: Duration::from_millis(300), ..TIMING };
    let (enricher, mut receiver) =
        Enricher::start_with(vec![fake.socket.clone()], timing).expect("a thread");
    next(&mut receiver).expect("the list of the start");
    for number in 0..1000 {
        enricher.ask(&number.to_string());
    }
    let [web] = next(&mut receiver).expect("a batch").try_into().expect("one container");
    let labels = [("k".to_owned(), "v".to_owned())].into();
    let expected =
        Container { id: "c1".into(), name: Some("web".into()), labels, ..Container::default() };
    assert_eq!(web, expected);
    // The same id again, at once: its list has just been made.
    enricher.ask("7");
    thread::sleep(2 * timing.gather);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn lists_at_a_socket_keep_their_distance() {
    let between = Duration::from_millis(400);
    let timing = Timing { gather: Duration::from_millis(1), between, ..TIMING };
    let fake = Fake::start(Protocol::Docker, |_, mut stream| docker_list(&mut stream));
    let began = Instant::now();
    let (enricher, mut receiver) =
        Enricher::start_with(vec![fake.socket.clone()], timing).expect("a thread");
    for number in 0..4 {
        enricher.ask(&number.to_string());
        next(&mut receiver).expect("a batch");
    }
    let least = began + 3 * between;
    assert!(Instant::now() >= least, "four lists in {:?}", began.elapsed());
}

#[test]
fn a_receiver_that_does_not_read_holds_up_the_thread_only() {
    let fake = Fake::start(Protocol::Docker, |_, mut stream| docker_list(&mut stream));
    let timing = Timing { gather: Duration::from_millis(1), ..TIMING };
    let (enricher, mut receiver) =
        Enricher::start_with(vec![fake.socket.clone()], timing).expect("a thread");
    let mut number = 0;
    wait_until("the channel is full and one more list waits", || {
        number += 1;
        enricher.ask(&number.to_string());
        receiver.len() == BATCHES && fake.connections() == BATCHES + 1
    });
    for number in 0..10 {
        enricher.ask(&format!("late {number}"));
        thread::sleep(2 * timing.between);
    }
    assert_eq!(fake.connections(), BATCHES + 1);
    // It ends nonetheless, and what was in the channel can still be read.
    drop(enricher);
    let batches = std::iter::from_fn(|| next(&mut receiver)).count();
    assert!((BATCHES..=BATCHES + 1).contains(&batches), "{batches}");
}

#[test]
fn the_thread_ends_when_nobody_listens() {
    let fake = Fake::start(Protocol::Cri, |_, mut stream| hang(&mut stream));
    let (enricher, receiver) = start(&fake);
    drop(receiver);
    wait_until("the end", || enricher.asks.is_closed());
    enricher.ask("c1");
}

#[test]
fn docker_29_is_asked_in_a_newer_form() {
    let fake = Fake::start(Protocol::Docker, |_, mut stream| {
        if request(&mut stream).starts_with("GET /v1.44/containers/json?all=1 ") {
            answer(&mut stream, "200 OK", LIST);
        } else {
            answer(&mut stream, "400 Bad Request", r#"{"message":"client version is too old"}"#);
        }
        false
    });
    let (_enricher, mut receiver) = start(&fake);
    assert_eq!(next(&mut receiver).expect("a batch")[0].id, "c1");
}
